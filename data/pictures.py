"""The pictures of a manifest, read under a condition."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from data.conditions import CLEAN, Condition, Picture, get_condition
from data.images import decode, file_digest, read_mask
from data.manifest import Manifest
from data.parallel import parallel_map
from data.sources.base import FAKE, REAL


class Geometry(Protocol):
    """How a picture becomes a square of pixels."""

    @property
    def size(self) -> int:
        """Side of the square, pixels."""
        ...

    @property
    def key(self) -> str:
        """Everything that the result depends on besides the picture; safe as a folder name."""
        ...

    def apply(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), both RGB."""
        ...


@dataclass(frozen=True)
class File:
    """A file of the data set, and the SHA-256 that it had when the manifest was built."""

    path: Path
    digest: str

    def check(self) -> Path:
        """The path. Raises `ValueError` where the file is gone or has changed."""
        try:
            if file_digest(self.path) == self.digest:
                return self.path
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read any more: {error}") from error
        raise ValueError(f"{self.path} has changed since the manifest was built; build it again")


@dataclass(frozen=True)
class Files:
    """What one picture is read from.

    Attributes:
        image: its own file.
        mask: its mask, where the condition uses it and there is one.
        original: the photograph behind a fake, likewise.
    """

    image: File
    mask: File | None = None
    original: File | None = None

    @property
    def path(self) -> Path:
        """Of the picture itself."""
        return self.image.path

    @property
    def key(self) -> str:
        """What the picture's pixels depend on: its digest, or a digest over all that it is read from."""
        others = [file.digest for file in (self.mask, self.original) if file is not None]
        return (
            hashlib.sha256("/".join([self.image.digest, *others]).encode()).hexdigest() if others else self.image.digest
        )


class Pictures:
    """The pictures of a data set under a condition.

    Args:
        manifest: of the data set.
        condition: name in `data.conditions`.
    """

    def __init__(self, manifest: Manifest, condition: str = CLEAN) -> None:
        self.manifest = manifest
        self.condition: Condition = get_condition(condition)

    def files(self, rows: pd.DataFrame) -> list[Files]:
        """What each of these manifest rows is read from."""
        images = map(File, self.manifest.paths(rows), rows["digest"])
        uses = self.condition.uses
        if not uses:
            return [Files(image) for image in images]
        masks: Sequence[File | None] = [None] * len(rows)
        originals: Sequence[File | None] = [None] * len(rows)
        if "mask" in uses:
            masks = [
                None if pd.isna(mask) else File(self.manifest.root / str(mask), str(digest))
                for mask, digest in zip(rows["mask"], rows["mask_digest"], strict=True)
            ]
        if "original" in uses:
            originals = [
                self._originals.get((str(source), str(generator))) or self._originals.get((str(source), "real"))
                if label == FAKE
                else None
                for source, generator, label in zip(rows["source_id"], rows["generator"], rows["label"], strict=True)
            ]
        return [Files(*parts) for parts in zip(images, masks, originals, strict=True)]

    def items(self, rows: pd.DataFrame) -> dict[str, Files]:
        """Key -> files, one picture per key: what a store keeps its rows under."""
        return {files.key: files for files in self.files(rows)}

    def keys(self, rows: pd.DataFrame) -> list[str]:
        """Each row's key."""
        return rows["digest"].tolist() if not self.condition.uses else [files.key for files in self.files(rows)]

    def read(self, files: Files) -> np.ndarray:
        """Decode a picture and apply the condition: uint8 (H, W, 3).

        Raises:
            ValueError: a file is gone, has changed or cannot be decoded, or the condition failed on it; the message
                names it.
        """
        pixels = _decoded(files.image)
        if self.condition.name == CLEAN:
            return pixels
        mask, original = files.mask, files.original
        picture = Picture(
            pixels,
            files.image.digest,
            None if mask is None else lambda: read_mask(mask.check()),
            None if original is None else lambda: _decoded(original),
        )
        try:
            return self.condition.apply(picture)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"condition {self.condition.name} failed on {files.path}: {error!r}") from error

    @cached_property
    def _originals(self) -> dict[tuple[str, str], File]:
        """(source id, generator) -> the real photograph."""
        reals = self.manifest.table[self.manifest.table["label"] == REAL]
        files = map(File, self.manifest.paths(reals), reals["digest"])
        owners = zip(reals["source_id"], reals["generator"], strict=True)
        return {(str(source), str(generator)): file for (source, generator), file in zip(owners, files, strict=True)}


class PictureRows:
    """Pictures as rows of pixels that are read, changed by the condition and resized each time they are asked for.

    For networks under a condition: its features and scores are kept, its pixels never.

    Args:
        pictures: of the data set, under the condition.
        rows: manifest rows, in order.
        geometry: how a picture becomes the network's square.
        workers: threads.
    """

    def __init__(self, pictures: Pictures, rows: pd.DataFrame, geometry: Geometry, *, workers: int) -> None:
        self._pictures, self._geometry, self._workers = pictures, geometry, workers
        self._files = pictures.files(rows)
        self.shape = (len(self._files), geometry.size, geometry.size, 3)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> np.ndarray:
        """uint8 (n, size, size, 3) of the rows that an index array picks, in its order."""
        chosen = [self._files[number] for number in np.arange(len(self._files))[index]]
        if not chosen:
            return np.empty((0, *self.shape[1:]), dtype=np.uint8)
        return np.stack(list(parallel_map(self._square, chosen, workers=self._workers, ahead=len(chosen))))

    def _square(self, files: Files) -> np.ndarray:
        return self._geometry.apply(self._pictures.read(files))


def _decoded(file: File) -> np.ndarray:
    path = file.check()
    try:
        return decode(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read any more: {error}") from error
