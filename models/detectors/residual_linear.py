"""A linear classifier on statistics of high-pass residuals. It needs no weights and no GPU.

The features are a small version of the spatial rich model (Fridrich and Kodovsky, IEEE TIFS 7(3), 2012), a strong
baseline from before deep learning, with which learned detectors can be compared.
"""

from __future__ import annotations

from models.configs import ProbeConfig, starts_at_random
from models.detector import BuildContext, Detector
from models.needs import PictureNeeds
from models.registry import register_detector
from models.residuals import MIN_SIDE, NUM_FEATURES
from models.sizes import features


@register_detector(
    "residual_linear",
    config=ProbeConfig(),
    family="baselines",
    gpu_share=0.0,
    picture_needs=lambda config: PictureNeeds(min_side=MIN_SIDE),
    depends_on_seed=starts_at_random,
    footprint=lambda config: features(NUM_FEATURES, "residuals"),
)
def build(config: ProbeConfig, context: BuildContext) -> Detector:
    """High-pass residual statistics (SRM), linear classifier; no weights needed."""
    from models.linear import LinearDetector
    from models.residuals import ResidualEncoder

    return LinearDetector(ResidualEncoder(), context.classes, config, weights_note="weight-free", seed=context.seed)
