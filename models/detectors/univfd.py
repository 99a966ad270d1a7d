"""UniversalFakeDetect (Ojha et al., CVPR 2023, arXiv 2302.10174) as published: trained by its authors, on ProGAN.

A linear classifier with one output on CLIP ViT-L/14 (768 numbers, `encode_image`). Nothing is trained: the row has one
column, "no generator", and its threshold is p = 0.5, as published. The classifier is the file `fc_weights.pth` in
`pretrained_weights/` of github.com/WisconsinAIVision/UniversalFakeDetect:

    --weights univfd=fc_weights.pth

CLIP's own weights come from the hub; `--weights univfd.backbone_weights=FILE` names a file.

As in the authors' `validate.py`, 224 pixels are cut out of the middle, without a resize. A smaller picture is filled up
with CLIP's mean colour (theirs: with black).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic.dataclasses import dataclass

from models.configs import ClipPreparation, Precision, Size
from models.detector import BuildContext, Detector
from models.preparations import ONLY_OPEN_CLIP, complete_clip
from models.registry import register_detector

WHERE = "pretrained_weights/fc_weights.pth in https://github.com/WisconsinAIVision/UniversalFakeDetect"


@dataclass(frozen=True, kw_only=True)
class UnivfdConfig(ClipPreparation):
    """CLIP and a published classifier.

    Attributes:
        weights: of the classifier, a file with `weight` (1, D) and `bias` (1,); "random" for tests.
        backbone: an architecture of open_clip.
        backbone_weights: of the backbone: "random", "hub:TAG", or a file by `--weights METHOD=FILE`.
        size: side of the square that is cut out, in pixels; 0: the backbone's default.
        resize: "native" cuts the centre out without a resize; "squash" resizes the whole image to that size, "crop" its
            centre.
        precision: of the features, on a GPU: "mixed" computes in 16 bits, "tf32" in 32 bits but with factors of 19
            bits, "full" in 32 bits. A CPU always computes in 32 bits.
    """

    weights: str = "hub"
    backbone: str = "ViT-L-14-quickgelu"
    backbone_weights: str = "hub:openai"
    size: Size = 0
    resize: Literal["native", "squash", "crop"] = "native"
    precision: Precision = "full"


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """As `complete_clip`. Raises `ValueError` too if the file of the classifier is not named."""
    if str(config["weights"]).startswith("hub"):
        raise ValueError(
            f"METHOD needs its published classifier, {WHERE}: --weights METHOD=FILE; or leave METHOD out, --methods "
            "family:baselines,-METHOD"
        )
    return complete_clip(config, weights="backbone_weights")


@register_detector(
    "univfd",
    config=UnivfdConfig(),
    family="baselines",
    gpu_share=0.25,
    depends_on_seed=lambda config: False,
    pretrained=lambda config: (("open_clip", config.backbone, config.backbone_weights),),
    small={"backbone": "demo-vit-64", "backbone_weights": "random", "weights": "random"},
    complete=complete,
    test_only=True,
)
def build(config: UnivfdConfig, context: BuildContext) -> Detector:
    """Published classifier on CLIP (UniversalFakeDetect); nothing trains."""
    from models.configs import EncoderConfig
    from models.encoding import frozen_encoder
    from models.ready import ReadyDetector

    own = EncoderConfig(
        backbone=config.backbone, weights=config.backbone_weights, size=config.size, precision=config.precision
    )
    preparation = {name: getattr(config, name) for name in ONLY_OPEN_CLIP}
    encoder = frozen_encoder("open_clip", own, context, policy=config.resize, **preparation)
    return ReadyDetector(encoder, config.weights, context, names=("weight", "bias"))
