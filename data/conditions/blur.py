"""Blurred pictures, real and fake alike."""

from __future__ import annotations

import numpy as np
import scipy  # imports its subpackages on first use

from data.conditions import Picture, register_conditions


@register_conditions("blur", levels=range(1, 11))
def blur(picture: Picture, sigma: int) -> np.ndarray:
    """Gaussian blur with this standard deviation in pixels.

    ImageNet-C (Hendrycks and Dietterich 2019) has 1, 2, 3, 4 and 6 pixels as its five severities; Wang et al. (2020,
    arXiv 1912.11035) test detectors up to 3.
    """
    blurred = scipy.ndimage.gaussian_filter(picture.pixels.astype(np.float32), sigma=(sigma, sigma, 0), mode="nearest")
    return np.rint(blurred).clip(0, 255).astype(np.uint8)
