"""A linear classifier on the patch tokens of a frozen CLIP or DINO, which learns from masks.

The label of a token is the mask's share of its patch; the map is the log-odds of all patches; the score of a picture is
the mean of the highest tenth of them, on a scale fixed on validation images (`models.token_maps`). It is the linear
decoder of DeCLIP (arXiv 2409.08849, section 4; `decoder_type=linear` in github.com/bit-ml/DeCLIP at 1b6120f), with real
pictures among the training images, which DeCLIP leaves out. Tokens come from the block that DeCLIP reads: `layer20`,
counted from 0, of the 24 of ViT-L/14, so `depth` 0.875. For DINOv2: `family=timm backbone=vit_base_patch14_reg4_dinov2
weights=hub`.
"""

from __future__ import annotations

from models.configs import MaskLinearConfig
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.preparations import complete_for
from models.registry import register_detector


@register_detector(
    "mask_linear",
    config=MaskLinearConfig(),
    family="baselines",
    gpu_share=0.25,
    picture_needs=lambda config: resized_to(config.size),
    depends_on_seed=lambda config: False,
    pretrained=lambda config: ((config.family, config.backbone, config.weights),),
    small={"backbone": "demo-vit-64", "weights": "random", "tokens": 4_000},
    complete=lambda config: complete_for(config, config["family"]),
    reads_masks=True,
)
def build(config: MaskLinearConfig, context: BuildContext) -> Detector:
    """Patch tokens of a frozen CLIP or DINO, linear classifier per patch; learns from masks, has maps."""
    from models.token_linear import LinearMapDetector

    return LinearMapDetector(config, context)
