"""Regions of a picture, drawn at random: smooth blobs, thick strokes, rectangles.

Lengths in pixels are for pictures with a shorter side of 256 pixels; for others they grow or shrink with that side.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, label

SIDE = 256
_FINEST = 128  # side of the grid on which a blob is drawn, about; a smooth shape needs no more
_TRIES = 20

Area = tuple[float, float]


def blob(rng: np.random.Generator, shape: tuple[int, int], area: Area) -> np.ndarray:
    """Smooth blobs: bool (H, W). Noise is blurred and cut at a quantile, and the largest one to three parts are kept.

    Args:
        rng: draws everything.
        shape: (H, W) in pixels.
        area: lowest and highest share of the picture before parts are left out.
    """
    step = max(1, min(shape) // _FINEST)
    height, width = (-(-side // step) for side in shape)
    sigma = rng.uniform(10, 32) * min(shape) / SIDE / step
    field = gaussian_filter(rng.standard_normal((height, width)), sigma, mode="reflect").astype(np.float32)
    if step > 1:
        field = np.asarray(Image.fromarray(field).resize(shape[::-1], Image.Resampling.BILINEAR))
    parts, num_parts = label(field >= np.quantile(field, 1 - rng.uniform(*area)))
    sizes = np.bincount(parts.ravel(), minlength=num_parts + 1)
    sizes[0] = 0
    largest = np.argsort(-sizes, kind="stable")[: rng.integers(1, 4)]
    return np.isin(parts, largest[sizes[largest] > 0])


def strokes(rng: np.random.Generator, shape: tuple[int, int], area: Area) -> np.ndarray:
    """One to four strokes of one to five segments, 20 to 90 pixels long and 10 to 49 wide each: bool (H, W).

    They are drawn again, at most `_TRIES` times, until their share of the picture is within `area`.
    """
    scale = min(shape) / SIDE
    mask = np.zeros(shape, dtype=bool)
    for _ in range(_TRIES):
        picture = Image.new("L", shape[::-1])
        draw = ImageDraw.Draw(picture)
        for _ in range(rng.integers(1, 5)):
            width = max(1, round(rng.integers(10, 50) * scale))
            points = [rng.uniform(0, 1, 2) * shape[::-1]]
            for _ in range(rng.integers(1, 6)):
                angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(20, 90) * scale
                points.append(points[-1] + length * np.array([np.cos(angle), np.sin(angle)]))
            draw.line([(float(x), float(y)) for x, y in points], fill=255, width=width, joint="curve")
            for x, y in points:
                draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
        mask = np.asarray(picture) > 0
        if area[0] <= mask.mean() <= area[1]:
            break
    return mask


def rectangle(rng: np.random.Generator, shape: tuple[int, int], side: tuple[float, float]) -> np.ndarray:
    """A rectangle with these lowest and highest shares of each side of the picture: bool (H, W)."""
    mask = np.zeros(shape, dtype=bool)
    height, width = (max(1, round(length * rng.uniform(*side))) for length in shape)
    top, left = rng.integers(shape[0] - height + 1), rng.integers(shape[1] - width + 1)
    mask[top : top + height, left : left + width] = True
    return mask


def any_region(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """40 % blobs of .03 to .4 of the picture, 20 % of .2 to .9, 25 % strokes, 15 % rectangles: bool (H, W).

    A quarter of the rectangles is inverted: everything around them is the region.
    """
    kind = rng.random()
    if kind < 0.4:
        return blob(rng, shape, (0.03, 0.4))
    if kind < 0.6:
        return blob(rng, shape, (0.2, 0.9))
    if kind < 0.85:
        return strokes(rng, shape, (0.03, 0.6))
    mask = rectangle(rng, shape, (0.2, 0.8))
    return ~mask if rng.random() < 0.25 else mask
