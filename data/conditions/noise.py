"""Noisy pictures, real and fake alike."""

from __future__ import annotations

import numpy as np

from data.conditions import Picture, register_conditions


@register_conditions("noise", levels=range(1, 101))
def noise(picture: Picture, deviation: int) -> np.ndarray:
    """Independent Gaussian noise on each value, with this standard deviation in levels of 0 to 255.

    Frank et al. (2020, arXiv 2003.08685) test detectors under variances of 5 to 20, which are deviations of 2.2 to 4.5.
    The first severity of ImageNet-C, 0.08 of the range, is noise-20. The noise follows from the picture's digest.
    """
    drawn = picture.rng.standard_normal(picture.pixels.shape, dtype=np.float32)
    return np.rint(picture.pixels + deviation * drawn).clip(0, 255).astype(np.uint8)
