"""Pictures of which a part at a random place is kept, real and fake alike."""

from __future__ import annotations

import numpy as np

from data.conditions import Picture, register_conditions


@register_conditions("crop", levels=range(1, 100), moves=True)
def crop(picture: Picture, percent: int) -> np.ndarray:
    """A rectangle with this percentage of each side is kept, at a random place; it is not enlarged.

    Frank et al. (2020, arXiv 2003.08685) cut off 5 to 20 percent of each side. The place follows from the picture's
    digest; at least one pixel per side is left. A repainted region may lie partly or wholly outside what is kept.
    """
    height, width, _ = picture.pixels.shape
    kept_height, kept_width = max(1, round(height * percent / 100)), max(1, round(width * percent / 100))
    top = int(picture.rng.integers(height - kept_height + 1))
    left = int(picture.rng.integers(width - kept_width + 1))
    return np.ascontiguousarray(picture.pixels[top : top + kept_height, left : left + kept_width])
