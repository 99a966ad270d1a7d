"""Statistics of the windows of a picture: where its high-pass residuals and frequencies differ from the rest of it.

They are those of `models.residuals`, counted in cells of 16 pixels and added up over windows of 2 x 2 cells; the same
at half the resolution and with a coarser step; and the mean magnitudes of the coefficients of a cosine transform.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from PIL import Image

from models.geometry import Geometry
from models.residuals import KERNELS, ORDER, TRUNCATION, Kernel, luminance, quantise, residual, symmetry_classes

CELL = 16  # pixels
SPAN = 2  # cells along each side of a window; windows begin at each cell
MIN_SIDE = SPAN * CELL
NUM_CLASSES = 169  # of co-occurrences
COARSER = 4  # how much larger the coarser step of quantisation is
_BLOCK, _STRIDE = 8, 4  # of the cosine transform, in pixels
_NUM_CHROMA = 21  # coefficients of each chroma channel, the lowest frequencies first; of luminance all but the mean
_FLOOR = 0.05  # of a mean before its logarithm
_LOG_SCALE = 4.0  # brings logarithms to the scale of the square roots of frequencies
_BY_NAME = {kernel.name: kernel for kernel in KERNELS}
# (kernel, half the resolution, factor of the step)
_LAYERS = [(kernel, False, 1) for kernel in KERNELS]
_LAYERS += [(_BY_NAME["second"], True, 1), (_BY_NAME["square3x3"], True, 1), (_BY_NAME["square3x3"], False, COARSER)]
NUM_FEATURES = len(_LAYERS) * (NUM_CLASSES + 1) + _BLOCK**2 - 1 + 2 * _NUM_CHROMA


def grid_of(shape: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the windows of a picture of this shape (H, W).

    Raises:
        ValueError: a side is below `MIN_SIDE`.
    """
    if min(shape) < MIN_SIDE:
        raise ValueError(f"windows need sides of {MIN_SIDE} pixels, got {shape[1]} x {shape[0]}")
    return shape[0] // CELL - SPAN + 1, shape[1] // CELL - SPAN + 1


def window_statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The statistics of each window of a picture, and those of the whole picture.

    Args:
        image: uint8 (H, W, 3), RGB, both sides at least `MIN_SIDE`. Rows and columns of pixels beyond the last whole
            cell belong to the last cell.

    Returns:
        float32 (h, w, NUM_FEATURES) and (NUM_FEATURES,); h and w from `grid_of`.

    Raises:
        ValueError: a smaller picture, or one of another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"need uint8 (H, W, 3), got {image.dtype} {image.shape}")
    grid_of(image.shape[:2])
    cells = (image.shape[0] // CELL, image.shape[1] // CELL)
    full = luminance(image)
    half = _halved(full)
    turned = {False: _turns(full), True: _turns(half)}
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for kernel, halved, coarser in _LAYERS:
        counts, sums, numbers = _counted(turned[halved], kernel, kernel.scale * coarser, cells, CELL >> halved)
        if coarser > 1:
            sums = sums / coarser**2
        parts += [_frequencies(counts), _logarithms(sums, numbers)]
    parts += [_logarithms(sums, numbers) for sums, numbers in _cosines(image, cells)]
    windows, whole = (np.concatenate(list(part), axis=-1) for part in zip(*parts, strict=True))
    return windows, whole


def _turns(channel: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(np.rot90(channel, turn)) for turn in range(4)]


def _halved(channel: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, rounded: int16 (H, W) -> int16 (H // 2, W // 2)."""
    height, width = (side // 2 * 2 for side in channel.shape)
    even = channel[:height, :width]
    return ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) >> 2).astype(np.int16)


@cache
def _cell_numbers(length: int, full: int, cell: int, num_cells: int) -> np.ndarray:
    """The cell of each of `length` positions that lie in the middle of `full` pixels: int32 (length,)."""
    return np.minimum((np.arange(length) + (full - length) // 2) // cell, num_cells - 1).astype(np.int32)


@cache
def _classes() -> np.ndarray:
    return symmetry_classes().astype(np.int32)


def _counted(
    turned: list[np.ndarray], kernel: Kernel, step: int, cells: tuple[int, int], cell: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each cell: counts of co-occurrences, float32 (h, w, 169); sum of squares by scale; number of residuals."""
    shape = turned[0].shape
    base = 2 * TRUNCATION + 1
    counts = np.zeros(cells[0] * cells[1] * NUM_CLASSES, dtype=np.int64)
    sums, numbers = np.zeros((*cells, 1), dtype=np.float32), np.zeros((*cells, 1), dtype=np.float32)
    for turn in kernel.turns:
        values = residual(turned[turn], kernel.weights)
        levels = quantise(values, step)
        width = levels.shape[1] - ORDER + 1
        codes = levels[:, :width] + np.int16(TRUNCATION)
        for offset in range(1, ORDER):
            codes *= base
            codes += levels[:, offset : offset + width]
            codes += np.int16(TRUNCATION)
        where = np.rot90(_classes()[codes], -turn)
        rows = _cell_numbers(where.shape[0], shape[0], cell, cells[0]) * (cells[1] * NUM_CLASSES)
        columns = _cell_numbers(where.shape[1], shape[1], cell, cells[1]) * NUM_CLASSES
        where = where + (rows[:, None] + columns)
        counts += np.bincount(where.ravel(), minlength=len(counts))
        squares = np.square(np.rot90(values, -turn).astype(np.float32))
        of_turn, number = _cell_sums(squares[:, :, None], shape, cells, cell)
        sums += of_turn
        numbers += number
    return counts.reshape(*cells, NUM_CLASSES).astype(np.float32), sums / kernel.scale**2, numbers


def _cell_sums(
    values: np.ndarray, shape: tuple[int, int], cells: tuple[int, int], cell: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values (H', W', D) over cells: float32 (h, w, D); and how many there are: float32 (h, w, 1)."""
    starts = []
    for axis in (0, 1):
        numbers = _cell_numbers(values.shape[axis], shape[axis], cell, cells[axis])
        starts.append(np.searchsorted(numbers, np.arange(cells[axis])))
    sums = np.add.reduceat(np.add.reduceat(values, starts[0], axis=0), starts[1], axis=1)
    lengths = [np.diff([*start, values.shape[axis]]) for axis, start in enumerate(starts)]
    return sums, np.outer(*lengths)[:, :, None].astype(np.float32)


@cache
def _basis() -> tuple[np.ndarray, np.ndarray]:
    """The transform as a matrix, float32 (64, 63), columns by rising frequency without the mean; and of chroma."""
    from scipy.fft import dctn

    eye = np.eye(_BLOCK**2).reshape(-1, _BLOCK, _BLOCK)
    matrix = dctn(eye, axes=(1, 2), norm="ortho").reshape(_BLOCK**2, _BLOCK**2)
    rows, columns = np.divmod(np.arange(_BLOCK**2), _BLOCK)
    order = np.lexsort((rows, rows + columns))[1:]
    matrix = matrix[:, order].astype(np.float32)
    return matrix, matrix[:, :_NUM_CHROMA]


def _cosines(image: np.ndarray, cells: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of luminance and both chroma channels: sums over cells of the magnitudes of coefficients, and their number."""
    channels = np.asarray(Image.fromarray(image).convert("YCbCr"), dtype=np.float32)
    basis, chroma = _basis()
    for channel in range(3):
        blocks = np.lib.stride_tricks.sliding_window_view(channels[:, :, channel], (_BLOCK, _BLOCK))
        blocks = blocks[::_STRIDE, ::_STRIDE]
        matrix = basis if channel == 0 else chroma
        values = np.abs(blocks.reshape(-1, _BLOCK**2) @ matrix).reshape(*blocks.shape[:2], -1)
        middles = [np.arange(number) * _STRIDE + _BLOCK // 2 for number in blocks.shape[:2]]
        numbers = [np.minimum(middle // CELL, num - 1) for middle, num in zip(middles, cells, strict=True)]
        starts = [np.searchsorted(number, np.arange(num)) for number, num in zip(numbers, cells, strict=True)]
        sums = np.add.reduceat(np.add.reduceat(values, starts[0], axis=0), starts[1], axis=1)
        lengths = [np.diff([*start, len(number)]) for start, number in zip(starts, numbers, strict=True)]
        yield sums, np.outer(*lengths)[:, :, None].astype(np.float32)


def over_windows(values: np.ndarray) -> np.ndarray:
    """Sums over 2 x 2 cells: (h, w, D) -> (h - 1, w - 1, D)."""
    pairs = values[1:] + values[:-1]
    return np.asarray(pairs[:, 1:] + pairs[:, :-1])


def _frequencies(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Square roots of frequencies, of the windows and of the whole picture."""
    windows, whole = over_windows(counts), counts.sum(axis=(0, 1))
    return np.sqrt(windows / windows.sum(axis=-1, keepdims=True)), np.sqrt(whole / whole.sum())


def _logarithms(sums: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of means, of the windows and of the whole picture."""
    windows = over_windows(sums) / over_windows(numbers)
    whole = sums.sum(axis=(0, 1)) / numbers.sum(axis=(0, 1))
    return tuple(np.log2(_FLOOR + part, dtype=np.float32) / np.float32(_LOG_SCALE) for part in (windows, whole))


class WholeEncoder:
    """The statistics of whole pictures as a `models.detector.Encoder`. Images have their native sizes."""

    key = "windows-v1-whole"
    num_features = NUM_FEATURES
    geometry: Geometry | None = None
    device = "cpu"

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """N arrays uint8 (H, W, 3) with sides from `MIN_SIDE` -> float32 (N, D). Errors as in `window_statistics`."""
        return np.stack([window_statistics(image)[1] for image in pixels])
