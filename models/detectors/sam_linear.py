"""A linear classifier on frozen features of Segment Anything's image encoder (Kirillov et al., arXiv 2304.02643).

SAM was trained to find borders, at 1024 pixels; images are enlarged to that size. `vit_l` and `vit_h` work too.
"""

from __future__ import annotations

from models.configs import LinearConfig
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector


@register_detector(
    "sam_linear",
    config=LinearConfig(backbone="vit_b", weights="hub"),
    gpu_share=0.5,
    picture_needs=lambda config: resized_to(config.size),
    small={"backbone": "demo", "weights": "random"},
)
def build(config: LinearConfig, context: BuildContext) -> Detector:
    """SAM image encoder, frozen; linear classifier."""
    from models.linear import probe_backbone

    return probe_backbone("sam", config, context)
