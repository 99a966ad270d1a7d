"""Blurring."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from data.edits import register_edit


@register_edit("blur")
def blur(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur with a deviation of 0.3 to 1.5 pixels."""
    sigma = rng.uniform(0.3, 1.5)
    return gaussian_filter(pixels.astype(np.float32), sigma=(sigma, sigma, 0), mode="nearest")
