"""Pictures made smaller and brought back to their size, real and fake alike."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data.conditions import Picture, register_conditions


@register_conditions("resize", levels=range(1, 100))
def resize(picture: Picture, percent: int) -> np.ndarray:
    """Both sides shrunk to this percentage and enlarged to the original size (bicubic, with antialiasing).

    Corvi et al. (2023, arXiv 2211.00680) measure how much detectors lose where pictures are resized and compressed as
    social networks do it. At least one pixel per side is left.
    """
    image = Image.fromarray(picture.pixels)
    small = (max(1, round(image.width * percent / 100)), max(1, round(image.height * percent / 100)))
    return np.array(image.resize(small, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC))
