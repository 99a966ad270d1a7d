"""How pictures are prepared for a backbone of open_clip, as settings of a method that may have one."""

from __future__ import annotations

from typing import Any

OWN = ("demo-vit-64",)  # architectures of this project, prepared for as OpenAI's
ONLY_OPEN_CLIP = ("mean", "std", "interpolation")


def complete_clip(config: dict[str, Any], *, weights: str = "weights") -> dict[str, Any]:
    """Add how pictures are prepared where the weights do not say it and it is not as for OpenAI's CLIP.

    So the key of a trial says it, too. Nothing is added for OpenAI's own preparation: such trials keep their keys.

    Args:
        config: a resolved configuration (`models.configs.ClipPreparation`).
        weights: the setting that names the backbone's weights.

    Raises:
        ValueError: the architecture's published weights differ, or there are none, and the settings are not given.
    """
    name = str(config["backbone"])
    if str(config[weights]).startswith("hub") or name in OWN or name.startswith(("hf-hub:", "local-dir:")):
        return config
    from models.backbones.open_clip import unlike_openai

    return unlike_openai(config)


def complete_for(config: dict[str, Any], library: str) -> dict[str, Any]:
    """As `complete_clip`, for a method whose backbone is of timm or open_clip.

    Args:
        config: a resolved configuration.
        library: of its backbone.

    Raises:
        ValueError: as there; or a setting that timm's networks do not take.
    """
    if library == "open_clip":
        return complete_clip(config)
    if given := [name for name in ONLY_OPEN_CLIP if name in config]:
        raise ValueError(f"METHOD: timm's networks bring their own {' and '.join(given)}: do not set it")
    return config
