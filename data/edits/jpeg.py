"""Lossy saving."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data.edits import register_edit
from data.pixels import SUBSAMPLINGS
from data.saving import saved


@register_edit("jpeg")
def jpeg(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Saved as JPEG with a quality of 40 to 94, and read again."""
    subsampling = SUBSAMPLINGS[rng.integers(len(SUBSAMPLINGS))]
    return saved(Image.fromarray(pixels), "JPEG", quality=int(rng.integers(40, 95)), subsampling=subsampling)
