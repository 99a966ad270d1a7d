"""Resampling and rounding, which conditions and edits share."""

from __future__ import annotations

import numpy as np
from PIL import Image

RESAMPLINGS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


def rounded(values: np.ndarray) -> np.ndarray:
    """Float (H, W, 3) -> uint8, rounded and clipped to 0 .. 255."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def resized(pixels: np.ndarray, height: int, width: int, resampling: Image.Resampling) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (height, width, 3)."""
    return np.array(Image.fromarray(pixels).resize((width, height), resampling))


def resized_twice(pixels: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Resized by a factor and back, each time with a filter that is drawn."""
    height, width = pixels.shape[:2]
    there, back = (RESAMPLINGS[number] for number in rng.integers(len(RESAMPLINGS), size=2))
    small = resized(pixels, max(1, round(height * factor)), max(1, round(width * factor)), there)
    return resized(small, height, width, back)
