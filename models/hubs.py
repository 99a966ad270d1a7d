"""Published files: in the caches of Hugging Face and of torch, or downloaded. Nothing else here reaches a hub."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.detector import WeightsError
from models.weights import OTHER_WEIGHTS, file_digest

NETWORK_TIMEOUT_S = 8.0
# Below a folder of published files: what HF_HUB_CACHE, and what TORCH_HOME name there.
HUGGING_FACE, TORCH = "huggingface", "torch"
CHECKPOINTS = ("hub", "checkpoints")  # in TORCH_HOME


@dataclass(frozen=True)
class HubFile:
    """A published file: in a repository of Hugging Face, or at an address.

    Attributes:
        what: the model's name, for messages.
        repository: "owner/name" or "owner/name@revision"; "": the file is at `url`.
        names: the names that the file may have in the repository, the preferred name first.
        url: the address of a file that is in no repository.
    """

    what: str
    repository: str = ""
    names: tuple[str, ...] = ()
    url: str = ""

    def __str__(self) -> str:
        return f"{self.repository}/{self.names[0]}" if self.repository else self.url

    def cached(self, folder: Path | None = None) -> Path | None:
        """The file in this machine's own caches, or below a folder; None: it is not there. Asks no server."""
        if self.repository:
            return cached_hub_file(self.repository, self.names, cache=_below(folder, HUGGING_FACE))
        return cached_url_file(self.url, folder=_below(folder, TORCH, *CHECKPOINTS))

    def fetch(self, folder: Path | None = None) -> Path:
        """The file in these caches, downloaded if it is not there. Raises `WeightsError`."""
        if self.repository:
            return hub_file(self.repository, self.names, what=self.what, cache=_below(folder, HUGGING_FACE))
        return url_file(self.url, what=self.what, folder=_below(folder, TORCH, *CHECKPOINTS))

    def size(self) -> int | None:
        """Its bytes, as its server says; None: it does not say it. Raises `WeightsError` if there is no connection."""
        if self.repository:
            return hub_size(self.repository, self.names, what=self.what)
        return url_size(self.url, what=self.what)

    def digest(self, path: Path) -> str:
        """The SHA-256 that is published for a fetched file, or its beginning; "": none is known.

        Hugging Face's cache names a large file by it, with a link from the file's own name. On a disk without links,
        the server is asked.

        Raises:
            WeightsError: no connection.
        """
        if not self.repository:
            return published_digest(self.url)
        name = path.resolve().name
        return (
            name if _is_digest(name) else "" if path.is_symlink() else hub_digest(self.repository, path.name, self.what)
        )


def _is_digest(text: str) -> bool:
    return re.fullmatch(r"[a-f0-9]{64}", text) is not None


def _below(folder: Path | None, *parts: str) -> Path | None:
    return None if folder is None else folder.joinpath(*parts)


def cannot_fetch(what: str, why: object = "no connection?") -> WeightsError:
    """The error for weights that cannot be downloaded."""
    reason = re.sub(r"\s+", " ", str(why)).strip()[:200]
    return WeightsError(f"cannot fetch the weights of {what} ({reason}); {OTHER_WEIGHTS}")


def offline_variable() -> str:
    """The variable that forbids a network, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE; "": neither is set to 1.

    As huggingface_hub reads them: the second counts where the first is not set.
    """
    name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return name if os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") else ""


def _check_online(what: str, file: str, folder: Path | str) -> None:
    """Raise `WeightsError` in offline mode: the file is missing, and no server may be asked."""
    if variable := offline_variable():
        raise WeightsError(
            f"the weights of {what} are not on this machine, and {variable} forbids to fetch them: {file} is missing "
            f"in {folder}. Fetch them where there is a network (python launch.py fetch-weights EXPERIMENT --to DIR), "
            f"and set the two variables that this prints; or {OTHER_WEIGHTS}"
        )


def cached_hub_file(repository: str, names: Sequence[str], *, cache: Path | None = None) -> Path | None:
    """The first of `names` that lies in the cache of Hugging Face, or in another one; None: none does."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, tag = repository.rstrip("/").partition("@")
    for name in names:
        cached = try_to_load_from_cache(repository, name, revision=tag or None, **_in(cache))
        if isinstance(cached, str):
            return Path(cached)
    return None


def _in(cache: Path | None) -> dict[str, Any]:
    return {} if cache is None else {"cache_dir": cache}


def hub_file(repository: str, names: Sequence[str], *, what: str, cache: Path | None = None) -> Path:
    """The first of `names` that a Hugging Face repository has, from the local cache or downloaded.

    Without a network, huggingface_hub repeats every request for 46 s (measured). So this looks into the cache first,
    then asks the server once, with a timeout, and downloads only if the server answered. In offline mode no server is
    asked.

    Args:
        repository: "owner/name" or "owner/name@revision".
        names: file names, the preferred name first.
        what: the model's name, for the message.
        cache: a folder in the layout of Hugging Face's cache; None: this machine's own.

    Raises:
        WeightsError: no connection, no such repository, or the repository has none of the files.
    """
    if (cached := cached_hub_file(repository, names, cache=cache)) is not None:
        return cached
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    _check_online(what, f"{repository.rstrip('/')}: {' or '.join(names)}", cache or constants.HF_HUB_CACHE)
    name, _ = _published(repository, names, what)
    path, _, tag = repository.rstrip("/").partition("@")
    disable_progress_bars()  # they are written to standard error, which stays empty in a good run
    try:
        return Path(hf_hub_download(path, name, revision=tag or None, **_in(cache)))
    except Exception as error:  # network, permission, disk: the types differ between versions
        raise cannot_fetch(what, _network_reason(error)) from error


def hub_size(repository: str, names: Sequence[str], *, what: str) -> int | None:
    """Bytes of the file that `hub_file` would download, as the server says; None: it does not say it.

    Raises:
        WeightsError: as `hub_file`.
    """
    return getattr(_published(repository, names, what)[1], "size", None)


def hub_digest(repository: str, name: str, what: str) -> str:
    """The SHA-256 of a file of a Hugging Face repository, as the server says; "": it says none, as for a small file.

    Raises:
        WeightsError: as `hub_file`.
    """
    etag = str(getattr(_published(repository, [name], what)[1], "etag", None) or "")
    return etag if _is_digest(etag) else ""


def _published(repository: str, names: Sequence[str], what: str) -> tuple[str, Any]:
    """The first of `names` that the server has, and what the server says of it: `size` in bytes, `etag`."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, tag = repository.rstrip("/").partition("@")
    for name in names:
        url = hf_hub_url(repository, name, revision=tag or None)
        try:
            return name, get_hf_file_metadata(url, timeout=NETWORK_TIMEOUT_S)
        except EntryNotFoundError as error:
            if getattr(error, "response", None) is None:  # no server answered
                raise cannot_fetch(what) from error
        except Exception as error:  # network, permission, offline mode: the types differ between versions
            raise cannot_fetch(what, _network_reason(error)) from error
    raise cannot_fetch(what, f"{repository} has none of {', '.join(names)}")


def url_folder() -> Path:
    """Where torch keeps published files: `hub/checkpoints` in TORCH_HOME. Imports no torch."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(home).expanduser().joinpath(*CHECKPOINTS)


def cached_url_file(url: str, *, folder: Path | None = None) -> Path | None:
    """A published file in torch's cache, or in another folder; None: it is not there. Its content is not checked."""
    path = (folder or url_folder()) / Path(url).name
    return path if path.is_file() else None


def published_digest(url: str) -> str:
    """The SHA-256 that a file's address says, or its beginning; "": the address says none.

    It is in the file's name ("sam_vit_b_01ec64.pth"), or a part of the path (all 64 digits, as OpenAI does).
    """
    parts = url.split("/")
    whole = [part for part in parts[:-1] if re.fullmatch(r"[a-f0-9]{64}", part)]
    prefix = re.search(r"[-_]([a-f0-9]{6,})\.", parts[-1])
    return whole[-1] if whole else prefix.group(1) if prefix else ""


def url_file(url: str, *, what: str, folder: Path | None = None) -> Path:
    """A published file by its address, from torch's cache or downloaded. In offline mode no server is asked.

    The digest that the address says (`published_digest`) is checked. A download that breaks off leaves no file under
    the file's name.

    Args:
        url: the address.
        what: the model's name, for the message.
        folder: where the file lies; None: in torch's cache.

    Raises:
        WeightsError: no connection, or the content is cut off or has another digest.
    """
    path = (folder or url_folder()) / Path(url).name
    digest = published_digest(url)
    if not path.is_file():
        _check_online(what, path.name, path.parent)
        try:
            url_size(url, what=what)
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(url, path, digest)
        except (OSError, RuntimeError) as error:
            raise cannot_fetch(what, _network_reason(error)) from error
    if digest and not file_digest(path, length=64).startswith(digest):
        raise WeightsError(f"{path} is not the published file (its digest differs): delete it, then try again")
    return path


def url_size(url: str, *, what: str) -> int | None:
    """Bytes of a published file, as its server says; None: it does not say it.

    Raises:
        WeightsError: no connection.
    """
    import urllib.request

    head = urllib.request.Request(url, method="HEAD")  # noqa: S310  # only published addresses
    try:
        with urllib.request.urlopen(head, timeout=NETWORK_TIMEOUT_S) as answer:  # noqa: S310
            return int(length) if (length := answer.headers.get("Content-Length")) else None
    except (OSError, RuntimeError) as error:
        raise cannot_fetch(what, _network_reason(error)) from error


def _download(url: str, path: Path, digest: str) -> None:
    """Write a published file under a temporary name, and rename it once it is whole.

    `torch.hub.download_url_to_file` takes a connection that was closed too early for the end of the file.

    Raises:
        OSError: no connection, the content is cut off, or the disk is full.
        RuntimeError: the content has another digest.
    """
    import urllib.request

    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT_S) as source, partial.open("wb") as target:  # noqa: S310
            shutil.copyfileobj(source, target, 1 << 20)
            expected, written = source.headers.get("Content-Length"), target.tell()
        if expected and written != int(expected):
            raise OSError(f"the network connection ended after {written:,} of {int(expected):,} bytes")
        if digest and not file_digest(partial, length=64).startswith(digest):
            raise RuntimeError("the content has another hash than the published file; try again")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _network_reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    unreachable = ("not known", "resolution", "unreachable", "timed out", "timeout", "connect", "offline", "network")
    return f"no connection? {text}" if any(word in text.lower() for word in unreachable) else text
