"""A linear classifier on frozen features of Segment Anything's image encoder (Kirillov et al., arXiv 2304.02643).

SAM was trained to find borders, at 1024 pixels; images are enlarged to that size. `vit_l` and `vit_h` work too.
"""

from __future__ import annotations

from typing import Any

from models.configs import SamConfig, starts_at_random
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector
from models.sizes import frozen


def for_pictures(config: dict[str, Any], *, square: bool) -> dict[str, Any]:
    """The configuration on a data set whose pictures are all square, or not."""
    fills = not square and config["resize"] in ("own", "pad")
    return {**config, "padding": "zero"} if fills else config


@register_detector(
    "sam_linear",
    config=SamConfig(backbone="vit_b", weights="hub"),
    family="published",
    gpu_share=0.5,
    picture_needs=lambda config: resized_to(config.size),
    depends_on_seed=starts_at_random,
    pretrained="sam",
    footprint=frozen("sam"),
    small={"backbone": "demo", "weights": "random"},
    for_pictures=for_pictures,
)
def build(config: SamConfig, context: BuildContext) -> Detector:
    """SAM image encoder, frozen; linear classifier."""
    from models.linear import probe_backbone

    return probe_backbone("sam", config, context, padding=config.padding)
