"""Median filtering."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from data.edits import register_edit


@register_edit("median")
def median(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Median of 3 x 3 pixels in each channel."""
    return np.array(Image.fromarray(pixels).filter(ImageFilter.MedianFilter(3)))
