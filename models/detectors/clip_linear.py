"""A linear classifier on frozen CLIP features (arXiv 2103.00020), after Ojha et al. (arXiv 2302.10174).

Ojha et al. found that features which were not trained to tell real from fake generalise to unseen generators.
OpenAI's weights need QuickGELU, hence the architecture's name. Any open_clip architecture works.
"""

from __future__ import annotations

from typing import Any

from models.configs import ClipConfig, starts_at_random
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector

OWN = ("demo-vit-64",)  # architectures of this project, prepared for as OpenAI's


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """Add how pictures are prepared where the weights do not say it and it is not as for OpenAI's CLIP.

    So the key of a trial says it, too. Nothing is added for OpenAI's own preparation: such trials keep their keys.

    Raises:
        ValueError: the architecture's published weights differ, or there are none, and the settings are not given.
    """
    name = str(config["backbone"])
    if str(config["weights"]).startswith("hub") or name in OWN or name.startswith(("hf-hub:", "local-dir:")):
        return config
    from models.backbones.open_clip import unlike_openai

    return unlike_openai(config)


@register_detector(
    "clip_linear",
    config=ClipConfig(backbone="ViT-L-14-quickgelu", weights="hub:openai"),
    gpu_share=0.25,
    picture_needs=lambda config: resized_to(config.size),
    depends_on_seed=starts_at_random,
    small={"backbone": "demo-vit-64", "weights": "random"},
    complete=complete,
)
def build(config: ClipConfig, context: BuildContext) -> Detector:
    """CLIP image encoder, frozen; linear classifier."""
    from models.linear import probe_backbone

    return probe_backbone(
        "open_clip", config, context, mean=config.mean, std=config.std, interpolation=config.interpolation
    )
