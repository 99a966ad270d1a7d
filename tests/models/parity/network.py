"""A small vision transformer of timm that is built as `vit_large_patch14_clip_quickgelu_224`."""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, vit_large_patch14_clip_quickgelu_224

__all__ = ["parity_vit"]

default_cfgs = generate_default_cfgs(
    {
        "parity_vit.untrained": {
            "input_size": (3, 32, 32),
            "fixed_input_size": True,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "num_classes": 2,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
    }
)
SIZE: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2}


@register_model
def parity_vit(pretrained: bool = False, **settings: Any) -> VisionTransformer:
    """Three blocks, 64 wide, patches of 8 pixels, pictures of 32."""
    settings.pop("pretrained_cfg", None)
    settings.pop("pretrained_cfg_overlay", None)
    return vit_large_patch14_clip_quickgelu_224(pretrained=False, **(SIZE | settings))
