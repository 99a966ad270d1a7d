"""Xception from random weights (Chollet, arXiv 1610.02357; timm's `xception41`, that of DeepLab, arXiv 1802.02611).

The publication names Adam, cross-entropy and one epoch, but neither learning rate nor batch size nor augmentation.
Here the learning rate is 1e-3, Adam's default (arXiv 1412.6980); a batch of 32 fits any GPU; nothing is augmented.
"""

from __future__ import annotations

from models.configs import NetworkConfig
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector
from models.sizes import trained


@register_detector(
    "xception_scratch",
    config=NetworkConfig(backbone="xception41", weights="random", learning_rate=1e-3),
    family="published",
    gpu_share=0.5,
    picture_needs=lambda config: resized_to(config.size),
    pretrained="timm",
    footprint=trained,
    small={"backbone": "test_resnet", "size": 64, "epochs": 12, "flip": True},
)
def build(config: NetworkConfig, context: BuildContext) -> Detector:
    """Xception from random weights, everything trains."""
    from models.training import NetworkDetector

    return NetworkDetector(config, context)
