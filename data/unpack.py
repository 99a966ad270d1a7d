"""A corpus in Parquet or tar shards: its pictures become files, once, in the cache, bytes unchanged."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from data.shards import IMAGE, BadShardError, Record, find_shards, needs, read_shard, with_suffix, without_suffix
from data.sources._tree import SPLIT_NAMES
from data.sources.base import is_aside

logger = logging.getLogger(__name__)

LIST = "list.parquet"
NAMED = "_in_shard"  # end of a shard's column that has the name of one of the list's own columns
_PARTS = ".unpacked"  # what each shard gave; hidden, so that no corpus takes it for data
_PARTIAL = ".unpacking-"
_VERSION = "2"  # increase it when other files, names or columns come of a shard than before
_OWN = (IMAGE, "mask", "original", "key", "shard", "part")
_PART = re.compile(r"-\d+-of-\d+(-[0-9a-f]{16})?$")  # older files of Hugging Face end with a hash
_NUMBER = re.compile(r"[-_]?\d+$")  # of a shard of a WebDataset, such as train-000012.tar
_HASH = re.compile(r"-[0-9a-f]{12}$")
_LONGEST = 180  # bytes of a name; file systems take 255, and a suffix follows
_BLOCK = 2048  # bytes that a file takes beyond its content, on average


class UnpackError(RuntimeError):
    """Shards cannot be unpacked; the message says why and what to do."""


@dataclass
class _Unpacked:
    """What came of one shard.

    Attributes:
        rows: one per record: the columns of a list of images.
        num_files, num_bytes: files that were written, and their size.
        files, stems, folders: names in use, composed and in small letters; of files, without their suffix, and of the
            folders above them.
    """

    rows: list[dict[str, str]] = field(default_factory=list)
    num_files: int = 0
    num_bytes: int = 0
    files: set[str] = field(default_factory=set)
    stems: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)


def unpacked_folder(root: Path, corpora: Path) -> Path:
    """The folder into which `unpack` unpacks the shards of `root`: `corpora`/<name>-<hash of the path>."""
    real = Path(os.path.realpath(root))
    name = re.sub(r"[^\w.-]", "_", _HASH.sub("", real.name), flags=re.ASCII).lstrip(".")
    return corpora / f"{name or 'corpus'}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:12]}"


def unpack(root: Path, corpora: Path, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Unpack the Parquet and tar files below `root`, and return the folder with the pictures and their list.

    A shard that is unpacked already is not opened again, so an interrupted call continues with the shard where it
    stopped. Each shard's files appear as a whole. A shard of another size or time is unpacked again; that is logged as
    a warning. A second call for the same folder waits for the first.

    The list, `LIST`, has a row per record: path, mask and original (files, relative to the list), key, shard (relative
    to `root`), part (the shard's name without its number), split where the shard names one, and the shard's other
    columns as text. Names of files come from the keys, or are the SHA-256 of the bytes where a key is missing, repeated
    or no good name. A suffix follows from the first bytes.

    Args:
        root: a folder; see `data.shards.find_shards`.
        corpora: parent of the folder; see `unpacked_folder`.
        progress: called with (MiB of shards done, MiB to do).

    Raises:
        UnpackError: a shard is broken, there is too little space, or there is no shard.
        OSError: the disk is full or cannot be written.
    """
    shards = {path.relative_to(root).as_posix(): path for path in find_shards(root)}
    if not shards:
        raise UnpackError(f"{root} holds no Parquet or tar file; give the folder that holds the shards")
    folder = unpacked_folder(root, corpora)
    (folder / _PARTS).mkdir(parents=True, exist_ok=True)
    places = _places(shards)
    with FileLock(f"{folder}.lock"):
        _remove_partial({folder, folder / _PARTS, *((folder / place).parent for place in places.values())})
        pending = [name for name in shards if not _is_unpacked(folder, places[name], name, shards[name])]
        _check_space(folder, {name: shards[name] for name in pending})
        total = sum(shards[name].stat().st_size for name in pending)
        done = 0
        for name in pending:
            size = shards[name].stat().st_size
            seen = _seen(progress, done, size, total)
            try:
                _unpack_one(shards[name], name, folder, places[name], seen)
            except BadShardError as error:
                raise UnpackError(_refusal(name, error, root)) from error
            done += size
            seen(0.0 if name != pending[-1] else 1.0)
        _write_list(folder, [places[name] for name in shards], fresh=bool(pending))
    return folder


def _remove_partial(folders: set[Path]) -> None:
    """Remove what a killed call left behind."""
    for folder in folders:
        for left in folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _refusal(name: str, error: BadShardError, root: Path) -> str:
    kept = "shards that are unpacked stay; then the same command goes on"
    return f"the shard {name} in {root} {error.what}: {error.remedy}; {kept}"


def _seen(progress: Callable[[int, int], None] | None, before: int, size: int, total: int) -> Callable[[float], None]:
    """A function that takes the share of a shard that is done."""

    def seen(share: float) -> None:
        if progress is not None:
            whole = max(1, round(total / 2**20))
            progress(min(whole, round((before + share * size) / total * whole)), whole)

    return seen


def _places(shards: Mapping[str, Path]) -> dict[str, str]:
    """Shard -> the folder of its files: the shard's path without its suffix, if no other shard has the same."""
    stem = {name: str(PurePosixPath(name).parent / PurePosixPath(name).name.partition(".")[0]) for name in shards}
    counts = Counter(map(_folded, stem.values()))
    return {name: stem[name] if counts[_folded(stem[name])] == 1 else name.replace(".", "-") for name in shards}


def _folded(name: str) -> str:
    """A name as file systems compare it that know neither capitals nor ways to write an accent."""
    return unicodedata.normalize("NFC", name).casefold()


def _check_space(folder: Path, pending: Mapping[str, Path]) -> None:
    """Refuse to begin where the disk cannot take it all."""
    num_bytes = num_files = 0
    for name, path in pending.items():
        try:
            size, files = needs(path)
        except BadShardError as error:
            raise UnpackError(_refusal(name, error, path.parents[len(PurePosixPath(name).parts) - 1])) from error
        num_bytes, num_files = num_bytes + size + files * _BLOCK, num_files + files
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise UnpackError(
            f"unpacking {len(pending)} shards needs about {num_bytes / 1e9:.1f} GB below {folder}, where "
            f"{free / 1e9:.1f} GB are free: make space, or name a folder on another disk: --cache DIR"
        )
    facts = os.statvfs(folder)
    if facts.f_files and num_files > facts.f_favail:
        raise UnpackError(
            f"unpacking {len(pending)} shards makes {num_files} files, and the disk of {folder} can take "
            f"{facts.f_favail} more: remove files, or name a folder on another disk: --cache DIR"
        )


# One shard ------------------------------------------------------------------------------------------------------------


def _unpack_one(shard: Path, name: str, folder: Path, place: str, seen: Callable[[float], None]) -> None:
    """Unpack one shard: its files into `folder`/`place`, and its rows into a file of its own."""
    before = _stamp(shard, name)
    target = folder / place
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part_file(folder, place)
    if part.exists():
        logger.warning("%s has changed since it was unpacked, or files of it are gone; it is unpacked again", name)
    partial = target.parent / f"{_PARTIAL}{uuid.uuid4().hex}"
    found, last = _Unpacked(), 0.0
    try:
        partial.mkdir()
        for record in read_shard(shard):
            found.rows.append(_row(record, name, place, partial, found))
            if record.share - last > 0.01:
                last = record.share
                seen(last)
        if not found.num_files:
            raise BadShardError("has no pictures", "take it out of the folder")
        if _stamp(shard, name) != before:
            raise BadShardError("changed while it was read", "wait until it is complete")
        part.unlink(missing_ok=True)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _write_table(part, found.rows, before | {"files": str(found.num_files), "bytes": str(found.num_bytes)})


def _row(record: Record, shard: str, place: str, partial: Path, found: _Unpacked) -> dict[str, str]:
    """Write the pictures of a record; its row of the list. A record without an image has a row without a path."""
    own = {"key": record.key} if record.key else {}
    own |= {"shard": shard, "part": _PART.sub("", PurePosixPath(shard).name.partition(".")[0])}
    row = {name if name not in _OWN else f"{name}{NAMED}": value for name, value in record.facts.items()}
    row.pop(f"key{NAMED}", None)
    split = _NUMBER.sub("", own["part"]).lower()
    if split in SPLIT_NAMES:
        row.setdefault("split", split)
    base = _base(record.key or record.name)
    for name, content in record.pictures.items():
        file = _free_name(base, content, "image" if name == IMAGE else name, found)
        path = partial / file
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            found.num_files += 1
            found.num_bytes += len(content)
        own[name] = f"{place}/{file}"
    return row | own


def _base(key: str) -> str:
    """A key as the path of a file; "" if it is none that every file system takes."""
    text = unicodedata.normalize("NFC", key.strip().replace("\\", "/"))
    parts = text.split("/")
    bad = any(not part or is_aside(part) or part != part.strip() or part.endswith(".") for part in parts)
    if bad or not text.isprintable() or re.search(r'[<>:"|?*]', text):
        return ""
    return "" if any(len(part.encode()) > _LONGEST for part in parts) or len(text.encode()) > 4 * _LONGEST else text


def _free_name(base: str, content: bytes, column: str, found: _Unpacked) -> str:
    """The name of a picture's file: by the key if no other picture has that name, else by the bytes."""
    if base:
        file = f"{column}/{with_suffix(base, content)}"
        small, stem = _folded(file), _folded(f"{column}/{without_suffix(base)}")  # one stem means one photograph
        above = {str(parent) for parent in PurePosixPath(small).parents}
        if small not in found.folders and stem not in found.stems and above.isdisjoint(found.files):
            found.files.add(small)
            found.stems.add(stem)
            found.folders |= above
            return file
    digest = hashlib.sha256(content).hexdigest()
    return f"{column}/{with_suffix(digest, content)}"


# What is kept ---------------------------------------------------------------------------------------------------------


def _stamp(shard: Path, name: str) -> dict[str, str]:
    """What tells whether a shard is the one that was unpacked."""
    facts = shard.stat()
    return {"shard": name, "size": str(facts.st_size), "mtime_ns": str(facts.st_mtime_ns), "version": _VERSION}


def _part_file(folder: Path, place: str) -> Path:
    return folder / _PARTS / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.parquet"


def _is_unpacked(folder: Path, place: str, name: str, shard: Path) -> bool:
    """Whether all files of a shard are there, in their sizes, and the shard is the same as then."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        kept = pq.read_schema(_part_file(folder, place)).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    facts = {key.decode(): value.decode() for key, value in kept.items()}
    if any(facts.get(key) != value for key, value in _stamp(shard, name).items()):
        return False
    walk = os.walk(folder / place)
    sizes = [Path(above, name).lstat().st_size for above, _, names in walk for name in names]
    return [str(len(sizes)), str(sum(sizes))] == [facts["files"], facts.get("bytes")]


def _write_list(folder: Path, places: list[str], *, fresh: bool) -> None:
    """Write the list of all shards, if anything in it is new."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from data.kept import replacing

    file = folder / LIST
    parts = [_part_file(folder, place) for place in places]
    known = {path.name for path in parts}
    gone = [path for path in (folder / _PARTS).glob("*.parquet") if path.name not in known]
    if gone:
        names = [(pq.read_schema(path).metadata or {}).get(b"shard", b"?").decode() for path in gone]
        logger.warning("unpacked before, and not there now, so not in the list: %s", ", ".join(sorted(names)[:5]))
    wanted = hashlib.sha256("\n".join(path.name for path in parts).encode()).hexdigest()
    if not fresh and file.is_file() and _kept(file).get(b"parts") == wanted.encode():
        return
    tables = [pq.read_table(path).replace_schema_metadata() for path in parts]
    table = pa.concat_tables(tables, promote_options="default").replace_schema_metadata({"parts": wanted})
    with replacing(file, begins=_PARTIAL) as temporary:
        pq.write_table(table, temporary)


def _kept(file: Path) -> dict[bytes, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return dict(pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowException):
        return {}


def _write_table(file: Path, rows: list[dict[str, str]], facts: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from data.kept import replacing

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, Any] = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    with replacing(file, begins=_PARTIAL) as temporary:
        pq.write_table(pa.table(columns).replace_schema_metadata(dict(facts)), temporary)
