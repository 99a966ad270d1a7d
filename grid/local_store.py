"""A local MLflow store: one SQLite file, with its artifacts in a folder. Knows SQLite and the file system alone."""

from __future__ import annotations

import ast
import os
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock

from grid.faults import locked_store
from grid.uris import local_path, sqlite_file, sqlite_uri, store_variable

ARTIFACTS = "artifacts"  # folder of a store's artifacts, beside its file
LOCK_SECONDS = 60.0  # how long to wait for another program that has locked the file


class StoreError(ValueError):
    """MLflow cannot be reached, refuses, or holds something unusable; the message says what to do."""


# The file ------------------------------------------------------------------------------------------------------------


def make_file(file: Path, fill: Callable[[str], object]) -> None:
    """Make the file of a store, which appears whole: of two launches that make it at once, the first one's stays.

    Args:
        file: not there yet.
        fill: gets the tracking URI of another file, and makes a store of it.

    Raises:
        OSError: the folder cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        fill(sqlite_uri(temporary))
        try:
            file.hardlink_to(temporary)  # unlike a rename, it never replaces a file that is there
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            with FileLock(file.with_name(f".{file.name}.lock")):  # or a rename replaces a store that appears meanwhile
                if not file.exists():
                    temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)


def check_file(file: Path) -> None:
    """Raise `StoreError` if the file is no MLflow store, or one whose tables this version of MLflow does not know."""
    elsewhere = "name another store with MLFLOW_TRACKING_URI, or with --runs of launch.py"
    try:
        # "rw" makes no file, reads one that is write-protected, and mends one whose writer was killed
        target = f"{file.resolve().as_uri()}?mode=rw"
        with closing(sqlite3.connect(target, uri=True, timeout=LOCK_SECONDS)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            whole = {"experiments", "runs", "alembic_version"} <= tables
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall() if whole else []
    except sqlite3.Error as error:
        other = f"{file} cannot be read as an MLflow store: {error}; {elsewhere}"
        raise StoreError(locked_store(error, store=str(file)) or other) from error
    if not whole:
        raise StoreError(f"{file} is an SQLite file but holds no MLflow store; {elsewhere}")
    revision = found[0][0] if found else "none"
    newest, known = _revisions()
    if revision == newest:
        return
    here = f"this is MLflow {version('mlflow')}"
    if revision in known or revision == "none":
        uri = sqlite_uri(file)
        raise StoreError(
            f"{file} was written by an older version of MLflow ({here}, and the file's tables have the version "
            f"{revision}). Copy the file, then bring its tables up to date: {store_variable(uri)} mlflow db upgrade "
            f"{uri}"
        )
    raise StoreError(
        f"{file} was written by a newer version of MLflow ({here}, and does not know the version {revision} of the "
        f"file's tables). Use the environment that wrote it, or {elsewhere}"
    )


@cache
def _revisions() -> tuple[str | None, frozenset[str]]:
    """Version of the tables that this MLflow writes, and all versions that it knows.

    They are read from the text of MLflow's migrations. Alembic would import all of these and their models, which takes
    more than a second of every command.
    """
    found = find_spec("mlflow")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "store" / "db_migrations"
    known, older = set[str](), set[str]()
    for script in (folder / "versions").glob("*.py"):
        facts = _assigned(script.read_text(encoding="utf-8"))
        if "revision" not in facts:  # no migration, such as the package's own file
            continue
        known.add(facts["revision"])
        before = facts["down_revision"] or ()
        older |= {before} if isinstance(before, str) else set(before)
    heads = known - older
    return heads.pop() if len(heads) == 1 else None, frozenset(known)


def _assigned(code: str) -> dict[str, Any]:
    """The values of `revision` and `down_revision` in the code of a migration, with or without annotations."""
    values = dict[str, Any]()
    for line in ast.parse(code).body:
        if isinstance(line, ast.Assign | ast.AnnAssign):
            target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision") and line.value is not None:
                values[target.id] = ast.literal_eval(line.value)
    return values


# Its artifacts -------------------------------------------------------------------------------------------------------


def artifact_folder(uri: str, recorded: str) -> Path | None:
    """The folder of a run's artifacts on this machine; None if a server keeps them.

    A store that was moved or copied still has the old paths. What lies beside the store's file goes before them.

    Args:
        uri: tracking URI.
        recorded: the run's artifact URI.
    """
    folder, file = local_path(recorded), sqlite_file(uri)
    if folder is None or file is None:
        return folder
    beside = _beside(file, folder)
    return beside if beside.exists() else folder


def find_moved(uri: str, experiment_id: str) -> tuple[Path, Path] | None:
    """The old and the new folder of an experiment's artifacts if a local store was moved or copied, else None.

    It was if the artifacts of a run lie beside the store's file and not (only) where the file says, or if the whole old
    folder is gone. The file records the old paths until `adopt_moved`. Changes nothing.

    Raises:
        StoreError: the file was moved without its artifacts.
    """
    file = sqlite_file(uri)
    if file is None or not file.exists():
        return None
    with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection:
        old, runs = _recorded(connection, experiment_id)
    new = file.absolute().parent / ARTIFACTS
    if old is None or old == new:
        return None
    found = any(_has_another_place(file, folder) for _, folder in runs)
    if found or (not old.exists() and new.exists()):
        return old, new
    if old.exists() or old.parent.exists():  # where somebody wants it
        return None
    if runs:
        raise StoreError(
            f"{file} was moved without its artifacts, which were in {old}. Move that folder to {new}, or back "
            f"to where it was; to begin anew, choose another store with --runs of launch.py"
        )
    return old, new


def adopt_moved(uri: str, experiment_id: str) -> tuple[Path, Path] | None:
    """Enter the new paths of an experiment's artifacts after a local store was moved: the old ones stay unwritten.

    Only for a launch that nobody can be in the way of: whoever sees the artifacts at the old paths loses them.

    Returns:
        the old and the new folder; None if nothing was moved.

    Raises:
        StoreError: the file was moved without its artifacts.
    """
    moved, file = find_moved(uri, experiment_id), sqlite_file(uri)
    if moved is None or file is None:
        return None
    old, new = moved
    with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection, connection:
        changes = [
            (_beside(file, folder).as_uri(), run_id)
            for run_id, folder in _recorded(connection, experiment_id)[1]
            if _has_another_place(file, folder) or (not old.exists() and folder.is_relative_to(old))
        ]
        connection.executemany("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", changes)
        location = (new.as_uri(), int(experiment_id))
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", location)
    return moved


def _recorded(connection: sqlite3.Connection, experiment_id: str) -> tuple[Path | None, list[tuple[str, Path]]]:
    """An experiment's local folder of artifacts, and (run id, folder) of each run that has a local one."""
    of = (int(experiment_id),)
    row = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = ?", of).fetchone()
    runs = connection.execute("SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = ?", of).fetchall()
    folders = [(run_id, folder) for run_id, recorded in runs if (folder := local_path(recorded)) is not None]
    return (local_path(row[0]) if row else None), folders


def _has_another_place(file: Path, folder: Path) -> bool:
    """Whether a run's artifacts lie beside the store's file, which is another folder than the recorded one."""
    beside = _beside(file, folder)
    return beside.exists() and not (folder.exists() and folder.samefile(beside))


def _beside(file: Path, folder: Path) -> Path:
    """Where a run's folder `<old>/<run id>/artifacts` lies if it was moved together with the store's file."""
    return file.absolute().parent / ARTIFACTS / folder.parent.name / folder.name


# Space for last words ------------------------------------------------------------------------------------------------


class Reserve:
    """A file that keeps some megabytes of a disk, so that a grid whose disk is full can still record how it ended.

    Args:
        file: made by `take`, removed by `release`; one that a killed launch left is replaced.
    """

    NUM_BYTES = 4 * 2**20

    def __init__(self, file: Path) -> None:
        self._file = file

    def take(self) -> None:
        """Raises `OSError` if the disk is full from the start."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("wb") as file:
            file.write(os.urandom(self.NUM_BYTES))  # which a file system that compresses cannot make smaller
            file.flush()
            os.fsync(file.fileno())  # some file systems find room for what is written only then

    def release(self) -> None:
        """Give the space back."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)
