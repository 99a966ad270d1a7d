"""Moving by a fraction of a pixel."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import shift as shifted

from data.edits import register_edit


@register_edit("shift")
def shift(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by 0.2 to 0.8 pixels in both directions, linear or cubic interpolation."""
    down, right = rng.uniform(0.2, 0.8, size=2) * rng.choice([-1, 1], size=2)
    order = int(rng.choice([1, 3]))
    return shifted(pixels.astype(np.float32), (down, right, 0), order=order, mode="nearest")
