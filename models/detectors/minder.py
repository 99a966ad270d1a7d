"""MINDER: the smaller of two distances, of a frozen backbone's features under noise and under blur.

Tsai et al. 2024, arXiv 2411.19117, with the plain blur; their contrastive blur is left out. Both strengths, and whether
fakes move more or less than real images, are chosen on real validation photographs and their edits, as in `rigid`.
"""

from __future__ import annotations

from models.configs import SimilarityConfig
from models.detector import BuildContext, Detector
from models.needs import SelfEdits, resized_to
from models.preparations import complete_for
from models.registry import register_detector


@register_detector(
    "minder",
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
    """Training-free: the smaller distance of a frozen backbone's features under noise and under blur (MINDER)."""
    from models.similarity import BLURS, build_distance

    return build_distance(config, context, blurs=BLURS)
