"""Parquet and tar files that hold pictures: their records one after another, bytes unchanged."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from tarfile import open as open_tar
from typing import IO, TYPE_CHECKING, Any

from data.damage import FETCH_AGAIN, PNG_SIGNATURE
from data.sources.base import is_aside

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE, MASK, ORIGINAL = "path", "mask", "original"  # what a picture is; the names of columns of a list of images
PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".jxl", ".jp2",
)  # fmt: skip
_PARQUET = (".parquet",)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_KEYS = ("key", "__key__", "file_name", "filename", "image_name", "img_id")  # columns that name a record
_NAMES = {  # columns with pictures, in small letters
    IMAGE: ("image", "image_data", "img", "picture", "jpg", "jpeg", "png", "webp", "bytes"),
    MASK: ("mask", "gt"),
    ORIGINAL: ("original", "original_image", "source", "source_image"),
}
_SUFFIX_OF = {  # the first bytes of a file -> its suffix
    PNG_SIGNATURE: ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp", b"II*\0": ".tif", b"MM\0*": ".tif", b"GIF8": ".gif",
    b"\xff\x0a": ".jxl", b"\0\0\0\x0cJXL ": ".jxl", b"\0\0\0\x0cjP  ": ".jp2",
}  # fmt: skip
_SAME = ({".jpg", ".jpeg"}, {".tif", ".tiff"})
_SIDE = (".cls", ".json", ".txt")  # of a WebDataset: the label, further facts, the caption
_FEW = 32  # records of a Parquet file that are in memory as Python objects
_MOST_PICTURES = 8  # of one key of a WebDataset
_LEVELS, _LOOKED_AT = 5, 500  # of `first_shards`; the cache of Hugging Face has its shards in the fifth level
_LARGEST = 2**30  # bytes of one member of a tar file
_MAGIC = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


class BadShardError(Exception):
    """A shard that cannot be read.

    Attributes:
        what: the problem, without the shard's name.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy


@dataclass(frozen=True)
class Record:
    """One record of a shard.

    Attributes:
        key: the record's name in a column of its own, such as partial/sd15/fake/000651821.jpg; of a tar file, the
            member's name; "": it has none.
        name: the name that is kept with the picture's bytes; "": there is none.
        pictures: what a picture is (`IMAGE`, `MASK` or `ORIGINAL`) -> the bytes of its file.
        facts: further columns as text.
        share: how much of the shard was read, in 0 ... 1.
    """

    key: str
    pictures: Mapping[str, bytes]
    facts: Mapping[str, str] = field(default_factory=dict)
    share: float = 0.0
    name: str = ""


def find_shards(root: Path) -> list[Path]:
    """The Parquet and tar files below a folder, sorted; hidden ones and those of other programs are left aside.

    Links to files are followed, also out of the folder: the cache of Hugging Face consists of such links.
    """
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_aside(name)]
        suffixes = (*_PARQUET, *_TAR)
        found += [Path(folder, name) for name in names if name.lower().endswith(suffixes) and not is_aside(name)]
    return sorted(found)


def first_shards(root: Path) -> list[Path]:
    """As `find_shards`, by a short look: at the first names of each folder, in the first levels of folders."""
    found: list[Path] = []
    level = [root]
    for _ in range(_LEVELS):
        below = []
        for folder in level:
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in islice(entries, _LOOKED_AT):
                    if is_aside(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append(Path(entry.path))
                    elif entry.name.lower().endswith((*_PARQUET, *_TAR)):
                        found.append(Path(entry.path))
        level = below[:_LOOKED_AT]
    return sorted(found)


def columns_of(path: Path) -> list[str]:
    """The names of a Parquet file's columns.

    Raises:
        BadShardError: it cannot be read.
    """
    return list(_open_parquet(path).schema_arrow.names)


def is_tar(path: Path) -> bool:
    """Whether a file is a tar file, by its name."""
    return path.name.lower().endswith(_TAR)


def holds_pictures(path: Path) -> bool:
    """Whether a file is a sound Parquet file with a column of pictures, or a tar file."""
    if is_tar(path):
        return path.is_file()
    try:
        return bool(_pictures_of(_open_parquet(path).schema_arrow))
    except BadShardError:
        return False


def needs(path: Path) -> tuple[int, int]:
    """(bytes, files) that unpacking takes, about; of a tar file, the number of files is not known: 0.

    Raises:
        BadShardError: it cannot be read.
    """
    if is_tar(path):
        return _size(path), 0
    file = _open_parquet(path)
    metadata, columns = file.metadata, _columns(file.schema_arrow)
    num_bytes = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return num_bytes, metadata.num_rows * len(columns)


def read_shard(path: Path) -> Iterator[Record]:
    """The records of a shard. Memory stays bounded by a row group of a Parquet file, by a record of a tar file.

    Raises:
        BadShardError: it cannot be read, or a member of a tar file is a link or leaves the folder.
    """
    return _read_tar(path) if is_tar(path) else _read_parquet(path)


def suffix_of(content: bytes) -> str:
    """The suffix of a picture's file by its first bytes; ".bin" if these are not those of a picture."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    if content[4:8] == b"ftyp":
        return ".avif" if content[8:12] in (b"avif", b"avis") else ".heic"
    return next((suffix for start, suffix in _SUFFIX_OF.items() if content.startswith(start)), ".bin")


def with_suffix(name: str, content: bytes) -> str:
    """A name with the suffix that fits the bytes; a suffix that fits already stays as it is written."""
    stem = without_suffix(name)
    own, right = name[len(stem) :].lower(), suffix_of(content)
    return name if own == right or any({own, right} <= same for same in _SAME) else f"{stem}{right}"


def without_suffix(name: str) -> str:
    """A name without the suffix of a picture's file."""
    stem, dot, last = name.rpartition(".")
    return stem if stem and f"{dot}{last}".lower() in PICTURE_SUFFIXES else name


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise BadShardError(
            f"cannot be read: {error.strerror}", "check its permissions, and what it links to"
        ) from None
    if not size:
        raise BadShardError("is an empty file", FETCH_AGAIN)
    if start.startswith(b"version https://git-lfs"):
        raise BadShardError("is a Git LFS pointer, not the file itself", "run `git lfs pull` in its repository")
    return size


# Parquet --------------------------------------------------------------------------------------------------------------


def _open_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _size(path)
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadShardError(f"cannot be read: {_first_line(error)}", FETCH_AGAIN) from error


def _pictures_of(schema: pa.Schema) -> list[str]:
    """The columns that hold bytes: struct{bytes, path}, as Hugging Face writes pictures, or plain binary."""
    import pyarrow as pa

    def is_binary(kind: pa.DataType) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def holds_bytes(kind: pa.DataType) -> bool:
        if not pa.types.is_struct(kind):
            return is_binary(kind)
        return any(part.name == "bytes" and is_binary(part.type) for part in kind)

    return [column.name for column in schema if holds_bytes(column.type)]


def _columns(schema: pa.Schema) -> dict[str, str]:
    """What a picture is -> its column."""
    found = _pictures_of(schema)
    if not found:
        detail = f"there are: {', '.join(schema.names[:20]) or 'none'}"
        raise BadShardError(
            f"has no column of pictures ({detail})",
            "give the files that hold the pictures; a table beside them is a list",
        )
    columns: dict[str, str] = {}
    for name, words in _NAMES.items():
        named = [column for word in words for column in found if column.lower() == word]
        columns |= {name: named[0]} if named else {}
    others = [column for column in found if column not in columns.values()]
    if IMAGE not in columns:
        if len(others) != 1:
            raise BadShardError(
                f"has pictures in {', '.join(found)}, and none is named image", "name that column image"
            )
        columns[IMAGE] = others[0]
    return columns


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa

    file = _open_parquet(path)
    schema, metadata = file.schema_arrow, file.metadata
    columns, classes = _columns(schema), _class_names(schema)
    facts = [column.name for column in schema if column.name not in columns.values() and _is_plain(column.type)]
    key = next((name for word in _KEYS for name in facts if name.lower() == word), None)
    done = 0
    for group in range(metadata.num_row_groups):
        batches = file.iter_batches(batch_size=_FEW, row_groups=[group], columns=[*columns.values(), *facts])
        while True:
            try:
                rows = next(batches).to_pylist()
            except StopIteration:
                break
            except (pa.ArrowException, OSError, ValueError) as error:
                raise BadShardError(f"is damaged: {_first_line(error)}", FETCH_AGAIN) from error
            for row in rows:
                done += 1
                pictures, inner = {}, ""
                for name, column in columns.items():
                    content = row[column]
                    if isinstance(content, dict):
                        inner = inner or (str(content.get("path") or "") if name == IMAGE else "")
                        content = content["bytes"]
                    if content is not None:
                        pictures[name] = content
                words = {name: _text(row[name], classes.get(name)) for name in facts if row[name] is not None}
                yield Record(words.get(key or "", ""), pictures, words, done / metadata.num_rows, inner)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column holds one value per row, such as a text or a number."""
    import pyarrow as pa

    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> the names of its classes by number, as Hugging Face keeps them beside the data."""
    try:
        kept = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = kept["info"]["features"].items()
        return {
            name: list(of["names"])
            for name, of in features
            if isinstance(of, dict) and isinstance(of.get("names"), list)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _text(value: Any, classes: list[str] | None) -> str:
    if classes is not None and isinstance(value, int) and 0 <= value < len(classes):
        return str(classes[value])
    return str(value)


# Tar ------------------------------------------------------------------------------------------------------------------


def _read_tar(path: Path) -> Iterator[Record]:
    """The pictures of a tar file. Of a WebDataset, what belongs to a picture: its label, its facts, its mask."""
    size = _size(path)
    with path.open("rb") as raw:
        magic = raw.read(6)
        opener = next((opens for start, opens in _MAGIC.items() if magic.startswith(start)), None)
        if opener is None:
            raw.seek(max(0, size - 512))
            if raw.read().strip(b"\0"):
                raise BadShardError("is no tar file, or is cut off: its end mark is missing", FETCH_AGAIN)
        raw.seek(0)
        try:
            with open_tar(fileobj=raw if opener is None else opener(raw), mode="r|") as tar:  # type: ignore[operator]
                yield from _grouped(_members(tar, raw, size))
                while opener is not None and tar.fileobj is not None and tar.fileobj.read(2**20):
                    pass  # to the end of the archive, whose checksum is there
        except _BROKEN as error:
            raise BadShardError(f"is damaged: {_first_line(error)}", FETCH_AGAIN) from error


def _members(tar: tarfile.TarFile, raw: IO[bytes], size: int) -> Iterator[tuple[str, bytes, float]]:
    """(name, content, share of the archive that was read) of the pictures and of what is beside them."""
    remedy = "do not use this file; fetch it from its authors"
    for member in tar:
        if ".." in PurePosixPath(member.name).parts or member.name.startswith("/"):
            raise BadShardError(f"has a member that leaves the folder: {member.name}", remedy)
        if member.isdir():
            continue
        if not member.isreg():
            raise BadShardError(f"has a member that is a link or a device: {member.name}", remedy)
        name = PurePosixPath(member.name).as_posix()
        if Path(name).suffix.lower() not in (*PICTURE_SUFFIXES, *_SIDE) or any(map(is_aside, name.split("/"))):
            continue
        if member.size > _LARGEST:
            raise BadShardError(f"has a member of {member.size / 2**30:.1f} GiB, too large: {name}", remedy)
        content = tar.extractfile(member)
        assert content is not None, "it is a regular file"
        yield name, content.read(), raw.tell() / size


def _grouped(members: Iterator[tuple[str, bytes, float]]) -> Iterator[Record]:
    """Members as records: consecutive ones with one name up to the first point belong together, as in a WebDataset."""
    group: list[tuple[str, bytes, float]] = []
    for member in members:
        if group and (_key(group[0][0]) != _key(member[0]) or len(group) >= _MOST_PICTURES):
            yield from _records(group)
            group = []
        group.append(member)
    yield from _records(group)


def _key(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _records(group: list[tuple[str, bytes, float]]) -> Iterator[Record]:
    """One record of a picture with what belongs to it; or one record per picture, if there are several."""
    pictures = [member for member in group if Path(member[0]).suffix.lower() in PICTURE_SUFFIXES]
    masks = [member for member in pictures if any("mask" in part for part in member[0].lower().split(".")[1:-1])]
    images = [member for member in pictures if member not in masks]
    if len(images) != 1 or len(masks) > 1:
        for name, content, share in pictures:
            yield Record(name, {IMAGE: content}, share=share)
        return
    ((name, content, _),) = images
    found = {IMAGE: content} | ({MASK: masks[0][1]} if masks else {})
    facts: dict[str, str] = {}
    for side, text, _ in group:
        facts |= _side_facts(side, text)
    yield Record(name, found, facts, group[-1][2])


def _side_facts(name: str, content: bytes) -> dict[str, str]:
    suffix = Path(name).suffix.lower()
    if suffix not in _SIDE:
        return {}
    text = content.decode("utf-8-sig").strip()  # a UnicodeDecodeError is a ValueError: the shard is damaged
    if suffix != ".json":
        return {"label" if suffix == ".cls" else "text": text}
    facts = json.loads(text)
    if not isinstance(facts, dict):
        return {}
    return {str(key): str(value) for key, value in facts.items() if isinstance(value, str | int | float)}


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
