"""Maps between the cells of a detector's grid and the pixels of a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from models.detector import Detector
from models.geometry import Geometry

UNSEEN = -20.0  # log-odds of what a detector does not see, such as a border that was cut off: p = 2e-9


def cell_shares(mask: np.ndarray, geometry: Geometry, cells: tuple[int, int]) -> np.ndarray:
    """How much of each cell of a detector's grid is fake.

    Args:
        mask: bool (H, W), in the picture's native size.
        geometry: the transform from the picture to the detector's square.
        cells: rows and columns of the grid, which covers the square evenly.

    Returns:
        float32 (rows, columns), in [0, 1]. What was filled up is not fake.
    """
    if not mask.any():
        return np.zeros(cells, dtype=np.float32)
    grey = np.repeat(np.where(mask, 255, 0).astype(np.uint8)[:, :, None], 3, axis=2)
    square = dataclasses.replace(geometry, fill=(0, 0, 0), alpha=False).apply(grey)[..., 0]
    shares = Image.fromarray(square.astype(np.float32)).resize(cells[::-1], Image.Resampling.BOX)
    return np.clip(np.asarray(shares) / 255, 0, 1)


def over_picture(cells: np.ndarray, geometry: Geometry | None, shape: tuple[int, int]) -> np.ndarray:
    """A map over a detector's grid -> a map over the picture, enlarged linearly.

    Args:
        cells: float (rows, columns), log-odds.
        geometry: the transform from the picture to the detector's square; None: the grid covers the picture itself.
        shape: (H, W) of the picture.

    Returns:
        float32 (H, W): log-odds; `UNSEEN` where the picture was cut off.
    """
    if geometry is None or geometry.policy == "squash":
        return resized(cells, shape)
    return geometry.invert(resized(cells, (geometry.size, geometry.size)), shape, outside=UNSEEN)


def may_have_maps(detector: Detector) -> bool:
    """Whether a detector's class has maps of its own; no picture is looked at."""
    return type(detector).maps is not Detector.maps


def picture_maps(detector: Detector, images: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """A detector's own maps of decoded pictures, uint8 (H, W, 3) of any sizes.

    Returns:
        float32 (rows, columns) each: log-odds of fake of each cell; None for a method that has no maps.

    Raises:
        ValueError: a value is not finite, or the maps are not one per picture.
    """
    if not may_have_maps(detector):
        return None
    batches = [detector.squares(images)] if detector.geometry is not None else [image[None] for image in images]
    maps = list[np.ndarray]()
    for batch in batches:
        found = detector.maps(batch)
        if found is None:
            return None
        if found.ndim != 3 or len(found) != len(batch) or not np.isfinite(found).all():
            raise ValueError(f"a map must be finite (N, rows, columns) for {len(batch)} pictures, got {found.shape}")
        maps += list(found)
    return maps


def resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map in another size (H, W), linearly: float32, within the range of its values."""
    if values.shape == shape:
        return values.astype(np.float32)
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    larger = np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
    return np.clip(larger, values.min(), values.max())
