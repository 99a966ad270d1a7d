"""Reference: a linear classifier on one number, how bright a picture is. No method of anybody; a row beside others.

A detector that is not above it may have learned that fakes are a little brighter or darker than real images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.configs import ProbeConfig, starts_at_random
from models.detector import BuildContext, Detector
from models.geometry import Geometry
from models.registry import register_detector
from models.residuals import luminance


class BrightnessEncoder:
    """The mean luminance as a `models.detector.Encoder`. Images have their native sizes, which may differ."""

    key = "mean-luminance-v1-bt601"
    num_features = 1
    geometry: Geometry | None = None
    device = "cpu"

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (N, H, W, 3), or N arrays (H, W, 3) of any sizes -> float32 (N, 1), 0 to 1."""
        means = [luminance(image).mean() / 255 for image in pixels]
        return np.array(means, dtype=np.float32).reshape(-1, 1)


@register_detector(
    "mean_brightness", config=ProbeConfig(), gpu_share=0.0, reference=True, depends_on_seed=starts_at_random
)
def build(config: ProbeConfig, context: BuildContext) -> Detector:
    """Reference: the mean brightness of a picture, linear classifier; no weights needed."""
    from models.linear import LinearDetector

    return LinearDetector(BrightnessEncoder(), context.classes, config, weights_note="weight-free", seed=context.seed)
