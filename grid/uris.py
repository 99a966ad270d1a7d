"""Tracking URIs: from the file of a local store to its URI and back; URIs without passwords."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from urllib.parse import unquote, urlparse

from data.addresses import without_passwords

SQLITE = "sqlite:///"
STORE = "mlflow.db"  # name of a local store's file in the folder of `--runs`


def sqlite_uri(file: Path) -> str:
    """The tracking URI of an SQLite file.

    Raises:
        ValueError: the path has a "?"; SQLite would read the rest as options.
    """
    if "?" in str(file):
        raise ValueError(
            f"the path of a local MLflow store must not contain a question mark; got {file}. Choose another folder "
            "with --runs, or name another store with MLFLOW_TRACKING_URI"
        )
    return f"{SQLITE}{str(file).replace('%', '%25')}"  # SQLAlchemy reads %25 as %


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store, without options such as `?timeout=60`; None for any other kind of store."""
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0])) if uri.startswith(SQLITE) else None


def tracking_uri(folder: Path) -> str:
    """The store that MLFLOW_TRACKING_URI names, else the SQLite store in `folder`.

    The path of an SQLite file becomes absolute, because each trial runs in its own folder.

    Raises:
        ValueError: an SQLite store in memory, which other processes cannot see, or with a driver's name.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(folder / STORE)
    path, mark, options = uri.removeprefix(SQLITE).partition("?")
    if uri.startswith("sqlite") and (not uri.startswith(SQLITE) or path in ("", ":memory:")):
        raise ValueError(f"MLFLOW_TRACKING_URI must name a file, as sqlite:///PATH/mlflow.db, or a server; got {uri}")
    return f"{SQLITE}{Path(path).absolute()}{mark}{options}" if uri.startswith(SQLITE) else uri


def local_path(uri: str) -> Path | None:
    """The path of a file URI or a plain path; None for a remote URI."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        from urllib.request import url2pathname  # with http and ssl, which `--help` does without

        return Path(url2pathname(parsed.path))
    return None if parsed.scheme else Path(uri)


def store_variable(uri: str) -> str:
    """The variable that leads a command to the store, without a password."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(without_passwords(uri))}"
