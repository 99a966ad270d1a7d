"""Reference: a linear classifier on features of a network that nobody has trained. A row beside methods, no method.

What it reaches is due to the classifier and to the shape of the network (ResNet-18, He et al., arXiv 1512.03385), and
not to anything that was learned from other images. A method on pretrained features should be above it.
"""

from __future__ import annotations

from models.configs import LinearConfig, starts_at_random
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector


@register_detector(
    "random_encoder",
    config=LinearConfig(backbone="resnet18", weights="random"),
    gpu_share=0.25,
    picture_needs=lambda config: resized_to(config.size),
    pretrained="timm",
    small={"backbone": "test_resnet", "size": 64},
    reference=True,
    depends_on_seed=starts_at_random,
)
def build(config: LinearConfig, context: BuildContext) -> Detector:
    """Reference: an encoder with random weights, frozen; linear classifier."""
    from models.linear import probe_backbone

    return probe_backbone("timm", config, context)
