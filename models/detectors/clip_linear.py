"""A linear classifier on frozen CLIP features (arXiv 2103.00020), after Ojha et al. (arXiv 2302.10174).

Ojha et al. found that features which were not trained to tell real from fake generalise to unseen generators.
OpenAI's weights need QuickGELU, hence the architecture's name. Any open_clip architecture works.
"""

from __future__ import annotations

from models.configs import ClipConfig, starts_at_random
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.preparations import complete_clip
from models.registry import register_detector
from models.sizes import frozen


@register_detector(
    "clip_linear",
    config=ClipConfig(backbone="ViT-L-14-quickgelu", weights="hub:openai"),
    family="published",
    gpu_share=0.25,
    picture_needs=lambda config: resized_to(config.size),
    depends_on_seed=starts_at_random,
    pretrained="open_clip",
    footprint=frozen("open_clip"),
    small={"backbone": "demo-vit-64", "weights": "random"},
    complete=complete_clip,
)
def build(config: ClipConfig, context: BuildContext) -> Detector:
    """CLIP image encoder, frozen; linear classifier."""
    from models.linear import probe_backbone

    return probe_backbone(
        "open_clip", config, context, mean=config.mean, std=config.std, interpolation=config.interpolation
    )
