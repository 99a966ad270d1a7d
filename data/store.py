"""Decoded pixels and features on disk, one row per image digest."""

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
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, reduce
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock, Timeout

from data.arrays import load_array
from data.conditions import CLEAN, Condition
from data.parallel import Pool, parallel_map
from data.pictures import ConditionError, FileError, Files, Geometry, Pictures

logger = logging.getLogger(__name__)

T = TypeVar("T")
P = TypeVar("P")
Progress = Callable[[int, int], None]

_SHARD_BYTES = 256 * 2**20
_SHARD_ROWS = 1024
_PIECES, _BATCHES = 64, 4  # the images asked for are cut into this many pieces, of at least this many batches
_SHARD, _UNFINISHED = "shard-", "unfinished-"
_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:12]  # identifies this machine in folder names
_ABANDONED = 3600  # seconds without a write after which an unfinished shard of another machine counts as abandoned
_BLOCK = 2**20
_MAPPED_BYTES = 32 * 2**20  # memory that maps may hold before their pages are released
_FAULT_BYTES = 2**16  # bytes that Linux maps around an accessed page
_FEW_THREADS = 4  # that decode pictures without waiting for the interpreter's lock, if no encoder needs it beside them
_MANY = 1000  # missing items, from which on it pays to start processes
_SPARE = 0.02  # share of a disk that copies leave free: checkpoints and Ray may be on the same disk
_DAMAGE = (OSError, ValueError, EOFError)
_CHANGED = "its content has changed since it was written"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class ArrayStore:
    """Rows of one shape and type on disk, each under the digest of an image.

    A shard is a folder `shard-<random>` with `rows.npy`, `digests.txt` (one digest per line) and `crc32.txt` (the
    CRC-32 of `rows.npy`). It appears whole, by one rename, and never changes. So readers need no lock, and a killed
    builder loses at most one shard.

    Any number of builders, on any machines that see the folder, share the work: the images asked for are cut into
    pieces, and each builder takes pieces that no other builder has claimed. A claim is a file lock, which the system
    releases when its holder dies. Where locks do not work (between nodes of some network file systems), work is done
    twice, and the rows are still right.

    Args:
        folder: created by the first `fill` or `copy_from`.
        row_shape: shape of a row.
        dtype: type of the rows.
        checked: verify a shard's checksum when a process first reads it. Otherwise reading detects only missing,
            truncated and malformed files, and copying also detects changed content.
    """

    def __init__(
        self, folder: Path, *, row_shape: tuple[int, ...], dtype: npt.DTypeLike, checked: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.row_shape = tuple(row_shape)
        self.dtype = np.dtype(dtype)
        self.checked = checked

    def missing(self, digests: Collection[str]) -> int:
        """Number of these rows that are not in the store, or in a damaged shard."""
        return int(np.count_nonzero(self._find(digests)[1][:, 0] < 0))

    def fill(
        self,
        items: Mapping[str, T],
        compute: Callable[[list[Any]], np.ndarray],
        *,
        batch: int,
        prepare: Callable[[T], Any] | None = None,
        at_once: int = 1,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Compute and store the rows that are missing. On return, all rows are stored.

        Several builders share the work if they ask for the same items in the same order, which determines the pieces.

        Args:
            items: digest -> the item from which its row is computed.
            compute: at most `batch` prepared items -> their rows, (n, *row_shape).
            batch: maximal number of items per call of `compute`.
            prepare: applied to every item first, two batches ahead of `compute`: in threads, or in processes where many
                items are missing and threads would wait for each other. Then it is pickled, and so are items and
                results.
            at_once: number of threads that call `compute`; 1: this thread calls it.
            workers: number of threads or processes for `prepare`; None: one per core.
            progress: called with (rows that this builder computed, rows that were missing) after every batch, and at
                the end with all rows done if other builders computed some.

        Raises:
            OSError: the disk is full or cannot be written; finished shards stay.
            ValueError: `compute` returned another shape, or the folder holds rows of another shape or type.
        """
        if not self.missing(items):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        sound = dict(self._shards(remove_damaged=True))
        present = set[str]().union(*sound.values())
        total, done = len(items.keys() - present), 0

        def batches(digests: list[str]) -> Generator[np.ndarray, None, None]:
            nonlocal done
            values = (items[digest] for digest in digests)
            with (
                closing(pool.map(values, ahead=2 * batch)) if pool else nullcontext(values) as prepared,
                closing(_compute_batches(compute, prepared, batch, at_once)) as computed,
            ):
                for start, rows in zip(range(0, len(digests), batch), computed, strict=True):
                    number = min(batch, len(digests) - start)
                    yield self._checked(rows, number)
                    done += number
                    if progress is not None:
                        progress(done, total)

        def build(name: str, piece: list[str]) -> None:
            new = dict(self._shards(but=sound))
            sound.update(new)
            present.update(*new.values())
            if missing := [digest for digest in piece if digest not in present]:
                with self._saying_when_full(lambda: (total - done) * self._row_bytes):
                    self._add_shard(name, missing, batches(missing))

        pieces = [piece for piece in self._pieces(list(items), batch) if not present.issuperset(piece)]
        named = {hashlib.sha256("\n".join(piece).encode()).hexdigest()[:16]: piece for piece in pieces}
        crowded = (workers or os.cpu_count() or 1) > _FEW_THREADS or at_once > 1
        processes = crowded and total >= _MANY
        with Pool(prepare, workers=workers, processes=processes) if prepare is not None else nullcontext() as pool:
            self._share(named, build)
        if done < total and progress is not None:
            progress(total, total)

    def copy_from(self, source: ArrayStore, digests: Collection[str]) -> int:
        """Copy those shards of another store that hold rows missing here.

        Several processes share the work. A copy appears whole, after its content was compared with the shard's
        checksum. A shard of the source that does not match its checksum is reported and removed there. Its rows stay
        missing until they are computed again, as do rows that the source does not have.

        Returns:
            The number of bytes of rows that this process copied.

        Raises:
            OSError: the disk is full, or too full from the start, or cannot be written; finished shards stay.
        """
        absent = [digest for digest, shard in zip(digests, self._find(digests)[1][:, 0], strict=True) if shard < 0]
        shards, index = source._find(absent)
        names = [shards[number] for number in np.unique(index[:, 0]) if number >= 0]
        rows = {name: source.folder / name / "rows.npy" for name in names}
        sizes = {name: file.stat().st_size for name, file in rows.items() if file.exists()}
        if not sizes:
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        total = left = sum(sizes.values())
        copied, started = 0, time.monotonic()
        logger.info("copying %d shards, %.1f MB, from %s to %s", len(sizes), total / 1e6, source.folder, self.folder)

        def copy(_: str, name: str) -> None:
            nonlocal left, copied
            try:
                self._read(self.folder / name)
            except _DAMAGE:
                with self._saying_when_full(lambda: left):
                    copied += sizes[name] * self._copy_shard(source.folder / name)
            left -= sizes[name]
            logger.info("%.1f of %.1f MB are there", (total - left) / 1e6, total / 1e6)

        with self._saying_when_full(lambda: left):
            disk = shutil.disk_usage(self.folder)
            if disk.free < left + _SPARE * disk.total:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._share({name.removeprefix(_SHARD): name for name in sizes}, copy)
        logger.info("copied %.1f MB in %.1f s", copied / 1e6, time.monotonic() - started)
        return copied

    def open(self, digests: Sequence[str]) -> StoredRows:
        """The rows of these digests, in this order. A digest may occur several times.

        Raises:
            KeyError: some rows are not in the store; the message says how many.
        """
        shards, index = self._find(digests)
        if missing := int(np.count_nonzero(index[:, 0] < 0)):
            raise KeyError(f"{missing} of {len(digests)} rows are not in {self.folder}; fill it first")
        numbers, index[:, 0] = np.unique(index[:, 0], return_inverse=True)
        files = [self.folder / shards[number] / "rows.npy" for number in numbers]
        return StoredRows(files, index, self.row_shape, self.dtype)

    def _find(self, digests: Collection[str]) -> tuple[list[str], np.ndarray]:
        """The names of all sound shards, and int32 (N, 2): per digest, the number of its shard and its row there.

        Both are -1 for a digest that is in no shard. Memory is needed only for the given digests, not for all digests
        of the store.
        """
        positions = {digest: number for number, digest in enumerate(digests)}
        index = np.full((len(digests), 2), -1, dtype=np.int32)
        names: list[str] = []
        for name, stored in self._shards():
            numbers = np.fromiter(map(positions.get, stored, repeat(-1)), dtype=np.int32, count=len(stored))
            rows = np.flatnonzero(numbers >= 0)
            index[numbers[rows], 0] = len(names)
            index[numbers[rows], 1] = rows
            names.append(name)
        return names, index[np.fromiter(map(positions.__getitem__, digests), dtype=np.int32, count=len(digests))]

    def _shards(self, *, but: Collection[str] = (), remove_damaged: bool = False) -> Iterator[tuple[str, list[str]]]:
        """(name, digests of its rows) of every sound shard that is not in `but`, sorted by name."""
        for shard in sorted(self.folder.glob(f"{_SHARD}*")):
            if shard.name in but:
                continue
            try:
                digests, rows = self._read(shard)
            except _DAMAGE as error:
                _report_damage(shard, error, remove=remove_damaged)
                continue
            if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
                stored, expected = f"{rows.dtype} {rows.shape[1:]}", f"{self.dtype} {self.row_shape}"
                raise ValueError(
                    f"{self.folder} holds rows of {stored}, not of {expected}; remove it or use another cache"
                )
            yield shard.name, digests

    def _read(self, shard: Path) -> tuple[list[str], np.ndarray]:
        """Digests and memory map of a shard. Raises one of `_DAMAGE` if the shard is damaged."""
        file = shard / "rows.npy"
        digests = (shard / "digests.txt").read_text(encoding="utf-8").split()
        rows = load_array(file, mmap_mode="r")
        if rows.shape[:1] != (len(digests),):
            raise ValueError(f"its shape is {rows.shape}, but there are {len(digests)} digests")
        if self.checked:
            facts = file.stat()
            if int((shard / "crc32.txt").read_text(encoding="utf-8")) != _cached_crc32(
                file, facts.st_size, facts.st_mtime_ns
            ):
                raise ValueError(_CHANGED)
        return digests, rows

    @property
    def _row_bytes(self) -> int:
        return max(1, self.dtype.itemsize * math.prod(self.row_shape))

    def _pieces(self, digests: list[str], batch: int) -> list[list[str]]:
        """Pieces that are claimed, each written as one shard. They consist of whole batches."""
        rows = max(-(-len(digests) // _PIECES), _BATCHES * batch)
        rows = min(rows, _SHARD_ROWS, _SHARD_BYTES // self._row_bytes)
        rows = max(batch, rows // batch * batch)
        return [digests[start : start + rows] for start in range(0, len(digests), rows)]

    @contextmanager
    def _claim(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Claim a piece for the block; yields whether that succeeded. With `wait`, it waits until it does."""
        locks = self.folder / ".locks"
        locks.mkdir(exist_ok=True)
        try:
            lock = FileLock(locks / name).acquire(blocking=wait)
        except Timeout:
            yield False
            return
        with lock:
            yield True

    def _share(self, pieces: Mapping[str, P], work: Callable[[str, P], None]) -> None:
        """Call `work(name, piece)` for each unclaimed piece; then wait for each claimed piece and call it for that one.

        `work` must skip what another process has finished.
        """
        self._remove_unfinished()
        for wait in (False, True):
            busy = {}
            for name, piece in pieces.items():
                with self._claim(name, wait=wait) as claimed:
                    if claimed:
                        work(name, piece)
                    else:
                        busy[name] = piece
            if busy and not wait:
                logger.info("another process is filling %d pieces of %s; waiting for it", len(busy), self.folder)
            pieces = busy
        self._remove_unfinished()  # of builders that were killed meanwhile

    @contextmanager
    def _saying_when_full(self, needed: Callable[[], int]) -> Iterator[None]:
        """Add the number of bytes needed to the error of a full disk."""
        try:
            yield
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            text = f"the disk is full: {needed() / 2**20:.0f} MiB more are needed; free them or use another folder"
            raise OSError(error.errno, text, str(self.folder)) from error

    def _remove_unfinished(self) -> None:
        """Remove unfinished shards of killed builders: nobody claims their pieces."""
        for folder in self.folder.glob(f"{_UNFINISHED}*"):
            with self._claim(folder.name.split("-")[1], wait=False) as claimed:
                # Claims of another machine may be invisible here.
                if claimed and (_HERE in folder.name or _seconds_idle(folder) > _ABANDONED):
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _new_shard(self, piece: str, name: str) -> Iterator[Path]:
        """A folder that becomes the shard `name` if the block succeeds, and is removed otherwise."""
        folder = self.folder / f"{_UNFINISHED}{piece}-{_HERE}-{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True)
            yield folder
            shutil.rmtree(self.folder / name, ignore_errors=True)  # a damaged shard of this name
            folder.rename(self.folder / name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _add_shard(self, piece: str, digests: list[str], batches: Generator[np.ndarray, None, None]) -> None:
        """Write the rows of a claimed piece as a new shard."""

        def blocks() -> Iterator[bytes]:
            header = io.BytesIO()
            shape = (len(digests), *self.row_shape)
            facts = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, facts)
            yield header.getvalue()
            for rows in batches:
                yield rows.tobytes()

        with closing(batches), self._new_shard(piece, f"{_SHARD}{uuid.uuid4().hex}") as folder:
            (folder / "digests.txt").write_text("\n".join(digests) + "\n", encoding="utf-8")
            (folder / "crc32.txt").write_text(str(_write(folder / "rows.npy", blocks())), encoding="utf-8")

    def _copy_shard(self, shard: Path) -> bool:
        """Copy a claimed shard of another store. Returns False if it is damaged or gone; then it is removed."""
        try:
            with self._new_shard(shard.name.removeprefix(_SHARD), shard.name) as folder:
                expected = int((shard / "crc32.txt").read_text(encoding="utf-8"))
                shutil.copyfile(shard / "digests.txt", folder / "digests.txt")
                checksum = _write(folder / "rows.npy", _blocks(shard / "rows.npy"))
                if checksum != expected:
                    if _crc32(shard / "rows.npy") == expected:  # sound, but this node misread it: keep it for others
                        raise OSError(errno.EIO, "reading it twice gives different content", str(shard))
                    raise ValueError(_CHANGED)
                if _crc32(folder / "rows.npy") != checksum:
                    raise OSError(
                        errno.EIO, "its content is read back differently than it was written", str(self.folder)
                    )
                (folder / "crc32.txt").write_text(str(checksum), encoding="utf-8")
        except (FileNotFoundError, ValueError) as error:
            _report_damage(shard, error, remove=True)
            return False
        return True

    def _checked(self, rows: np.ndarray, count: int) -> np.ndarray:
        rows = np.asarray(rows)
        if rows.shape != (count, *self.row_shape) or rows.dtype != self.dtype:
            expected = f"{self.dtype} {(count, *self.row_shape)}"
            raise ValueError(f"expected rows of {expected}, got {rows.dtype} {rows.shape}")
        return rows


def _report_damage(shard: Path, error: Exception, *, remove: bool) -> None:
    logger.warning("%s is damaged and will be made again (%s)", shard, error)
    if remove:
        shutil.rmtree(shard, ignore_errors=True)  # another process may be removing it too


def _seconds_idle(folder: Path) -> float:
    """Seconds since something in the folder was written; infinite if the folder is gone."""
    with suppress(OSError):
        return time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return math.inf


def _write(path: Path, blocks: Iterable[bytes]) -> int:
    """Write a file and return its CRC-32.

    It uses plain writes, not a memory map: on a full disk a write raises an error, but a map kills the process.
    """
    checksum = 0
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
            checksum = zlib.crc32(block, checksum)
        file.flush()
        os.fsync(file.fileno())  # else a power cut could leave a shard without its rows
    return checksum


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _crc32(path: Path) -> int:
    return reduce(lambda checksum, block: zlib.crc32(block, checksum), _blocks(path), 0)


@cache
def _cached_crc32(path: Path, size: int, modified_ns: int) -> int:
    """CRC-32 of a file, which each process reads once as long as size and time stay the same."""
    return _crc32(path)


class StoredRows:
    """Rows of a store in a chosen order, read from disk when they are accessed. Cheap to pickle.

    Attributes:
        shape: (N, *row_shape).
        dtype: type of the rows.
    """

    def __init__(self, files: list[Path], index: np.ndarray, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """`index` is int32 (N, 2): the number of the file in `files`, and the row in that file."""
        self.shape = (len(index), *row_shape)
        self.dtype = dtype
        self._files, self._index = files, index
        self._maps: dict[int, np.memmap[Any, Any]] = {}
        self._resident = 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """A copy of the rows at a slice, index array or boolean mask, in its order; of one row for an int."""
        chosen = self._index[index]
        if chosen.ndim == 1:
            return np.array(self._map(int(chosen[0]))[chosen[1]])
        rows = np.empty((len(chosen), *self.shape[1:]), dtype=self.dtype)
        for number in np.unique(chosen[:, 0]):
            positions = np.flatnonzero(chosen[:, 0] == number)
            rows[positions] = self._map(int(number))[chosen[positions, 1]]
        self._resident += max(rows.nbytes, len(rows) * _FAULT_BYTES)
        if self._resident > _MAPPED_BYTES:
            self._release()
        return rows

    def _release(self) -> None:
        """Release this process' memory of the maps. The pages stay in the system's cache, for all processes."""
        for rows in self._maps.values():
            if isinstance(rows.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                rows.base.madvise(mmap.MADV_DONTNEED)
        self._resident = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}, "_resident": 0}

    def _map(self, number: int) -> np.memmap[Any, Any]:
        if number not in self._maps:
            self._maps[number] = cast("np.memmap[Any, Any]", load_array(self._files[number], mmap_mode="r"))
        return self._maps[number]


def _compute_batches(
    compute: Callable[[list[Any]], np.ndarray], items: Iterator[Any], batch: int, at_once: int
) -> Generator[np.ndarray, None, None]:
    """Apply `compute` to batches of the items, in order."""
    batches = iter(lambda: list(islice(items, batch)), [])
    if at_once == 1:
        yield from map(compute, batches)
    else:
        yield from parallel_map(compute, batches, workers=at_once, ahead=at_once)


class _Prepared(NamedTuple):
    path: Path
    width: int  # of the picture before the geometry
    height: int
    pixels: np.ndarray


@dataclass(frozen=True)
class _Prepare:
    """Reads a picture and brings it to the size that is wanted, in this process or in another one."""

    pictures: Pictures
    geometry: Geometry | None

    def __call__(self, files: Files) -> _Prepared:
        pixels = self.pictures.read(files)
        height, width, _ = pixels.shape
        return _Prepared(files.path, width, height, pixels if self.geometry is None else self.geometry.apply(pixels))


def pixel_store(cache: Path, geometry: Geometry) -> ArrayStore:
    """The store of pixels with this geometry: uint8 rows (size, size, 3).

    Reading does not verify checksums: reading gigabytes only for that would cost a trial more than a wrong pixel.
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
    """Decode and transform those images of these manifest rows that the store lacks.

    Raises:
        ValueError: a file cannot be read or has changed since the manifest was built; the message names the file.
        OSError: the disk is full.
    """

    def stacked(prepared: list[_Prepared]) -> np.ndarray:
        return np.stack([one.pixels for one in prepared])

    prepare = _Prepare(pictures, geometry)
    store.fill(pictures.items(rows), stacked, batch=32, prepare=prepare, workers=workers, progress=progress)


def feature_store(cache: Path, key: str, num_features: int, condition: Condition | None = None) -> ArrayStore:
    """The store of an encoder's features: float32 rows (num_features,), with verified checksums.

    Args:
        cache: the grid's cache.
        key: the encoder's key.
        num_features: D.
        condition: condition of the encoded pictures; None: clean.
    """
    if not key or len(key) > 150 or "/" in key or "\\" in key or key.startswith("."):
        raise ValueError(f"an encoder's key must be a folder name of at most 150 characters, got {key!r}")
    cache = Path(cache)
    base = cache if condition is None or condition.name == CLEAN else cache / "conditions" / condition.name
    return ArrayStore(base / "features" / key, row_shape=(num_features,), dtype=np.float32, checked=True)


def fill_features(
    store: ArrayStore,
    pictures: Pictures,
    rows: pd.DataFrame,
    geometry: Geometry | None,
    encode: Callable[[Any], np.ndarray],
    *,
    batch: int,
    at_once: int = 1,
    workers: int | None = None,
    size_check: Callable[[int, int], str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Encode those images of these manifest rows that the store lacks.

    Pictures are decoded up to two batches ahead of the encoder; pixels are not stored. `encode` maps uint8
    (n, size, size, 3), n at most `batch`, to float32 (n, D). If `geometry` is None, images have their native size, and
    `encode` gets a list of n arrays uint8 (H, W, 3). It is called by `at_once` threads. `size_check` is that of
    `data.manifest.build_manifest`, for a condition that gives pictures of another size.

    Raises:
        ValueError: as for `fill_pixels`; or a feature is not finite, and the message names the image.
        ConditionError, FileError: a picture has a size that cannot be used, under the condition or by itself.
        OSError: the disk is full.
    """

    def compute(prepared: list[_Prepared]) -> np.ndarray:
        for one in prepared:
            if size_check is not None and (problem := size_check(one.width, one.height)):
                name = pictures.condition.name
                kind = FileError if name == CLEAN else ConditionError
                raise kind(f"{one.path} has {one.width} x {one.height} pixels under the condition {name}: {problem}")
        pixels = [one.pixels for one in prepared]
        features = np.asarray(encode(pixels if geometry is None else np.stack(pixels)), dtype=np.float32)
        if features.ndim == 2 and len(features) == len(prepared):
            for row in np.flatnonzero(~np.isfinite(features).all(axis=1)):
                raise ValueError(f"the encoder gave features that are not finite for {prepared[row].path}")
        return features

    store.fill(
        pictures.items(rows),
        compute,
        batch=batch,
        prepare=_Prepare(pictures, geometry),
        at_once=at_once,
        workers=workers,
        progress=progress,
    )
