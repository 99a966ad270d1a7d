"""Statistics of high-pass residuals: a generator's traces in the noise, without any learned weight.

This is a small version of the spatial rich model of Fridrich and Kodovsky, "Rich Models for Steganalysis of Digital
Images", IEEE TIFS 7(3), 2012 (doi 10.1109/TIFS.2012.2190402): residuals of small high-pass kernels are quantised and
truncated, and co-occurrences of neighbours are counted. It has 1,056 statistics; the original has 34,671.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from models.geometry import Geometry

TRUNCATION = 2  # T in the paper: a quantised residual is one of -2 .. 2
ORDER = 4  # neighbours in one co-occurrence
BLOCK = 8  # side in pixels of the blocks whose energies are compared
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the blocks' energies
MIN_SIDE = 16  # pixels; the residual of the largest kernel then has a side of 12, enough for one block
LUMINANCE = (299, 587, 114)  # thousandths of R, G, B: ITU-R BT.601


@dataclass(frozen=True)
class Kernel:
    """A high-pass kernel.

    Attributes:
        name: as in the paper.
        weights: int16 (h, w), sums to zero.
        turns: quarter turns of the image at which the kernel is applied.
    """

    name: str
    weights: np.ndarray
    turns: tuple[int, ...]

    @property
    def scale(self) -> int:
        """The largest absolute weight, `c` in the paper. Residuals are quantised in steps of this size."""
        return int(np.abs(self.weights).max())


# Section II.A of the paper. The turns cover every orientation in which the kernel, or the row of neighbours counted on
# its residual, is different.
KERNELS = tuple(
    Kernel(name, np.array(weights, dtype=np.int16), turns)
    for name, weights, turns in (
        ("first", [[-1, 1]], (0, 1)),
        ("second", [[1, -2, 1]], (0, 1)),
        ("third", [[1, -3, 3, -1]], (0, 1)),
        ("edge3x3", [[-1, 2, -1], [2, -4, 2]], (0, 1, 2, 3)),
        ("square3x3", [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], (0, 1)),
        (
            "square5x5",
            [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]],
            (0, 1),
        ),
    )
)


def luminance(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> int16 (H, W), 0 to 255. Computed in integers, so that all machines round in the same way."""
    red, green, blue = (image[:, :, channel].astype(np.int32) * weight for channel, weight in enumerate(LUMINANCE))
    return ((red + green + blue + 500) // 1000).astype(np.int16)


def residual(channel: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Correlate a channel with a kernel at all positions where the kernel fits inside the channel.

    Args:
        channel: int16 (H, W), values 0 to 255.
        weights: int16 (h, w). The absolute values must sum to at most 128, so that no result overflows; those of
            `KERNELS` sum to at most 96.

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
    """The class, 0 to 168, of each of the 5^4 tuples of levels: int64 (625,). Tuples of one class are counted together.

    A tuple, its reverse (from the mirrored image) and its negative (from the inverted image) have the same class: the
    symmetrisation in section II.C of the paper.
    """
    base = 2 * TRUNCATION + 1
    tuples = np.stack(np.unravel_index(np.arange(base**ORDER), (base,) * ORDER), axis=1) - TRUNCATION
    powers = base ** np.arange(ORDER - 1, -1, -1)
    codes = [(version + TRUNCATION) @ powers for version in (tuples, -tuples, tuples[:, ::-1], -tuples[:, ::-1])]
    return np.unique(np.min(codes, axis=0), return_inverse=True)[1]


def cooccurrences(levels: np.ndarray) -> np.ndarray:
    """Count tuples of ORDER horizontal neighbours per symmetry class: int8 (H, W) -> float64 (169,)."""
    base, width = 2 * TRUNCATION + 1, levels.shape[1] - ORDER + 1
    codes = np.zeros((levels.shape[0], width), dtype=np.int16)
    for offset in range(ORDER):
        codes = base * codes + (levels[:, offset : offset + width] + np.int8(TRUNCATION))
    return np.bincount(symmetry_classes(), weights=np.bincount(codes.ravel(), minlength=base**ORDER))


def block_energies(values: np.ndarray) -> np.ndarray:
    """Mean square of each whole block of a residual, from the upper left corner: (H, W) -> float32 (blocks,)."""
    rows, columns = (side // BLOCK for side in values.shape)
    blocks = values[: rows * BLOCK, : columns * BLOCK].astype(np.float32).reshape(rows, BLOCK, columns, BLOCK)
    return np.square(blocks).mean(axis=(1, 3)).ravel()


def describe(image: np.ndarray) -> np.ndarray:
    """The statistics of one image: float32 (NUM_FEATURES,).

    The luminance is not resized, because resampling would erase the traces. Each kernel gives

    - the square roots of the frequencies of its co-occurrences, summed over orientations;
    - quantiles, over blocks, of log2(1 + energy), which show a part of the face that is smoother than the rest.

    Mirroring the image, or turning it by quarters, does not change the co-occurrences. (The blocks may move by a few
    pixels.)

    Args:
        image: uint8 (H, W, 3), RGB, both sides at least 16.

    Raises:
        ValueError: a smaller image, or one of another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"need uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if min(image.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f"residual statistics need sides of {MIN_SIDE} pixels, got {image.shape[1]} x {image.shape[0]}"
        )
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
    """`describe` as a `models.detector.Encoder`. Images have their native sizes, which may differ."""

    key = "srm-v1-bt601-order4"
    num_features = NUM_FEATURES
    geometry: Geometry | None = None
    device = "cpu"

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (N, H, W, 3), or N arrays (H, W, 3) of any sizes from 16 -> float32 (N, D). Errors as in `describe`."""
        return np.stack([describe(image) for image in pixels])
