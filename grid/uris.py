"""Tracking URIs: from a local store's file to its URI and back, and what of a URI people may see."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse, urlsplit
from urllib.request import url2pathname

SQLITE = "sqlite:///"
STORE = "mlflow.db"  # the file of a local store in the folder of `--runs`


def sqlite_uri(file: Path) -> str:
    """The tracking URI of an SQLite file.

    Raises:
        ValueError: a "?" in the path: what follows it would be taken for options of SQLite.
    """
    if "?" in str(file):
        raise ValueError(
            f"the path of a local MLflow store must not contain a question mark; got {file}. Choose another folder "
            "with --runs, or name another store with MLFLOW_TRACKING_URI"
        )
    return f"{SQLITE}{file}"


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store, without options such as `?timeout=60`; None for any other store."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def absolute(uri: str) -> str:
    """The same store with an absolute path where it is a file: trials run in folders of their own."""
    file = sqlite_file(uri)
    if file is None:
        return uri
    options = uri.partition("?")[2]
    return f"{SQLITE}{file.absolute()}" + (f"?{options}" if options else "")


def tracking_uri(folder: Path) -> str:
    """The store that MLFLOW_TRACKING_URI names, else the one in a folder."""
    return absolute(os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(folder / STORE))


def local_path(uri: str) -> Path | None:
    """The path that a file URI or a plain path means; None for anything remote."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(url2pathname(parsed.path))
    return None if parsed.scheme else Path(uri)


def without_password(uri: str) -> str:
    """A tracking URI for people to read, without the user's name and password that may be in it."""
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return uri.replace(f"{user}{at}", "", 1) if at else uri
