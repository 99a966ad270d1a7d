"""The pictures of a manifest, read under a condition."""

from __future__ import annotations

import errno
import hashlib
import logging
import uuid
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from filelock import FileLock

from data.arrays import load_array
from data.conditions import CLEAN, Condition, Picture, get_condition
from data.images import MASK_VERSION, decode, file_digest, read_mask
from data.manifest import Manifest
from data.parallel import parallel_map
from data.sources.base import FAKE, REAL, SHARED_REAL, WHITE_KEPT, owners_of, shown_names

logger = logging.getLogger(__name__)

_DECODED_VERSION = 1  # increase it when `decode` gives other pixels than before
_NUM_LOCKS_DIGITS = 2  # a lock per first two digits of a digest


class Geometry(Protocol):
    """A transform from a picture to a square of pixels."""

    @property
    def size(self) -> int:
        """Side of the square in pixels."""
        ...

    @property
    def key(self) -> str:
        """Identifies the transform with all its settings; safe as a folder name."""
        ...

    def apply(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3), both RGB."""
        ...


class Rows(Protocol):
    """A read-only array whose rows are gathered by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> np.ndarray: ...


class FileError(ValueError):
    """A file of the data set is gone, has changed or cannot be decoded; the message names it."""


def changed_file(path: Path) -> FileError:
    """The error of a file that is another one than the manifest says."""
    return FileError(
        f"{path} has changed since the manifest was built; repeat the command. If it comes again, `touch` the file: a "
        "change is noticed by a file's size and time"
    )


class ConditionError(ValueError):
    """A condition failed on a picture, or did not give a picture; the message names both."""


def _undeclared(what: str) -> np.ndarray:
    raise ValueError(f"the condition reads the picture's {what}; register it with uses=[{what!r}]")


@dataclass(frozen=True)
class Decoded:
    """Decoded pictures on disk, so that no file is decoded twice, by whatever condition, method, trial or process.

    The first reader of a file writes its pixels, as one `.npy` file under the digest of the picture's file, which
    appears whole. Pictures under several conditions are read so: nothing is kept in memory, and on disk 3 bytes per
    pixel.

    Attributes:
        cache: the grid's cache.
        splits: the splits whose pictures are kept; those of others are decoded at each reading.
    """

    cache: Path
    splits: Collection[str]

    def pixels(self, file: File) -> np.ndarray:
        """The pixels of a file: uint8 (H, W, 3). Raises `FileError` as `File.read`, and `OSError` for a full disk."""
        folder = self.cache / f"decoded-{_DECODED_VERSION}" / file.digest[:_NUM_LOCKS_DIGITS]
        kept = folder / f"{file.digest}.npy"
        if (pixels := _kept_pixels(kept)) is not None:
            return pixels
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            if (pixels := _kept_pixels(kept)) is not None:  # another reader was quicker
                return pixels
            pixels = file.read(decode)
            temporary = folder / f"{uuid.uuid4().hex}.part"
            try:
                with temporary.open("wb") as target:
                    np.save(target, pixels, allow_pickle=False)
                temporary.replace(kept)
            finally:
                temporary.unlink(missing_ok=True)
        return pixels


def _kept_pixels(path: Path) -> np.ndarray | None:
    """The array of a file; None if there is no file, or a damaged one."""
    try:
        pixels = load_array(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is damaged and will be made again (%s)", path, error)
        return None
    return pixels


@dataclass(frozen=True)
class File:
    """A file of the data set, and its SHA-256 when the manifest was built.

    Attributes:
        path: where it is.
        digest: SHA-256, 64 hexadecimal digits.
        decoded: where its decoded pixels are kept; None: nowhere.
    """

    path: Path
    digest: str
    decoded: Decoded | None = field(default=None, repr=False)

    def pixels(self) -> np.ndarray:
        """The decoded picture: uint8 (H, W, 3). Raises `FileError` as `read`."""
        return self.read(decode) if self.decoded is None else self.decoded.pixels(self)

    def read(self, function: Callable[[Path], np.ndarray]) -> np.ndarray:
        """Apply a function of `data.images`. Raises `FileError` if the file is gone, has changed or is refused."""
        try:
            if file_digest(self.path) == self.digest:
                return function(self.path)
        except (OSError, ValueError) as error:
            raise FileError(f"{self.path} cannot be read any more: {error}") from error
        raise changed_file(self.path)


@dataclass(frozen=True)
class MaskFile(File):
    """A mask of the data set.

    Attributes:
        white: what white in it means; see `data.images.fake_levels`.
        size: (width, height) of its image.
    """

    white: str = WHITE_KEPT
    size: tuple[int, int] | None = None

    def mask(self) -> np.ndarray:
        """The mask: bool (H, W), True where the image is fake. Raises `FileError` as `read`."""
        return self.read(partial(read_mask, white=self.white, size=self.size))


def mask_file(manifest: Manifest, row: Mapping[Hashable, Any]) -> MaskFile | None:
    """The mask of a row of a manifest, with the columns mask, mask_digest, width, height, and maybe mask_white."""
    if pd.isna(row["mask"]):
        return None
    white = row.get("mask_white")
    size = int(row["width"]), int(row["height"])
    path = manifest.file(str(row["mask"]))
    return MaskFile(path, str(row["mask_digest"]), white=WHITE_KEPT if pd.isna(white) else str(white), size=size)


@dataclass(frozen=True)
class Files:
    """The files from which one picture is made.

    Attributes:
        image: the picture's file.
        mask: the mask's file; None if the condition does not use it or there is none.
        original: the file of the photograph that a fake was made from; None likewise.
    """

    image: File
    mask: MaskFile | None = None
    original: File | None = None

    @property
    def path(self) -> Path:
        """Path of the picture's file."""
        return self.image.path

    @property
    def key(self) -> str:
        """The digest of the picture's file, or a digest over the digests of all files, if there are several.

        With a mask, the key depends on `MASK_VERSION`, which says what a mask's pixels mean.
        """
        digests = [file.digest for file in (self.image, self.mask, self.original) if file is not None]
        if self.mask is not None:
            digests.append(f"mask version {MASK_VERSION}")
            digests += [] if self.mask.white == WHITE_KEPT else [f"white is {self.mask.white}"]
        return hashlib.sha256("/".join(digests).encode()).hexdigest() if len(digests) > 1 else digests[0]


class Pictures:
    """The pictures of a data set under a condition.

    Pickled, as for a process that reads files, it leaves the manifest's rows behind: `read` needs none.

    Args:
        manifest: describes the data set.
        condition: name in `data.conditions`.
        decoded: where decoded pictures are kept; None: every reading decodes.
    """

    def __init__(self, manifest: Manifest, condition: str = CLEAN, *, decoded: Decoded | None = None) -> None:
        self.manifest = manifest
        self.condition: Condition = get_condition(condition)
        self._decoded = decoded
        self._options: dict[str, Any] = {"condition": condition, "decoded": decoded}

    def __reduce__(self) -> tuple[Callable[[], Pictures], tuple[()]]:
        empty = replace(self.manifest, table=self.manifest.table.head(0))
        return partial(type(self), empty, **self._options), ()

    def files(self, rows: pd.DataFrame) -> list[Files]:
        """The files from which the picture of each manifest row is made."""
        images = self._images(rows)
        uses = self.condition.uses
        if not uses:
            return [Files(image) for image in images]
        files = []
        for image, row in zip(images, rows.to_dict("records"), strict=True):
            mask = original = None
            if "mask" in uses:
                mask = mask_file(self.manifest, row)
            if "original" in uses and row["label"] == FAKE:
                by_generator = self._reals.get((row["source_id"], row["generator"]))
                original = self._own_original(row) or by_generator or self._reals.get((row["source_id"], SHARED_REAL))
            files.append(Files(image, mask, original))
        return files

    def items(self, rows: pd.DataFrame) -> dict[str, Files]:
        """Key -> files, one entry per key; a store keeps one row per key."""
        return {files.key: files for files in self.files(rows)}

    def keys(self, rows: pd.DataFrame) -> list[str]:
        """The key of each row."""
        return rows["digest"].tolist() if not self.condition.uses else [files.key for files in self.files(rows)]

    def read(self, files: Files) -> np.ndarray:
        """Decode a picture and apply the condition: uint8 (H, W, 3).

        Raises:
            FileError: a file is gone, has changed or cannot be decoded.
            ConditionError: the condition failed, or did not give a picture. Both messages name the file.
        """
        pixels = files.image.pixels()
        if self.condition.name == CLEAN:
            return pixels
        uses = self.condition.uses
        mask = None if files.mask is None else files.mask.mask
        original = None if files.original is None else files.original.pixels
        picture = Picture(
            pixels,
            files.image.digest,
            mask if "mask" in uses else partial(_undeclared, "mask"),
            original if "original" in uses else partial(_undeclared, "original"),
        )
        return self._apply(self.condition, picture, files)

    def _apply(self, condition: Condition, picture: Picture, files: Files) -> np.ndarray:
        """The picture under a condition. Errors as in `read`."""
        name = condition.name
        try:
            changed = condition.apply(picture)
        except FileError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # the disk is full, and no decoded picture can be kept: no fault of the condition
            raise ConditionError(f"condition {name} failed on {files.path}: {error!r}") from error
        if not isinstance(changed, np.ndarray) or changed.dtype != np.uint8 or changed.shape[2:] != (3,):
            form = f"{changed.dtype} {changed.shape}" if isinstance(changed, np.ndarray) else type(changed).__name__
            raise ConditionError(f"condition {name} must give uint8 (H, W, 3); for {files.path} it gave {form}")
        return changed

    def _own_original(self, row: Mapping[Hashable, Any]) -> File | None:
        """The original that the corpus states for this fake."""
        path = row.get("original")
        return None if pd.isna(path) else File(self.manifest.file(str(path)), str(row["original_digest"]))

    def _images(self, rows: pd.DataFrame) -> list[File]:
        """The picture file of each row."""
        splits = () if self._decoded is None else self._decoded.splits
        kept = [self._decoded if split in splits else None for split in rows["split"]]
        return list(map(File, self.manifest.paths(rows), rows["digest"], kept))

    @cached_property
    def _reals(self) -> dict[tuple[str, str], File]:
        """(source id, generator) -> the real photograph."""
        reals = self.manifest.table[self.manifest.table["label"] == REAL]
        files = self._images(reals)
        owners = zip(map(str, reals["source_id"]), map(str, reals["generator"]), strict=True)
        of_files = zip(owners, files, strict=True)
        return {(source, name): file for (source, owner), file in of_files for name in owners_of(owner)}


def pair_problems(manifest: Manifest, rows: pd.DataFrame, condition: str) -> str:
    """Which fakes among these rows lack what a condition needs of them, in words with the remedy; "" if none does.

    Args:
        manifest: describes the data set.
        rows: of the manifest.
        condition: name of a condition that needs masks and originals.
    """
    fakes = rows[rows["label"] == FAKE]
    table = manifest.table
    sizes = dict(zip(table["digest"], zip(table["width"], table["height"], strict=True), strict=True))
    lacking: dict[str, list[str]] = {
        "without a mask": [],
        "without an original": [],
        "of another size than the original": [],
    }
    for path, files in zip(fakes["path"], Pictures(manifest, condition).files(fakes), strict=True):
        if files.mask is None:
            lacking["without a mask"].append(path)
        if files.original is None:
            lacking["without an original"].append(path)
        elif sizes[files.image.digest] != sizes.get(files.original.digest, sizes[files.image.digest]):
            lacking["of another size than the original"].append(path)
    lines = [f"  {words} ({len(paths)}): {shown_names(paths)}" for words, paths in lacking.items() if paths]
    if not lines:
        return ""
    number = len({path for paths in lacking.values() for path in paths})
    return "\n".join(
        [
            f"{condition} needs the mask of each fake, and its original in the same size; {number} of {len(fakes)} "
            "fakes cannot be used:",
            *lines,
            "An original is the real picture with the fake's source name. Restore the files, choose generators that "
            f"have them (--generators), or leave {condition} out",
        ]
    )


class JoinedRows:
    """Rows of several arrays, one array after the other.

    Args:
        parts: arrays whose rows have one shape and type, each read by an index array.
    """

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> np.ndarray:
        """The rows at a slice or an index array, in its order."""
        chosen = np.arange(len(self))[index]
        numbers = np.searchsorted(self._ends, chosen, side="right")
        used = np.unique(numbers) if len(chosen) else [0]
        starts = self._ends - [len(part) for part in self._parts]
        rows = {int(number): self._parts[number][chosen[numbers == number] - starts[number]] for number in used}
        first = next(iter(rows.values()))
        joined = np.empty((len(chosen), *first.shape[1:]), dtype=first.dtype)
        for number, part in rows.items():
            joined[numbers == number] = part
        return joined


class PictureRows:
    """Rows of pixels, each read from its file, changed by the condition and resized whenever it is accessed.

    For networks under a condition, whose pixels are not stored, and for methods that take pictures of their native
    size.

    Args:
        pictures: the pictures of the data set under the condition.
        rows: manifest rows, in order.
        geometry: the transform to the network's square; None: pictures keep their native sizes.
        workers: number of threads.
    """

    def __init__(self, pictures: Pictures, rows: pd.DataFrame, geometry: Geometry | None, *, workers: int) -> None:
        self._pictures, self._geometry, self._workers = pictures, geometry, workers
        self._files = pictures.files(rows)
        self.shape = (len(self._files), *(() if geometry is None else (geometry.size, geometry.size, 3)))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The rows at an index array, in its order: uint8 (n, size, size, 3).

        Of native sizes: an object array (n,), each row uint8 (H, W, 3).
        """
        geometry = self._geometry
        chosen = [self._files[number] for number in np.arange(len(self._files))[index]]

        def pixels(files: Files) -> np.ndarray:
            read = self._pictures.read(files)
            return read if geometry is None else geometry.apply(read)

        rows = np.empty((len(chosen), *self.shape[1:]), dtype=object if geometry is None else np.uint8)
        for number, row in enumerate(parallel_map(pixels, chosen, workers=self._workers, ahead=len(chosen))):
            rows[number] = row
        return rows
