"""A corpus in a bucket: copied once into a local folder."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from data.addresses import without_passwords
from data.parallel import parallel_map

logger = logging.getLogger(__name__)

_THREADS = 16  # more than cores: they wait for the network
_PARTIAL = ".fetching-"
_PARTIAL_SECONDS = 3600.0  # a partial file without a write for this long is left from a killed call


class FetchError(RuntimeError):
    """A bucket cannot be read; the message says what to do."""


def local_folder(url: str, corpora: Path) -> Path:
    """The folder into which `fetch` copies `url`: `corpora`/<name>-<hash>. Credentials in `url` do not change it."""
    address, _, options = without_passwords(url).partition("?")
    address = address.rstrip("/")
    name = re.sub(r"[^\w.-]", "_", address.rpartition("/")[2], flags=re.ASCII).lstrip(".")
    return Path(corpora) / f"{name}-{hashlib.sha256(f'{address}?{options}'.encode()).hexdigest()[:12]}"


def fetch(url: str, corpora: Path, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Make a local copy of the folder at `url`, and return it.

    A file with the right size and time is not fetched again, so an interrupted call continues where it stopped. Each
    file appears whole. Files that are no longer in the bucket are removed, and their number is logged as a warning. A
    second call for the same folder waits for the first.

    Args:
        url: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or another address that `pyarrow.fs.FileSystem.from_uri` accepts.
        corpora: parent of the local folder; see `local_folder`.
        progress: called with (files fetched, files to fetch), from this thread.

    Raises:
        FetchError: the bucket cannot be read or holds no files.
        OSError: the local disk is full or cannot be written.
    """
    filesystem, listing = _listing(url)
    logger.info("%d files at %s", len(listing), without_passwords(url))
    folder = local_folder(url, corpora)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        _remove_others(folder, listing, url)
        missing = [name for name, info in listing.items() if not _is_fetched(folder / name, info)]
        results = parallel_map(
            lambda name: _get(filesystem, listing[name], folder / name), missing, workers=_THREADS, ahead=4 * _THREADS
        )
        try:
            with closing(results):
                for number, _ in enumerate(results, 1):
                    if progress is not None:
                        progress(number, len(missing))
        except _Unreadable as error:
            text = f"{error}\n{_remedy(url)}; the same command continues with the missing files"
            raise FetchError(text) from error
    return folder


class _Unreadable(Exception):
    """A file of the bucket cannot be read. (Errors of the local disk are plain `OSError`s.)"""


def _remedy(url: str) -> str:
    scheme = url.partition("://")[0]
    credentials = {
        "s3": "credentials where AWS' own tools look for them (AWS_PROFILE, AWS_ACCESS_KEY_ID, the machine's role), "
        "AWS_DEFAULT_REGION, AWS_ENDPOINT_URL for a server other than Amazon's",
        "gs": "credentials (GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, the machine's "
        "account; gs://anonymous@BUCKET for a public one)",
        "file": "whether the folder can be read",
    }
    return f"check the address and {credentials.get(scheme, 'the credentials')}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _listing(url: str) -> tuple[Any, dict[str, Any]]:
    """The file system, and its files below `url`: relative path -> pyarrow's `FileInfo`."""
    from pyarrow.fs import FileSelector, FileSystem, FileType

    try:
        filesystem, base = FileSystem.from_uri(url)
        infos = filesystem.get_file_info(FileSelector(base, recursive=True))
    except (OSError, ValueError) as error:  # pyarrow's errors are among these
        if without_passwords(url) == url:
            raise FetchError(f"cannot read {url}: {_first_line(error)}\n{_remedy(url)}") from error
        # pyarrow's message may hold the secret, as in the address or decoded.
        text = f"cannot read {without_passwords(url)} ({type(error).__name__})"
        encode = "a secret's / and + must be encoded (%2F, %2B)"
        raise FetchError(f"{text}; {encode}\n{_remedy(url)}") from None
    files = {PurePosixPath(info.path).relative_to(base): info for info in infos if info.type == FileType.File}
    if not files:
        raise FetchError(
            f"there are no files at {without_passwords(url)}; give the folder of the bucket that holds the corpus"
        )
    odd = [str(name) for name in files if ".." in name.parts or name.name.startswith(_PARTIAL)]
    folders = {folder for name in files for folder in name.parents}
    odd += [f"{name} (also a folder)" for name in files if name in folders]
    if odd:
        raise FetchError(
            f"{without_passwords(url)} has files that cannot be fetched, rename them: {', '.join(odd[:5])}"
        )
    return filesystem, {str(name): info for name, info in sorted(files.items())}


def _is_fetched(path: Path, info: Any) -> bool:
    """Whether the local file has the size and time of the bucket's file; times to the second, as buckets give them."""
    try:
        local = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    same_time = info.mtime_ns is None or local.st_mtime_ns // 10**9 == info.mtime_ns // 10**9
    return local.st_size == info.size and same_time


def _remove_others(folder: Path, listing: dict[str, Any], url: str) -> None:
    """Remove files of killed calls and files that are no longer in the bucket, and then empty folders."""
    gone = 0
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder comes after its files
        partial = path.name.startswith(_PARTIAL)
        if path.is_dir():
            with suppress(OSError):  # the folder is not empty
                path.rmdir()
        elif partial and time.time() - path.stat().st_mtime < _PARTIAL_SECONDS:
            continue  # another machine may be writing it, where locks do not work between machines
        elif path.relative_to(folder).as_posix() not in listing:
            path.unlink()
            gone += not partial
    if gone:
        logger.warning("%d files have gone from %s and were removed from %s", gone, without_passwords(url), folder)


def _blocks(filesystem: Any, path: str) -> Iterator[bytes]:
    try:
        with filesystem.open_input_stream(path) as stream:
            while block := stream.read(2**20):
                yield block
    except (OSError, ValueError) as error:
        raise _Unreadable(f"cannot read {path}: {_first_line(error)}") from error


def _get(filesystem: Any, info: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
    try:
        with partial.open("wb") as file:
            for block in _blocks(filesystem, info.path):
                file.write(block)
        if (size := partial.stat().st_size) != info.size:
            raise _Unreadable(f"{info.path} has {info.size} bytes, but {size} came")
        if info.mtime_ns is not None:
            os.utime(partial, ns=(info.mtime_ns, info.mtime_ns))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
