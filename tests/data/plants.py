"""Faults planted into a data set in the layout of Dolos, each as people really make it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

Change = Callable[[Image.Image], Image.Image]


def fakes(root: Path, generator: str = "*") -> list[Path]:
    return sorted(root.glob(f"celebahq/fake/{generator}/images/*/*.png"))


def masks(root: Path, generator: str = "*") -> list[Path]:
    return sorted(root.glob(f"celebahq/fake/{generator}/masks/*/*.png"))


def change(paths: Iterable[Path], function: Change) -> None:
    for path in paths:
        with Image.open(path) as image:
            changed = function(image.copy())
        changed.save(path)


def as_jpeg(quality: int) -> Change:
    """Saved as JPEG, and stored as PNG again."""

    def function(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.convert("RGB").save(file, "JPEG", quality=quality)
        return Image.open(file)

    return function


def resized(image: Image.Image) -> Image.Image:
    """256 -> 248 -> 256 px, or in that proportion, bicubic."""
    size = (round(image.width * 248 / 256), round(image.height * 248 / 256))
    return image.resize(size, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


def levels(function: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda image: Image.fromarray(function(np.asarray(image.convert("L"))))


def swap(root: Path, one: str, other: str, split: str = "train", count: int = 5) -> list[str]:
    """Exchange the files of photographs between two folders; return their names."""
    folders = [
        root / "celebahq" / (f"real/{split}" if name == "real" else f"fake/{name}/images/{split}")
        for name in (one, other)
    ]
    names = sorted(path.name for path in folders[0].iterdir())[3 : 3 + count]
    for name in names:
        first, second = ((folder / name).read_bytes() for folder in folders)
        (folders[0] / name).write_bytes(second)
        (folders[1] / name).write_bytes(first)
    return names


def saved_again(path: Path, copy: Path) -> None:
    with Image.open(path) as image:
        image.save(copy, compress_level=1)
