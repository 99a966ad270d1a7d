"""Xception from ImageNet weights (Chollet, arXiv 1610.02357; timm's `xception41.tf_in1k`).

The publication names Adam, cross-entropy and one epoch, but neither learning rate nor batch size nor augmentation.
Here the learning rate is 1e-4, a tenth of that from random weights, so that one epoch changes the features without
erasing them; a batch of 32 fits any GPU; nothing is augmented.
"""

from __future__ import annotations

from models.configs import NetworkConfig
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector
from models.sizes import trained


@register_detector(
    "xception_pretrained",
    config=NetworkConfig(backbone="xception41.tf_in1k", weights="hub", learning_rate=1e-4),
    family="published",
    gpu_share=0.5,
    picture_needs=lambda config: resized_to(config.size),
    pretrained="timm",
    footprint=trained,
    small={
        "backbone": "tf_efficientnet_lite0",
        "weights": "package:efficientnet-lite0",
        "size": 64,
        "epochs": 4,
        "learning_rate": 1e-3,
        "flip": True,
    },
)
def build(config: NetworkConfig, context: BuildContext) -> Detector:
    """Xception from ImageNet weights, everything trains."""
    from models.training import NetworkDetector

    return NetworkDetector(config, context)
