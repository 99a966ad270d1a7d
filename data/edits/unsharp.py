"""Sharpening."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from data.edits import register_edit


@register_edit("unsharp")
def unsharp(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The difference to the blurred picture, 0.3 to 1.2 times, is added; the blur has 0.6 to 1.5 pixels."""
    amount, sigma = rng.uniform(0.3, 1.2), rng.uniform(0.6, 1.5)
    values = pixels.astype(np.float32)
    blurred: np.ndarray = gaussian_filter(values, sigma=(sigma, sigma, 0), mode="nearest")
    return values + amount * (values - blurred)
