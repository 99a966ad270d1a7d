"""A linear classifier on frozen CLIP features (arXiv 2103.00020), after Ojha et al. (arXiv 2302.10174).

Ojha et al. found that features which were not trained to tell real from fake generalise to unseen generators.
OpenAI's weights need QuickGELU, hence the architecture's name. Any open_clip architecture works.
"""

from __future__ import annotations

from models.configs import LinearConfig
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector


@register_detector(
    "clip_linear",
    config=LinearConfig(backbone="ViT-L-14-quickgelu", weights="hub:openai"),
    gpu_share=0.25,
    picture_needs=lambda config: resized_to(config.size),
    small={"backbone": "demo-vit-64", "weights": "random"},
)
def build(config: LinearConfig, context: BuildContext) -> Detector:
    """CLIP image encoder, frozen; linear classifier."""
    from models.linear import probe_backbone

    return probe_backbone("open_clip", config, context)
