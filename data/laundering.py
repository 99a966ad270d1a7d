"""Which way of saving or resizing, applied to the original, gives the pixels of the fake outside its mask.

The test is direct: the original is saved as JPEG, or resized and back, in many ways, and compared with the fake. A
generator that changes the whole image is reproduced by none of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial

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

Process = Callable[[Image.Image], Image.Image]


def reproduced(fake: Image.Image, original: Image.Image, mask: Image.Image | None) -> tuple[str, float, float]:
    """The process that brings the original nearest to the fake outside the mask, by luminance.

    Args:
        fake: mode RGB.
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
    wanted, grey = _levels(fake)[outside], original.convert("L")
    before = np.abs(wanted - _levels(grey)[outside])
    if outside.sum() < REACH**2 or before.sum() == 0:
        return "", 0.0, 0.0
    # All are tried on the luminance, in a third of the time. Colours as in a file give the best one's exact pixels.
    words, process = min(
        _processes(original.size), key=lambda one: np.abs(wanted - _levels(one[1](grey))[outside]).sum()
    )
    left = np.abs(wanted - _levels(process(original))[outside])
    more = before > 1
    exact = float((left[more] <= 1).mean()) if more.sum() >= _MIN_PIXELS else 0.0
    return words, float(1 - left.sum() / before.sum()), exact


def _levels(picture: Image.Image) -> NDArray[np.int16]:
    return np.asarray(picture.convert("L")).astype(np.int16)


def _processes(size: tuple[int, int]) -> Iterator[tuple[str, Process]]:
    for quality in _QUALITIES:
        yield f"{AS_JPEG} of quality {quality}", partial(_saved, quality=quality)
    width, height = size
    near = {width + step for step in range(-_NEAR, _NEAR + 1)}
    near |= {side for side in _COMMON_SIDES if 0.4 * width <= side <= 2.5 * width}
    near |= {round(width * factor) for factor in _FACTORS}
    for side in sorted(side for side in near if side > 0 and side != width):
        other = (side, max(1, round(height * side / width)))
        for name, resample in _FILTERS.items():
            words = f"resized from {width} x {height} to {other[0]} x {other[1]} px and back ({name})"
            yield words, partial(_resized, size=other, resample=resample)


def _saved(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _resized(picture: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    return picture.resize(size, resample).resize(picture.size, resample)
