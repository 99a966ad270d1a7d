"""Enlarging and shrinking."""

from __future__ import annotations

import numpy as np

from data.edits import register_edit
from data.pixels import resized_twice


@register_edit("up_down")
def up_down(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Enlarged to 1.1 to 3 times its size, and shrunk again."""
    return resized_twice(pixels, rng.uniform(1.1, 3.0), rng)
