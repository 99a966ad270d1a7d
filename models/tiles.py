"""Pictures at their native size, cut into tiles that cover them; nothing is resized."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from models.detector import Encoder, Rows
from models.geometry import Geometry

NATIVE = "native"  # the value of the setting `resize`, and a policy of `Geometry`
TILES_AT_ONCE = 64  # after that many tiles no further picture is cut
PICTURES_AT_ONCE = 64  # that are read


def corners(side: int, size: int) -> list[int]:
    """Where tiles begin along a side, in pixels: as few tiles as cover it, evenly spread; one for a smaller side."""
    count = max(1, math.ceil(side / size))
    return [number * (side - size) // max(1, count - 1) for number in range(count)] if count > 1 else [0]


def tiles_of(picture: np.ndarray, geometry: Geometry) -> list[np.ndarray]:
    """uint8 (H, W, 3) -> the fewest squares, uint8 (S, S, 3), that cover it; they may overlap.

    `geometry` has the policy "native": it fills squares where the picture is smaller. A picture of exactly (S, S) is
    one tile.
    """
    size = geometry.size
    return [
        geometry.apply(picture[top : top + size, left : left + size])
        for top in corners(picture.shape[0], size)
        for left in corners(picture.shape[1], size)
    ]


def random_part(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A part of (H, W, ...) at a place drawn at random, at most (size, size, ...)."""
    top, left = (int(rng.integers(max(0, side - size) + 1)) for side in picture.shape[:2])
    return picture[top : top + size, left : left + size]


def pictures_of(inputs: Rows, index: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures at an index, uint8 (H, W, 3) each; some are read at once.

    Raises:
        ValueError: the inputs are no pictures.
    """
    for start in range(0, len(index), PICTURES_AT_ONCE):
        for picture in inputs[index[start : start + PICTURES_AT_ONCE]]:
            if not isinstance(picture, np.ndarray) or picture.ndim != 3:
                raise ValueError(f"need pictures, uint8 (H, W, 3) each; the inputs have shape ({len(inputs)}, ...)")
            yield picture


def tiles_in_batches(
    pictures: Iterable[np.ndarray], geometry: Geometry
) -> Iterator[tuple[slice, np.ndarray, list[int]]]:
    """Tiles of some pictures at a time, in order.

    Yields:
        which pictures; their tiles, uint8 (T, S, S, 3); how many tiles each picture has.
    """
    first, tiles, counts = 0, list[np.ndarray](), list[int]()
    for picture in pictures:
        cut = tiles_of(picture, geometry)
        tiles += cut
        counts.append(len(cut))
        if len(tiles) >= TILES_AT_ONCE:
            yield slice(first, first + len(counts)), np.stack(tiles), counts
            first, tiles, counts = first + len(counts), [], []
    if tiles:
        yield slice(first, first + len(counts)), np.stack(tiles), counts


def means(values: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Values of tiles, float32 (T, D) -> their mean over each picture's tiles, float32 (N, D)."""
    return np.stack([part.mean(axis=0) for part in np.split(values, np.cumsum(counts)[:-1])])


class TiledEncoder:
    """The mean of an encoder's features over tiles that cover the picture. It takes pictures of their native sizes.

    Args:
        encoder: takes squares; its geometry has the policy "native".
    """

    geometry: Geometry | None = None

    def __init__(self, encoder: Encoder) -> None:
        assert encoder.geometry is not None
        self._encoder, self._square = encoder, encoder.geometry
        self.num_features, self.device = encoder.num_features, encoder.device
        self.key = f"{encoder.key}-tiles"

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Pictures, uint8 (H, W, 3) of any sizes -> float32 (N, D)."""
        features = np.empty((len(pixels), self.num_features), dtype=np.float32)
        for part, tiles, counts in tiles_in_batches(pixels, self._square):
            features[part] = means(self._encoder.encode(tiles), counts)
        return features


def tiled(encoder: Encoder, resize: str) -> Encoder:
    """The encoder that a method uses under its setting `resize`: tiles for "native", else the encoder itself."""
    if resize == NATIVE:
        return TiledEncoder(encoder)
    return encoder
