"""Removing noise."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

from data.edits import register_edit


@register_edit("wiener")
def wiener(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Wiener's filter over 3 x 3 or 5 x 5 pixels, against noise with a deviation of 1 to 4 grey levels."""
    noise, side = rng.uniform(1.0, 4.0) ** 2, int(rng.choice([3, 5]))
    values = pixels.astype(np.float32)
    size = (side, side, 1)
    mean: np.ndarray = uniform_filter(values, size=size, mode="nearest")
    variance = uniform_filter(values**2, size=size, mode="nearest") - mean**2
    kept = np.maximum(variance - noise, 0) / np.maximum(variance, noise)
    return mean + kept * (values - mean)
