"""How much disk and memory a method's trials take, by its configuration, without building anything.

Sizes of backbones stand in tables; a test holds them against the built ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.configs import ProbeConfig
from models.registry import detector_info

# Bytes of features that a fit by Adam holds in memory; of more it reads each batch from the store (`models.linear`).
HELD = 512 * 2**20

# (family, architecture) -> numbers of a picture's features
WIDTHS = {
    ("open_clip", "ViT-L-14-quickgelu"): 768, ("open_clip", "demo-vit-64"): 128,
    ("sam", "vit_b"): 256, ("sam", "demo"): 64,
    ("timm", "vit_base_patch14_reg4_dinov2.lvd142m"): 768, ("timm", "test_vit"): 64,
}  # fmt: skip
# architecture of timm -> (side in pixels, interpolation, width of embeddings, bytes with a classifier of two classes)
NETWORKS = {
    "xception41": (299, "bicubic", 2048, 100_160_552),
    "test_resnet": (160, "bilinear", 96, 1_499_968),
    "tf_efficientnet_lite0": (224, "bicubic", 1280, 13_662_736),
}


@dataclass(frozen=True)
class Footprint:
    """What a method's trials keep on disk.

    Attributes:
        what: what is computed once and shared, in words; methods with the same words share it.
        per_image: bytes of it per image; 0: nothing is kept.
        is_features: whether it is features, which are kept under each condition, too.
        width: numbers of an embedding.
        checkpoint: bytes of a trial's checkpoint.
    """

    what: str
    per_image: int
    is_features: bool
    width: int
    checkpoint: int


OfConfig = Callable[[Any], Footprint | None]


def features(width: int, what: str) -> Footprint:
    """Features of that many numbers, and a linear classifier of two classes on them."""
    return Footprint(f"features of {what}", 4 * width, True, width, 8 * (width + 1))


def frozen(family: str) -> OfConfig:
    """Of a method with a linear classifier on a frozen backbone."""

    def of(config: Any) -> Footprint | None:
        width = WIDTHS.get((family, config.backbone))
        return None if width is None else features(width, f"{config.backbone}, {config.resize}")

    return of


def trained(config: Any) -> Footprint | None:
    """Of a network of timm that trains on pixels."""
    known = NETWORKS.get(config.backbone.partition(".")[0])
    if known is None:
        return None
    side, interpolation, width, checkpoint = known
    side = config.size or side
    per_image = 0 if config.resize == "native" else 3 * side**2
    return Footprint(f"pixels, {side} px, {config.resize}, {interpolation}", per_image, False, width, checkpoint)


def footprint(method: str, config: Mapping[str, Any]) -> Footprint | None:
    """Of a method by its resolved configuration; None: not known."""
    info = detector_info(method)
    return None if info.footprint is None else info.footprint(dataclasses.replace(info.config, **config))


def rows_memory(method: str, config: Mapping[str, Any], *, fitted: int, scored: int) -> int:
    """Bytes of host memory that the rows of a trial take at once, beside the process itself; 0: not known.

    A linear classifier that L-BFGS fits holds all its features, in float32. Embeddings of scored images are held in
    float32, and where all are kept in float16 beside that; as much is counted for a large test set, which keeps fewer.

    Args:
        method: name of the method.
        config: its resolved configuration.
        fitted: number of training and validation images, under each training condition.
        scored: number of images that are scored at once.
    """
    known = footprint(method, config)
    if known is None:
        return 0
    resolved = dataclasses.replace(detector_info(method).config, **config)
    features = 4 * known.width * fitted if known.is_features and isinstance(resolved, ProbeConfig) else 0
    if features and resolved.solver == "adam":
        features = min(features, HELD)
    return max(features, 6 * known.width * scored)
