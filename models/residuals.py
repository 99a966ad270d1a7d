"""Statistics of high-pass residuals: the traces that a generator leaves in the noise, without any learned weight.

After the spatial rich model of Fridrich and Kodovsky, "Rich Models for Steganalysis of Digital Images", IEEE TIFS 7(3),
2012 (doi 10.1109/TIFS.2012.2190402): residuals of small high-pass kernels, quantised, truncated, and counted as
co-occurrences of neighbours. A small relative: 1,056 statistics where the original has 34,671.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from models.geometry import Geometry

TRUNCATION = 2  # T in the paper: a quantised residual is one of -2 .. 2
ORDER = 4  # neighbours in one co-occurrence
BLOCK = 8  # side of the blocks whose energies are compared, pixels
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of those energies
MIN_SIDE = 16  # pixels; the largest kernel leaves 12, which hold one block
LUMINANCE = (299, 587, 114)  # thousandths of R, G, B: ITU-R BT.601


@dataclass(frozen=True)
class Kernel:
    """A high-pass kernel.

    Attributes:
        name: as in the paper.
        weights: int16, sums to zero.
        scale: the largest absolute weight, `c` in the paper; residuals are quantised in steps of it.
        turns: quarter turns of the image at which the kernel is applied.
    """

    name: str
    weights: np.ndarray
    scale: int
    turns: tuple[int, ...]


def _kernel(name: str, weights: list[list[int]], turns: tuple[int, ...]) -> Kernel:
    array = np.array(weights, dtype=np.int16)
    return Kernel(name, array, int(np.abs(array).max()), turns)


# Section II.A of the paper. The turns reach every orientation in which the kernel, or the row of neighbours that is
# counted on its residual, looks different.
KERNELS = (
    _kernel("first", [[-1, 1]], (0, 1)),
    _kernel("second", [[1, -2, 1]], (0, 1)),
    _kernel("third", [[1, -3, 3, -1]], (0, 1)),
    _kernel("edge3x3", [[-1, 2, -1], [2, -4, 2]], (0, 1, 2, 3)),
    _kernel("square3x3", [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], (0, 1)),
    _kernel(
        "square5x5",
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]],
        (0, 1),
    ),
)


def luminance(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> int16 (H, W), 0 to 255, rounded; in integers, so that every machine rounds alike."""
    red, green, blue = (image[:, :, channel].astype(np.int32) * weight for channel, weight in enumerate(LUMINANCE))
    return ((red + green + blue + 500) // 1000).astype(np.int16)


def residual(channel: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Correlate a channel with a kernel where the kernel fits.

    Args:
        channel: int16 (H, W), values 0 to 255.
        weights: int16 (h, w), absolute values that sum to at most 128 (those of `KERNELS` reach 96), so that no sum
            overflows.

    Returns:
        int16 (H - h + 1, W - w + 1), exact.
    """
    height, width = channel.shape[0] - weights.shape[0] + 1, channel.shape[1] - weights.shape[1] + 1
    total = np.zeros((height, width), dtype=np.int16)
    for (row, column), weight in np.ndenumerate(weights):
        total += weight * channel[row : row + height, column : column + width]
    return total


def quantise(values: np.ndarray, step: float) -> np.ndarray:
    """int16 residuals -> int8 in [-T, T]: divided by `step`, rounded (halves away from zero), truncated."""
    levels = np.zeros(values.shape, dtype=np.int8)
    for level in range(1, TRUNCATION + 1):
        edge = (level - 0.5) * step
        levels += (values >= edge).view(np.int8) - (values <= -edge).view(np.int8)
    return levels


@cache
def symmetry_classes() -> np.ndarray:
    """Which tuples of levels are counted together: int64 (625,), the class of each of the 5^4 tuples, 0 to 168.

    A tuple counts the same as its reverse (the mirrored image's) and as its negative (the inverted image's): the
    symmetrisation of the paper's section II.C.
    """
    base = 2 * TRUNCATION + 1
    tuples = np.stack(np.unravel_index(np.arange(base**ORDER), (base,) * ORDER), axis=1) - TRUNCATION
    powers = base ** np.arange(ORDER - 1, -1, -1)
    codes = [(version + TRUNCATION) @ powers for version in (tuples, -tuples, tuples[:, ::-1], -tuples[:, ::-1])]
    return np.unique(np.min(codes, axis=0), return_inverse=True)[1]


def cooccurrences(levels: np.ndarray) -> np.ndarray:
    """Counts of ORDER horizontal neighbours, symmetric tuples together: int8 (H, W) -> float64 (169,)."""
    base, width = 2 * TRUNCATION + 1, levels.shape[1] - ORDER + 1
    codes = np.zeros((levels.shape[0], width), dtype=np.int16)
    for offset in range(ORDER):
        codes = base * codes + (levels[:, offset : offset + width] + np.int8(TRUNCATION))
    return np.bincount(symmetry_classes(), weights=np.bincount(codes.ravel(), minlength=base**ORDER))


def block_energies(values: np.ndarray) -> np.ndarray:
    """Mean squares of the whole blocks of a residual, from its upper left corner: (H, W) -> float32 (blocks,)."""
    rows, columns = (side // BLOCK for side in values.shape)
    blocks = values[: rows * BLOCK, : columns * BLOCK].astype(np.float32).reshape(rows, BLOCK, columns, BLOCK)
    return np.square(blocks).mean(axis=(1, 3)).ravel()


def describe(image: np.ndarray) -> np.ndarray:
    """One image -> its statistics, float32 (NUM_FEATURES,).

    The luminance is used at the size at which it comes, for resampling would erase the traces. Each kernel gives

    - the square roots of the frequencies of its co-occurrences, orientations added up;
    - quantiles, over blocks, of log2(1 + energy), which show a part of the face that is smoother than the rest.

    The co-occurrences do not change when the image is mirrored or turned by quarters. (The blocks may move by a few
    pixels.)

    Args:
        image: uint8 (H, W, 3), RGB, both sides at least 16.

    Raises:
        ValueError: a smaller image, or one of another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"wanted uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if min(image.shape[:2]) < MIN_SIDE:
        raise ValueError(f"residual statistics need {MIN_SIDE} pixels a side, got {image.shape[1]} x {image.shape[0]}")
    channel = luminance(image)
    turned = [np.ascontiguousarray(np.rot90(channel, turn)) for turn in range(4)]
    parts: list[np.ndarray] = []
    for kernel in KERNELS:
        residuals = [residual(turned[turn], kernel.weights) for turn in kernel.turns]
        counts = np.sum([cooccurrences(quantise(values, kernel.scale)) for values in residuals], axis=0)
        energies = np.concatenate([block_energies(values) for values in residuals]) / kernel.scale**2
        parts += [np.sqrt(counts / counts.sum()), np.quantile(np.log2(1 + energies), QUANTILES)]
    return np.concatenate(parts).astype(np.float32)


NUM_FEATURES = len(KERNELS) * (169 + len(QUANTILES))


class ResidualEncoder:
    """`describe` as an `models.detector.Encoder`; images come at their native size, each may have its own."""

    key = "srm-v1-bt601-order4"
    num_features = NUM_FEATURES
    geometry: Geometry | None = None

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (N, H, W, 3), or N arrays (H, W, 3) of any sizes from 16 -> float32 (N, D). Raises as `describe`."""
        return np.stack([describe(image) for image in pixels])
