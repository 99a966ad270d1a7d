"""Decoded pixels and features on disk, addressed by the digest of the image that they come from."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import math
import mmap
import os
import platform
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import islice, repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock, Timeout

from data.conditions import CLEAN, Condition
from data.parallel import parallel_map
from data.pictures import Files, Geometry, Pictures

logger = logging.getLogger(__name__)

T = TypeVar("T")
P = TypeVar("P")
Progress = Callable[[int, int], None]

_SHARD_BYTES = 256 * 2**20
_SHARD_ROWS = 1024
_PIECES, _BATCHES = 64, 4  # a store is cut into this many pieces, none smaller than this many batches
_SHARD, _UNFINISHED = "shard-", "unfinished-"
_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:12]  # this machine, in names
_ABANDONED = 3600  # seconds without a write after which what another machine left unfinished is taken for dead
_BLOCK = 2**20
_MAPPED_BYTES = 32 * 2**20  # that maps may hold in memory before their pages are given back
_FAULT_BYTES = 2**16  # that Linux maps in around a page that is touched
_SPARE = 0.02  # of a disk, that copies leave free: checkpoints and Ray itself may be on it
_DAMAGE = (OSError, ValueError, EOFError)
_CHANGED = "its content has changed since it was written"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class ArrayStore:
    """Rows of one shape and type on disk, each under the digest of an image.

    A shard is a folder `shard-<random>` with `rows.npy`, its CRC-32 in `crc32.txt`, and `digests.txt` (one a line). It
    appears whole, by one rename, and never changes. So readers need no lock, and a builder that is killed loses one
    shard at most.

    Any number of builders, on any machines that see the folder, share the work: what is asked for is cut into pieces,
    and each builder takes those that nobody else holds. A claim is a file lock, which the system lifts when its holder
    dies. Where locks do not reach (between nodes of some network file systems), work is done twice, and nothing else.

    Args:
        folder: made when it is first filled; nothing on disk is touched before.
        row_shape: of one row.
        dtype: of the rows.
        checked: verify a shard's checksum when a process first reads it. Otherwise only files that are missing, cut or
            of the wrong form are noticed then, and a changed content when the shard is copied.
    """

    def __init__(
        self, folder: Path, *, row_shape: tuple[int, ...], dtype: npt.DTypeLike, checked: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.row_shape = tuple(row_shape)
        self.dtype = np.dtype(dtype)
        self.checked = checked

    def missing(self, digests: Collection[str]) -> int:
        """How many of these rows are not in the store, or in a damaged part of it."""
        return int(np.count_nonzero(self._find(digests)[1][:, 0] < 0))

    def fill(
        self,
        items: Mapping[str, T],
        compute: Callable[[list[Any]], np.ndarray],
        *,
        batch: int,
        prepare: Callable[[T], Any] | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Compute and keep the rows that are missing; on return all are there.

        Several builders at once share the work if they ask for the same items in the same order, from which the pieces
        follow.

        Args:
            items: digest -> what its row is computed from.
            compute: at most `batch` items (or what `prepare` made of them) -> their rows, (n, *row_shape).
            batch: how many items at most.
            prepare: done for every item in threads, two batches ahead of `compute`; None: items are taken as they are.
            workers: threads for `prepare`; None: one a core.
            progress: called with (rows that this builder computed, rows that were missing) after every batch, and at
                the end with all as done where other builders had a share.

        Raises:
            OSError: the disk is full or cannot be written; shards that were finished stay.
            ValueError: `compute` returned another shape, or the folder holds rows of another shape or type.
        """
        if not self.missing(items):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        sound = dict(self._shards(remove_damaged=True))
        present = set[str]().union(*sound.values())
        total, done = len(items.keys() - present), 0

        def count(rows: int) -> None:
            nonlocal done
            done += rows
            if progress is not None:
                progress(done, total)

        def build(name: str, piece: list[str]) -> None:
            new = dict(self._shards(but=sound))
            sound.update(new)
            present.update(*new.values())
            missing = [digest for digest in piece if digest not in present]
            if missing:
                values = [items[digest] for digest in missing]
                with self._saying_when_full(lambda: (total - done) * self._row_bytes):
                    self._add_shard(name, missing, values, compute, max(1, batch), prepare, workers, count)

        pieces = [piece for piece in self._pieces(list(items), max(1, batch)) if not present.issuperset(piece)]
        named = {hashlib.sha256("\n".join(piece).encode()).hexdigest()[:16]: piece for piece in pieces}
        self._share(named, build)
        if done < total:
            count(total - done)

    def copy_from(self, source: ArrayStore, digests: Collection[str]) -> int:
        """Copy the shards of another store that hold those of these rows which are missing here.

        Several processes at once share the work. A copy appears whole, once its content agrees with the checksum of the
        shard, or, of a shard that is older than checksums, with what was read. A shard of the source that does not
        agree is reported and removed there: its rows stay missing here until they are computed again, and so do rows
        that the source lacks.

        Returns:
            The bytes of rows that this process copied.

        Raises:
            OSError: the disk is full, or too full from the start, or cannot be written; shards that were finished stay.
        """
        absent = [digest for digest, shard in zip(digests, self._find(digests)[1][:, 0], strict=True) if shard < 0]
        shards, where = source._find(absent)
        names = [shards[number] for number in np.unique(where[:, 0]) if number >= 0]
        if not names:
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        sizes = {name: _size(source.folder / name / "rows.npy") for name in names}
        total = left = sum(sizes.values())
        copied, started = 0, time.monotonic()
        logger.info("copying %d shards, %.1f MB, from %s to %s", len(names), total / 1e6, source.folder, self.folder)

        def copy(_: str, name: str) -> None:
            nonlocal left, copied
            if not self._is_sound(name):
                with self._saying_when_full(lambda: left):
                    copied += self._copy_shard(source.folder / name)
            left -= sizes[name]
            logger.info("%.1f of %.1f MB are there", (total - left) / 1e6, total / 1e6)

        with self._saying_when_full(lambda: left):
            disk = shutil.disk_usage(self.folder)
            if disk.free < left + _SPARE * disk.total:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._share({name.removeprefix(_SHARD): name for name in names}, copy)
        logger.info("copied %.1f MB in %.1f s", copied / 1e6, time.monotonic() - started)
        return copied

    def open(self, digests: Sequence[str]) -> StoredRows:
        """The rows of these digests, in this order, a digest as often as it is named.

        Raises:
            KeyError: some are not in the store; the message says how many.
        """
        shards, where = self._find(digests)
        if missing := int(np.count_nonzero(where[:, 0] < 0)):
            raise KeyError(f"{missing} of {len(digests)} rows are not in {self.folder}; fill it first")
        numbers, where[:, 0] = np.unique(where[:, 0], return_inverse=True)
        files = [self.folder / shards[number] / "rows.npy" for number in numbers]
        return StoredRows(files, where, self.row_shape, self.dtype)

    def _find(self, digests: Collection[str]) -> tuple[list[str], np.ndarray]:
        """The names of all sound shards, and int32 (N, 2): for each digest its shard's number among them and its row.

        -1 for a digest that is in no shard. This takes memory for the digests that are asked for, not for the store's.
        """
        asked = {digest: number for number, digest in enumerate(digests)}
        where = np.full((len(digests), 2), -1, dtype=np.int32)
        names: list[str] = []
        for name, held in self._shards():
            numbers = np.fromiter(map(asked.get, held, repeat(-1)), dtype=np.int32, count=len(held))
            rows = np.flatnonzero(numbers >= 0)
            where[numbers[rows], 0] = len(names)
            where[numbers[rows], 1] = rows
            names.append(name)
        return names, where[np.fromiter(map(asked.__getitem__, digests), dtype=np.int32, count=len(digests))]

    def _shards(self, *, but: Collection[str] = (), remove_damaged: bool = False) -> Iterator[tuple[str, list[str]]]:
        """(name, digests of its rows) of every sound shard, in the order of the names, without those in `but`."""
        for shard in sorted(self.folder.glob(f"{_SHARD}*")):
            if shard.name in but:
                continue
            try:
                digests, rows = self._read(shard)
            except _DAMAGE as error:
                logger.warning("%s is damaged and will be made again (%s)", shard, error)
                if remove_damaged:
                    shutil.rmtree(shard, ignore_errors=True)  # another builder may be at it too
                continue
            if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
                held, expected = f"{rows.dtype} {rows.shape[1:]}", f"{self.dtype} {self.row_shape}"
                raise ValueError(
                    f"{self.folder} holds rows of {held}, not of {expected}; remove it or use another cache"
                )
            yield shard.name, digests

    def _read(self, shard: Path) -> tuple[list[str], np.ndarray]:
        """Digests and memory map of a shard; one of `_DAMAGE` where it is not sound."""
        digests = (shard / "digests.txt").read_text().split()
        rows = np.load(shard / "rows.npy", mmap_mode="r")
        if len(rows) != len(digests):
            raise ValueError(f"{len(rows)} rows but {len(digests)} digests")
        if self.checked and int((shard / "crc32.txt").read_text()) != _checksum_of(shard / "rows.npy"):
            raise ValueError(_CHANGED)
        return digests, rows

    def _is_sound(self, name: str) -> bool:
        try:
            self._read(self.folder / name)
        except _DAMAGE:
            return False
        return True

    @property
    def _row_bytes(self) -> int:
        return max(1, self.dtype.itemsize * math.prod(self.row_shape))

    def _pieces(self, digests: list[str], batch: int) -> list[list[str]]:
        """What is claimed and written as one shard: whole batches, so that none is cut short."""
        rows = max(-(-len(digests) // _PIECES), _BATCHES * batch)
        rows = min(rows, _SHARD_ROWS, _SHARD_BYTES // self._row_bytes)
        rows = max(batch, rows // batch * batch)
        return [digests[start : start + rows] for start in range(0, len(digests), rows)]

    @contextmanager
    def _claim(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Whether the piece is this builder's alone for the duration of the block; `wait` until it is."""
        locks = self.folder / ".locks"
        locks.mkdir(exist_ok=True)
        lock = FileLock(locks / name)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _share(self, pieces: Mapping[str, P], work: Callable[[str, P], None]) -> None:
        """Do the work of each piece that nobody else holds, then wait for the others and do what they left undone.

        `pieces` are name -> what `work` gets besides the name.
        """
        self._remove_unfinished()
        for wait in (False, True):
            busy = {}
            for name, piece in pieces.items():
                with self._claim(name, wait=wait) as mine:
                    if mine:
                        work(name, piece)
                    else:
                        busy[name] = piece
            if busy and not wait:
                logger.info("another process is filling %d pieces of %s; waiting for it", len(busy), self.folder)
            pieces = busy
        self._remove_unfinished()  # of those that died meanwhile

    @contextmanager
    def _saying_when_full(self, needed: Callable[[], int]) -> Iterator[None]:
        """Say how many bytes are needed where the disk turns out to be full."""
        try:
            yield
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            text = f"the disk is full: {needed() / 2**20:.0f} MiB more are needed; free them or use another folder"
            raise OSError(error.errno, text, str(self.folder)) from error

    def _remove_unfinished(self) -> None:
        """Remove what builders left behind that were killed: their claims are void."""
        for leftover in self.folder.glob(f"{_UNFINISHED}*"):
            with self._claim(leftover.name.split("-")[1], wait=False) as mine:
                if mine and (_HERE in leftover.name or _seconds_idle(leftover) > _ABANDONED):
                    shutil.rmtree(leftover, ignore_errors=True)

    def _unfinished(self, name: str) -> Path:
        """A new folder for a piece that is claimed; says whose it is, as a claim may not be seen from other nodes."""
        return self.folder / f"{_UNFINISHED}{name}-{_HERE}-{uuid.uuid4().hex}"

    def _add_shard(
        self,
        name: str,
        digests: list[str],
        values: list[T],
        compute: Callable[[list[Any]], np.ndarray],
        batch: int,
        prepare: Callable[[T], Any] | None,
        workers: int | None,
        count: Callable[[int], None],
    ) -> None:
        """Compute the rows of a piece that is claimed, and put them into the store; `count` gets rows as they come."""
        unfinished = self._unfinished(name)
        function: Callable[[T], Any] = prepare or (lambda item: item)
        ahead = parallel_map(function, values, workers=workers if prepare else 1, ahead=2 * batch)
        try:
            unfinished.mkdir()
            (unfinished / "digests.txt").write_text("\n".join(digests) + "\n")
            with closing(ahead) as prepared, (unfinished / "rows.npy").open("wb") as file:
                # Plain writes and no memory map: on a full disk a map kills the process, a write says so.
                shape = (len(digests), *self.row_shape)
                head = io.BytesIO()
                header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(head, header)
                file.write(head.getvalue())
                checksum = zlib.crc32(head.getvalue())
                for first in range(0, len(digests), batch):
                    inputs = list(islice(prepared, min(batch, len(digests) - first)))
                    content = self._checked(compute(inputs), len(inputs)).tobytes()
                    file.write(content)
                    checksum = zlib.crc32(content, checksum)
                    count(len(inputs))
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave a shard whose rows never reached the disk
            (unfinished / "crc32.txt").write_text(str(checksum))
            unfinished.rename(self.folder / f"{_SHARD}{uuid.uuid4().hex}")
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _copy_shard(self, shard: Path) -> int:
        """Copy a shard that is claimed, in place of a damaged copy: the bytes of its rows, 0 where it is damaged."""
        unfinished = self._unfinished(shard.name.removeprefix(_SHARD))
        try:
            unfinished.mkdir()
            kept = shard / "crc32.txt"
            try:
                digests = (shard / "digests.txt").read_bytes()
                expected = int(kept.read_text()) if kept.exists() else None  # older shards of pixels have none
                source = (shard / "rows.npy").open("rb")
            except (FileNotFoundError, ValueError) as error:
                return self._give_up(shard, str(error))
            (unfinished / "digests.txt").write_bytes(digests)
            checksum = 0
            with source, (unfinished / "rows.npy").open("wb") as file:
                while block := source.read(_BLOCK):
                    file.write(block)
                    checksum = zlib.crc32(block, checksum)
                file.flush()
                os.fsync(file.fileno())
            if expected not in (None, checksum):
                if _crc32(shard / "rows.npy") == expected:
                    # It was this node's reading, and nobody else shall lose the shard.
                    raise OSError(errno.EIO, "what is read changes from one time to the next", str(shard))
                return self._give_up(shard, _CHANGED)
            if _crc32(unfinished / "rows.npy") != checksum:
                raise OSError(errno.EIO, "what was written is read back differently", str(self.folder))
            (unfinished / "crc32.txt").write_text(str(checksum))
            shutil.rmtree(self.folder / shard.name, ignore_errors=True)
            unfinished.rename(self.folder / shard.name)
            return _size(self.folder / shard.name / "rows.npy")
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    @staticmethod
    def _give_up(shard: Path, why: str) -> int:
        """Remove a damaged shard that was to be copied: 0 bytes are."""
        logger.warning("%s is damaged and will be made again (%s)", shard, why)
        shutil.rmtree(shard, ignore_errors=True)
        return 0

    def _checked(self, rows: np.ndarray, count: int) -> np.ndarray:
        rows = np.asarray(rows)
        if rows.shape != (count, *self.row_shape) or rows.dtype != self.dtype:
            expected = f"{self.dtype} {(count, *self.row_shape)}"
            raise ValueError(f"expected rows of {expected}, got {rows.dtype} {rows.shape}")
        return rows


def _seconds_idle(folder: Path) -> float:
    """Since something in it was written; infinite where it has gone meanwhile."""
    with suppress(OSError):
        return time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return math.inf


def _checksum_of(path: Path) -> int:
    facts = path.stat()
    return _checksum(path, facts.st_size, facts.st_mtime_ns)


@cache
def _checksum(path: Path, size: int, modified: int) -> int:
    """CRC-32 of a file's content, read once a process as long as the file looks the same."""
    return _crc32(path)


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _size(path: Path) -> int:
    """Bytes; 0 if it is not there."""
    return path.stat().st_size if path.exists() else 0


class StoredRows:
    """Rows of a store in a chosen order; read from disk only when they are asked for. Cheap to pickle.

    Attributes:
        shape: (N, *row_shape).
        dtype: of the rows.
    """

    def __init__(self, shards: list[Path], where: np.ndarray, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """`where` is int32 (N, 2): the shard's number and the row in it."""
        self.shape = (len(where), *row_shape)
        self.dtype = dtype
        self._shards, self._where = shards, where
        self._maps: dict[int, np.memmap[Any, Any]] = {}
        self._resident = 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """A copy of the rows that a slice, index array or boolean mask picks, in its order; of one row for an int."""
        where = self._where[index]
        if where.ndim == 1:
            return np.array(self._map(int(where[0]))[where[1]])
        rows = np.empty((len(where), *self.shape[1:]), dtype=self.dtype)
        for shard in np.unique(where[:, 0]):
            here = np.flatnonzero(where[:, 0] == shard)
            rows[here] = self._map(int(shard))[where[here, 1]]
        self._resident += max(rows.nbytes, len(rows) * _FAULT_BYTES)
        if self._resident > _MAPPED_BYTES:
            self._forget()
        return rows

    def _forget(self) -> None:
        """Take no more memory for the maps than a little: the pages stay in the system's cache, for all processes."""
        for rows in self._maps.values():
            if isinstance(rows.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                rows.base.madvise(mmap.MADV_DONTNEED)
        self._resident = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}, "_resident": 0}

    def _map(self, shard: int) -> np.memmap[Any, Any]:
        if shard not in self._maps:
            self._maps[shard] = np.load(self._shards[shard], mmap_mode="r")
        return self._maps[shard]


def pixel_store(cache: Path, geometry: Geometry) -> ArrayStore:
    """Where pixels of this geometry are kept: uint8 rows (size, size, 3).

    Checksums are not verified when they are read: reading gigabytes only for that would cost each trial more than a
    wrong pixel does.
    """
    shape = (geometry.size, geometry.size, 3)
    return ArrayStore(Path(cache) / "pixels" / geometry.key, row_shape=shape, dtype=np.uint8)


def fill_pixels(
    store: ArrayStore,
    pictures: Pictures,
    rows: pd.DataFrame,
    geometry: Geometry,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Decode and transform the images of these manifest rows into the store, as far as they are missing.

    Raises:
        ValueError: a file cannot be read or is not what it was when the manifest was built; the message names it.
        OSError: the disk is full.
    """
    store.fill(
        pictures.items(rows),
        np.stack,
        batch=32,
        prepare=lambda files: geometry.apply(pictures.read(files)),
        workers=workers,
        progress=progress,
    )


def feature_store(cache: Path, key: str, num_features: int, condition: Condition | None = None) -> ArrayStore:
    """Where an encoder's features are kept: float32 rows (num_features,), with checksums.

    Args:
        cache: the grid's cache.
        key: the encoder's.
        num_features: D.
        condition: of the pictures that are encoded; None: they are clean.
    """
    if not key or len(key) > 150 or "/" in key or "\\" in key or key.startswith("."):
        raise ValueError(f"an encoder's key must be a folder name of at most 150 characters, got {key!r}")
    cache = Path(cache)
    base = cache if condition is None or condition.name == CLEAN else cache / "conditions" / condition.key
    return ArrayStore(base / "features" / key, row_shape=(num_features,), dtype=np.float32, checked=True)


def fill_features(
    store: ArrayStore,
    pictures: Pictures,
    rows: pd.DataFrame,
    geometry: Geometry | None,
    encode: Callable[[Any], np.ndarray],
    *,
    batch: int,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Encode the images of these manifest rows into the store, as far as they are missing.

    Decoding goes on in threads, two batches ahead of the encoder; pixels are not kept. `encode` maps uint8
    (n, size, size, 3), n at most `batch`, to float32 (n, D); where `geometry` is None, images come at their native
    size, as a list of n arrays uint8 (H, W, 3).

    Raises:
        ValueError: as for `fill_pixels`; or a feature is not finite, and the message names the image.
        OSError: the disk is full.
    """

    def prepare(files: Files) -> tuple[Path, np.ndarray]:
        pixels = pictures.read(files)
        return files.path, pixels if geometry is None else geometry.apply(pixels)

    def compute(prepared: list[tuple[Path, np.ndarray]]) -> np.ndarray:
        pixels = [image for _, image in prepared]
        features = np.asarray(encode(pixels if geometry is None else np.stack(pixels)), dtype=np.float32)
        if features.ndim == 2 and len(features) == len(prepared):
            for row in np.flatnonzero(~np.isfinite(features).all(axis=1)):
                raise ValueError(f"the encoder gave features that are not finite for {prepared[row][0]}")
        return features

    store.fill(pictures.items(rows), compute, batch=batch, prepare=prepare, workers=workers, progress=progress)
