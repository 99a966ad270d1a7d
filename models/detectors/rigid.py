"""RIGID: how far a frozen backbone's features move when noise is added to a picture. Nothing is trained.

He, Chen and Ho 2024, arXiv 2405.20112, with DINOv2 ViT-L/14 at 224 pixels as there. The strength of the noise, and
whether fakes move more or less than real images, are chosen on real validation photographs and their edits
(`data.self_edited`), because the direction flips with the strength (arXiv 2606.20488).
"""

from __future__ import annotations

from models.configs import SimilarityConfig
from models.detector import BuildContext, Detector
from models.needs import SelfEdits, resized_to
from models.preparations import complete_for
from models.registry import register_detector


@register_detector(
    "rigid",
    config=SimilarityConfig(),
    family="training-free",
    gpu_share=0.25,
    needs_fakes=False,
    self_edits=lambda config: (SelfEdits("blobs", config.edits, 0, config.most_edits),),
    picture_needs=lambda config: resized_to(config.size),
    complete=lambda config: complete_for(config, config["library"]),
    pretrained=lambda config: ((config.library, config.backbone, config.weights),),
    small={"backbone": "test_vit", "weights": "random", "size": 64},
)
def build(config: SimilarityConfig, context: BuildContext) -> Detector:
    """Training-free: distance of a frozen backbone's features under noise (RIGID)."""
    from models.similarity import build_distance

    return build_distance(config, context)
