"""Which way of saving or resizing, applied to the original, gives the pixels of the fake outside its mask.

The test is direct: the original is saved as JPEG, or resized and back, in many ways, and compared with the fake. A
generator that changes the whole image is reproduced by none of them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

AS_JPEG = "saved as JPEG"
REACH = 8  # px; nearer to the mask, a block of JPEG or an interpolation mixes original and generated pixels
MAX_SIDE = 1024  # px; larger pictures are not tried, for the time that it takes
_QUALITIES = (30, 40, *range(50, 100))
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "Lanczos": Image.Resampling.LANCZOS,
}
_MIN_PIXELS = 20
_NEAR = 16  # px; sides that differ by so much are all tried
_COMMON_SIDES = (64, 112, 128, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512, 640, 768, 896, 1024)
_FACTORS = (*(percent / 100 for percent in range(50, 100)), 1.1, 1.25, 1.5, 2.0)


def reproduced(fake: Image.Image, original: Image.Image, mask: Image.Image | None) -> tuple[str, float, float]:
    """The process that brings the original nearest to the fake outside the mask, by luminance.

    Args:
        fake: luminance, mode L.
        original: likewise, of the same size.
        mask: 255 where the image is fake, else 0, mode L, the same size; None: nothing is marked.

    Returns:
        (the process in words; the share of the change outside the mask that it reproduces, at most 1; the share of the
        pixels there that changed by more than 1 level, which it gives to 1 level; 0 if fewer than `_MIN_PIXELS` changed
        so). ("", 0, 0) if nothing changed there, if the pictures are larger than `MAX_SIDE`, or if the mask leaves too
        little.
    """
    if max(fake.size) > MAX_SIDE:
        return "", 0.0, 0.0
    outside = np.ones(fake.size[::-1], np.bool_)
    if mask is not None:
        outside = np.asarray(mask.filter(ImageFilter.MaxFilter(2 * REACH + 1))) == 0
    wanted = _levels(fake)[outside]
    before = np.abs(wanted - _levels(original)[outside])
    if outside.sum() < REACH**2 or before.sum() == 0:
        return "", 0.0, 0.0
    words, left = min(
        ((words, np.abs(wanted - _levels(tried)[outside])) for words, tried in _tries(original)),
        key=lambda one: one[1].sum(),
    )
    more = before > 1
    exact = float((left[more] <= 1).mean()) if more.sum() >= _MIN_PIXELS else 0.0
    return words, float(1 - left.sum() / before.sum()), exact


def _levels(picture: Image.Image) -> NDArray[np.int16]:
    return np.asarray(picture).astype(np.int16)


def _tries(original: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    for quality in _QUALITIES:
        file = io.BytesIO()
        original.save(file, "JPEG", quality=quality)
        yield f"{AS_JPEG} of quality {quality}", Image.open(file)
    width, height = original.size
    near = {width + step for step in range(-_NEAR, _NEAR + 1)}
    near |= {side for side in _COMMON_SIDES if 0.4 * width <= side <= 2.5 * width}
    near |= {round(width * factor) for factor in _FACTORS}
    for side in sorted(near - {width}):
        size = (side, max(1, round(height * side / width)))
        for name, resample in _FILTERS.items():
            words = f"resized from {width} x {height} to {size[0]} x {size[1]} px and back ({name})"
            yield words, original.resize(size, resample).resize(original.size, resample)
