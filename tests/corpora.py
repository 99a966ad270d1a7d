"""Tiny corpora on disk, for any test that needs a data folder."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COUNTS = {"train": 4, "valid": 2, "test": 3}


def picture(name: str, size: int = 16) -> np.ndarray:
    """A smooth picture that follows from its name alone: uint8 (size, size, 3)."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def write_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_as_jpeg(path: Path, quality: int = 75) -> None:
    """A picture becomes a JPEG of the same stem."""
    Image.open(path).save(path.with_suffix(".jpg"), quality=quality)
    path.unlink()


def write_dolos(
    root: Path,
    generators: Iterable[str] = ("lama", "ldm"),
    counts: Mapping[str, int] = COUNTS,
    size: int = 16,
) -> Path:
    """A Dolos tree: in every fake the middle of the photograph is another picture, marked black in the mask."""
    base = root / "celebahq"
    middle = slice(size // 4, size - size // 4)
    mask = np.full((size, size), 255, dtype=np.uint8)
    mask[middle, middle] = 0
    first = 0
    for split, count in counts.items():
        for number in range(first, first + count):
            name = f"{number:05d}.png"
            real = picture(name, size)
            write_image(base / "real" / split / name, real)
            for generator in generators:
                fake = real.copy()
                fake[middle, middle] = picture(f"{generator}/{name}", size)[middle, middle]
                write_image(base / "fake" / generator / "images" / split / name, fake)
                write_image(base / "fake" / generator / "masks" / split / name, mask)
        first += count
    return root


def write_archive(root: Path, counts: Mapping[str, int] = COUNTS, size: int = 16) -> Path:
    """The Dolos archive as its authors' loader reads it: the published experiment, p2 and repaint-p2, and FFHQ."""
    write_dolos(root, ("lama", "ldm", "pluralistic", "repaint-p2-9k", "repaint-p2"), counts, size)
    write_dolos(root / "of FFHQ", ("repaint-p2",), counts, size)
    (root / "of FFHQ" / "celebahq").rename(root / "ffhq")
    (root / "of FFHQ").rmdir()
    for faces in ("celebahq", "ffhq"):
        for split, count in counts.items():
            for number in range(count):  # the names restart, and name no photograph
                generated = picture(f"{faces}/p2/{split}/{number}", size)
                write_image(root / faces / "fake" / "p2" / split / f"{number:05d}.png", generated)
    return root


def write_folders(root: Path, folders: Mapping[str, int], size: int = 16, *, restart: bool = True) -> Path:
    """Plain folders: path below the root (such as "progan/0_real") -> number of images in it.

    `restart`: the same names in every folder; else each name in one folder only.
    """
    for folder, count in folders.items():
        for number in range(count):
            stem = f"{number:04d}" if restart else f"{folder.replace('/', '-')}-{number:04d}"
            write_image(root / folder / f"{stem}.png", picture(f"{folder}/{number}", size))
    return root


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, separator: str = ",", start: str = "") -> None:
    """A list of images, with the columns of its first row; `start` goes before them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(start)
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
