"""Traces that saving and resizing leave in pixels: the 8 px grid of JPEG, its quality, the period of a resampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy  # imports its subpackages on first use
from numpy.typing import NDArray

Grey = NDArray[np.float32]
Keep = NDArray[np.bool_]

NO_JPEG = 100  # the "quality" of pixels without a trace of JPEG
MIN_BLOCKS = 24  # blocks of 8 x 8 px that a quality is estimated from, at least
_BLOCK = 8
_MOST_BLOCKS = 400
_EDGE = 6.0  # levels; stronger steps belong to the content, and count as this much
_SHARPEST = 8.0  # levels, likewise for second differences
_QUALITIES = np.arange(40, 97)
_TRACE = 0.3  # of a perfect comb; pixels that were never saved as JPEG stay below .15 (docs/audit.md)
_STRIDES = 16  # periods that divide 16 px come from generators' own strides and from JPEG; they are left out
MAX_PROFILE = 512  # px
_SHORTEST = 192  # px
_NEIGHBOURS = 25  # frequencies
_LOWEST = 0.02  # cycles per px; slower changes are content

# Luminance steps of the JPEG standard (ITU-T T.81, table K.1) for the lowest frequencies, as (row, column): step.
_STEPS = {
    (0, 1): 11, (1, 0): 12, (1, 1): 12, (0, 2): 10, (2, 0): 14, (2, 1): 13, (1, 2): 14, (2, 2): 16, (0, 3): 16,
    (3, 0): 14, (1, 3): 19, (3, 1): 17,
}  # fmt: skip


def _basis() -> NDArray[np.float32]:
    """The cosine patterns of `_STEPS`: (64, patterns), orthonormal."""
    places = np.arange(_BLOCK)
    waves = np.cos(np.pi * (2 * places[None] + 1) * places[:, None] / 16) / 2
    waves[0] /= np.sqrt(2)
    return np.stack([np.outer(waves[row], waves[column]).ravel() for row, column in _STEPS], axis=1).astype(np.float32)


def _tables() -> NDArray[np.int64]:
    """The steps of `_STEPS` at each of `_QUALITIES`, scaled as libjpeg does: (qualities, patterns)."""
    scale = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
    return np.maximum((np.array(list(_STEPS.values())) * scale[:, None] + 50) // 100, 1)


_BASIS, _TABLES = _basis(), _tables()
_MOST_STEP = int(_TABLES.max())


def blockiness(grey: Grey, keep: Keep | None = None) -> float:
    """How much stronger steps are at the borders of 8 x 8 px blocks than elsewhere; 1 without a grid.

    Steps are differences of neighbouring differences, |a - b - c + d| over 2 x 2 px, which smooth shading does not
    raise; a grid of 4 px raises steps elsewhere too and does not count.

    Args:
        grey: luminance (H, W) in levels.
        keep: the pixels that count, bool (H, W); None: all.

    Returns:
        the mean over both axes of (mean at the borders) / (mean elsewhere, of the strongest of the other seven
        distances from the border); NaN for pictures below 16 px or with too few pixels that count.
    """
    steps = np.minimum(np.abs(grey[:-1, :-1] + grey[1:, 1:] - grey[1:, :-1] - grey[:-1, 1:]), _EDGE)
    counted = None if keep is None else keep[:-1, :-1] & keep[1:, 1:] & keep[1:, :-1] & keep[:-1, 1:]
    ratios = []
    for axis in (0, 1):
        sums, counts = _sums(steps, counted, axis)
        if len(sums) < 2 * _BLOCK - 1:
            return float("nan")
        by_phase = np.array([[values[phase::_BLOCK].sum() for phase in range(_BLOCK)] for values in (sums, counts)])
        if by_phase[1].min() < _BLOCK:
            return float("nan")
        means = by_phase[0] / by_phase[1] + 0.01
        ratios.append(means[_BLOCK - 1] / means[: _BLOCK - 1].max())
    return float(np.mean(ratios))


def jpeg_quality(grey: Grey, keep: Keep | None = None) -> float:
    """The JPEG quality that pixels were last saved with, from how their 8 x 8 cosine coefficients are quantised.

    A coefficient that was quantised with step q lies near multiples of q, whatever the file's format is today: the
    mean of cos(2 pi c / q) over the blocks is near 1 for the right q and near 0 for others (Fan and de Queiroz 2003,
    "Identification of bitmap compression history"). The grid must begin at the picture's corner. Qualities are those
    of libjpeg's tables, 40 to 96.

    Args:
        grey: luminance (H, W) in levels.
        keep: blocks with a pixel that does not count are left out, bool (H, W); None: all count.

    Returns:
        40 to 96; `NO_JPEG` without a trace; NaN with fewer than `MIN_BLOCKS` blocks.
    """
    rows, columns = (length // _BLOCK for length in grey.shape)

    def blocks(values: NDArray[Any]) -> NDArray[Any]:
        cut = values[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
        return cut.transpose(0, 2, 1, 3).reshape(-1, _BLOCK * _BLOCK)

    chosen = blocks(grey)
    if keep is not None:
        chosen = chosen[blocks(keep).all(axis=1)]
    if len(chosen) < MIN_BLOCKS:
        return float("nan")
    coefficients = chosen[:: -(-len(chosen) // _MOST_BLOCKS)] @ _BASIS
    sizes = np.abs(coefficients)
    combs = np.zeros((_MOST_STEP + 1, len(_STEPS)), np.float32)
    for step in range(2, _MOST_STEP + 1):
        counted = sizes > step / 2  # all small coefficients lie near 0, quantised or not
        total = (np.cos(np.float32(2 * np.pi / step) * coefficients) * counted).sum(axis=0)
        combs[step] = total / np.maximum(counted.sum(axis=0), MIN_BLOCKS / 2)
    informed = _TABLES > 1
    by_quality = (combs[_TABLES, np.arange(len(_STEPS))] * informed).sum(axis=1) / np.maximum(informed.sum(axis=1), 4)
    best = by_quality.max()
    # A divisor of the right step fits as well: of qualities that fit alike, the lowest.
    return float(_QUALITIES[np.argmax(by_quality > 0.9 * best)]) if best > _TRACE else float(NO_JPEG)


def resampling(grey: Grey, original: Grey, keep: Keep | None = None) -> tuple[float, float]:
    """The period at which a picture is sharper and less sharp than its original, as interpolation makes it.

    Interpolated pixels are smoother between the old pixels than at them, so the mean size of second differences per
    column and per row is periodic (Gallagher 2005, "Detection of linear and cubic interpolation in JPEG compressed
    images"). Beside the original, the content cancels out.

    Args:
        grey: luminance (H, W) in levels.
        original: luminance of the picture that it was made from, the same shape.
        keep: the pixels that count, bool (H, W); None: all.

    Returns:
        (frequency, strength): of the strongest period, cycles per px, in (0.02, 0.5]; its amplitude in units of the
        median amplitude of its neighbours. Frequencies that are multiples of 1/16 are left out. NaN for
        pictures below 192 px, of which too few frequencies are left, or with too few pixels that count.
    """
    profiles = []
    for axis in (0, 1):
        profile = _sharpness(grey, keep, axis) - _sharpness(original, keep, axis)
        if len(profile) < _SHORTEST - 2 or np.isnan(profile).mean() > 0.3:
            return float("nan"), float("nan")
        profiles.append(profile)
    return _strongest(profiles)


def sharpness(grey: Grey) -> NDArray[np.float16]:
    """The profiles that `resampling` looks at: per column, then per row, of the first `MAX_PROFILE` of each.

    Args:
        grey: luminance (H, W) in levels.

    Returns:
        float16 (columns + rows); logarithms of levels. Empty for pictures below 192 px.
    """
    corner = grey[:MAX_PROFILE, :MAX_PROFILE]
    if min(corner.shape) < _SHORTEST:
        return np.empty(0, np.float16)
    return np.concatenate([_sharpness(corner, None, axis) for axis in (0, 1)]).astype(np.float16)


def strongest_period(profile: NDArray[np.floating], size: tuple[int, int]) -> tuple[float, float]:
    """(frequency, strength) as in `resampling`, of a mean of profiles of pictures of one size.

    Args:
        profile: as `sharpness` gives it.
        size: (width, height) of the pictures.
    """
    return _strongest(_halves(profile, size))


def at_period(profiles: NDArray[np.floating], size: tuple[int, int], frequency: float) -> NDArray[np.complex128]:
    """The wave of each profile at a frequency, per axis: complex (N, 2), in units of the logarithm.

    Args:
        profiles: (N, columns + rows), rows as `sharpness` gives them.
        size: (width, height) of the pictures.
        frequency: cycles per px.
    """
    waves = []
    for half in _halves(profiles, size):
        turns = np.exp(-2j * np.pi * frequency * np.arange(half.shape[-1])) * np.hanning(half.shape[-1])
        waves.append((half - half.mean(axis=-1, keepdims=True)) @ turns / half.shape[-1])
    return np.stack(waves, axis=-1)


def _halves(profiles: NDArray[np.floating], size: tuple[int, int]) -> list[NDArray[np.floating]]:
    columns = min(size[0], MAX_PROFILE) - 2
    return [profiles[..., :columns], profiles[..., columns:]]


def _strongest(profiles: list[NDArray[np.floating]]) -> tuple[float, float]:
    spectra = [_spectrum(profile) for profile in profiles]
    frequencies, _ = max(spectra, key=lambda spectrum: len(spectrum[0]))
    both = np.sqrt(np.prod([np.interp(frequencies, *spectrum) for spectrum in spectra], axis=0))
    strongest = int(np.argmax(both))
    return float(frequencies[strongest]), float(both[strongest])


def _sums(values: Grey, counted: Keep | None, axis: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(sums, numbers of the values that count) along an axis."""
    if counted is None:
        sums = values.sum(axis=axis)
        return sums, np.full(len(sums), values.shape[axis], np.float64)
    return (values * counted).sum(axis=axis), counted.sum(axis=axis).astype(np.float64)


def _sharpness(grey: Grey, keep: Keep | None, axis: int) -> NDArray[np.floating]:
    """The logarithm of the mean second difference across the axis; NaN where too few pixels count."""
    across = grey if axis == 0 else grey.T
    second = np.minimum(np.abs(2 * across[:, 1:-1] - across[:, :-2] - across[:, 2:]), _SHARPEST)
    counted = None
    if keep is not None:
        kept = keep if axis == 0 else keep.T
        counted = kept[:, 1:-1] & kept[:, :-2] & kept[:, 2:]
    sums, counts = _sums(second, counted, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(counts >= _BLOCK, sums / counts, np.nan)
    return np.log(means + 0.05)


def _spectrum(profile: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(frequencies, amplitudes over the median of their neighbours), without slow changes and generators' strides."""
    known = np.flatnonzero(~np.isnan(profile))
    filled = np.interp(np.arange(len(profile)), known, profile[known])
    width = 2 * (len(filled) // 16) + 1
    padded = np.pad(filled, width // 2, mode="reflect")
    slow = np.convolve(padded, np.ones(width) / width, mode="valid")
    amplitudes = np.abs(np.fft.rfft((filled - slow) * np.hanning(len(filled))))
    frequencies = np.fft.rfftfreq(len(filled))
    off = np.abs(frequencies * _STRIDES - np.rint(frequencies * _STRIDES)) / _STRIDES
    kept = (off > 1.5 / len(filled)) & (frequencies > _LOWEST)
    usual = scipy.ndimage.median_filter(amplitudes[kept], _NEIGHBOURS, mode="nearest")
    return frequencies[kept], amplitudes[kept] / np.maximum(usual, 1e-3)
