"""Shrinking and enlarging."""

from __future__ import annotations

import numpy as np

from data.edits import register_edit
from data.pixels import resized_twice


@register_edit("down_up")
def down_up(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shrunk to 0.25 to 0.9 of its size, and enlarged again."""
    return resized_twice(pixels, rng.uniform(0.25, 0.9), rng)
