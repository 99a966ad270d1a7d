"""A linear classifier on statistics of high-pass residuals, trained without any generator.

Its fakes are real photographs with one region edited by a classic operation (`data.self_edited`): the regional form of
self-blended images (Shiohara and Yamasaki 2022, arXiv 2204.08376), with the features of `residual_linear`.
"""

from __future__ import annotations

from models.configs import EditsConfig
from models.detector import BuildContext, Detector
from models.needs import PictureNeeds, SelfEdits
from models.registry import register_detector
from models.residuals import MIN_SIDE


@register_detector(
    "self_edited_linear",
    config=EditsConfig(),
    family="no-generator",
    gpu_share=0.0,
    needs_fakes=False,
    self_edits=lambda config: (SelfEdits("blobs", config.edits, config.most_edits, config.most_edits),),
    picture_needs=lambda config: PictureNeeds(min_side=MIN_SIDE),
)
def build(config: EditsConfig, context: BuildContext) -> Detector:
    """High-pass residual statistics (SRM), linear classifier; learns from self-edited photographs, no generator."""
    from models.linear import LinearDetector
    from models.residuals import ResidualEncoder

    return LinearDetector(ResidualEncoder(), context.classes, config, weights_note="weight-free", seed=context.seed)
