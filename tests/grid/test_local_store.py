"""A local store: made whole, of the right version, moved, locked."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from alembic.script import ScriptDirectory
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

import launch
from analysis.store import open_store
from grid import local_store, names, records, tracking
from grid.local_store import ARTIFACTS, Reserve, _assigned, _revisions, check_file, make_file
from grid.records import StoreError, open_records
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import make_spec, open_grid, paper_manifest

pytestmark = pytest.mark.usefixtures("nothing_from_outside")
ARGUMENTS = ("--methods", "residual_linear", "--tasks", "attribution")
MORE = ("--methods", "residual_linear", "--tasks", "attribution,detection")


def file_of(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///"))


# Made by several launches at once ------------------------------------------------------------------------------------


def test_of_several_that_make_a_store_at_once_the_first_stays_and_it_is_never_seen_half_made(tmp_path: Path) -> None:
    file, start = tmp_path / "runs" / "mlflow.db", threading.Barrier(3)
    seen: list[list[str]] = []

    def fill(uri: str) -> None:
        with closing(sqlite3.connect(file_of(uri))) as connection, connection:
            connection.execute("CREATE TABLE one (name TEXT)")
            seen.append([path.name for path in file.parent.iterdir() if not path.name.startswith(".")])
            start.wait(timeout=60)
            connection.execute("INSERT INTO one VALUES (?)", [uri])

    threads = [threading.Thread(target=make_file, args=(file, fill)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[], [], []]
    assert [path.name for path in file.parent.iterdir()] == ["mlflow.db"]
    with closing(sqlite3.connect(file)) as connection:
        assert len(connection.execute("SELECT name FROM one").fetchall()) == 1


def test_a_store_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"

    def fill(uri: str) -> None:
        file_of(uri).write_text("mine")
        file.write_text("theirs")  # another launch was quicker

    make_file(file, fill)
    assert file.read_text() == "theirs"


def test_where_there_are_no_hard_links_a_store_is_made_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    make_file(tmp_path / "mlflow.db", lambda uri: file_of(uri).write_text("mine"))
    assert (tmp_path / "mlflow.db").read_text() == "mine"


def test_where_there_are_no_hard_links_the_first_store_stays_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second launch is about to take the name just when the first one takes it."""
    file, others = tmp_path / "mlflow.db", list[threading.Thread]()
    renamed, rename = list[str](), os.rename

    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    def renaming(source: Path, target: Path) -> None:
        renamed.append(Path(source).read_text())
        if not others:
            others.append(threading.Thread(target=make_file, args=(file, lambda uri: file_of(uri).write_text("late"))))
            others[0].start()
            others[0].join(timeout=0.3)  # it waits for this one
        rename(source, target)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "rename", renaming)
    make_file(file, lambda uri: file_of(uri).write_text("first"))
    others[0].join(timeout=60)
    assert renamed == ["first"]
    assert file.read_text() == "first"


# Its version ---------------------------------------------------------------------------------------------------------


def with_version(uri: str, version: str) -> None:
    with closing(sqlite3.connect(file_of(uri))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [version])


def test_a_store_of_a_newer_mlflow_is_told_from_one_of_an_older(store: str) -> None:
    check_file(file_of(store))
    with_version(store, "ffffffffffff")
    with pytest.raises(StoreError, match="was written by a newer version of MLflow") as caught:
        open_records(store, "dolos")
    assert "upgrade" not in str(caught.value)
    with_version(store, "451aebb31d03")  # of MLflow 1.0
    with pytest.raises(StoreError, match="was written by an older version of MLflow") as caught:
        open_records(store, "dolos")
    assert f"MLFLOW_TRACKING_URI={store} mlflow db upgrade {store}" in str(caught.value)
    with closing(sqlite3.connect(file_of(store))) as connection:  # and nobody has changed it
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("451aebb31d03",)]


def test_a_file_that_is_no_store_is_not_asked_whether_a_server_runs(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"")
    with pytest.raises(StoreError, match="holds no MLflow store") as caught:
        open_records(f"sqlite:///{tmp_path / 'mlflow.db'}", "dolos")
    assert "server" not in str(caught.value)


# Locked --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(store: str, tmp_path: Path) -> Callable[[], sqlite3.Connection]:
    """Another program locks the store until its connection is closed."""
    manifest = paper_manifest(tmp_path / "images")
    open_grid(store, "dolos", manifest, [make_spec(manifest.digest)], tmp_path / "runs" / "artifacts")

    def lock() -> sqlite3.Connection:
        connection = sqlite3.connect(file_of(store), isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
        return connection

    return lock


def test_a_locked_store_is_waited_for_as_long_as_this_project_says(
    store: str, locked: Callable[[], sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_records(store, "dolos")
    assert found is not None
    (grid,) = found.grids()
    monkeypatch.setattr(records, "LOCK_SECONDS", 0.2)
    other = locked()
    started = time.monotonic()
    with pytest.raises(MlflowException, match="database is locked"):
        found.client.set_tag(grid.info.run_id, "a", "b")
    assert time.monotonic() - started < 10  # MLflow itself would wait for 20 s
    monkeypatch.setattr(local_store, "LOCK_SECONDS", 0.2)
    for read in (found.grids, lambda: check_file(file_of(store))):
        with pytest.raises(StoreError, match="database is locked") as caught:
            read()
        said = str(caught.value)
        assert said.startswith(f"another program has locked the MLflow store {file_of(store)}: ")
        assert said.endswith("database is locked. End that program; then give the same command again")
    monkeypatch.setattr(records, "LOCK_SECONDS", 60.0)
    threading.Timer(0.5, other.close).start()
    found.client.set_tag(grid.info.run_id, "a", "b")
    assert found.grids()[0].data.tags["a"] == "b"


# Moved ---------------------------------------------------------------------------------------------------------------


def test_a_folder_of_runs_that_was_copied_leaves_the_original_alone(
    dolos: Command, obvious: Path, runs: Path, tmp_path: Path
) -> None:
    assert dolos(*ARGUMENTS).status == 0
    copied = shutil.copytree(runs, tmp_path / "copied")
    before = {path: path.stat().st_mtime_ns for path in sorted(runs.rglob("*"))}
    (run_id,) = open_store("dolos", tracking_uri=f"sqlite:///{runs / 'mlflow.db'}").runs()["run_id"]
    store = open_store("dolos", tracking_uri=f"sqlite:///{copied / 'mlflow.db'}")
    assert store.artifact(run_id, names.SCORES) == copied / ARTIFACTS / run_id / "artifacts" / names.SCORES
    _artifact_repos_cache.clear()  # MLflow's own, of this process

    again = ["dolos", "--data", str(obvious), "--local", *MORE, "--runs", str(copied)]
    assert launch.main(again) == 0
    assert {run.info.artifact_uri for run in mlflow_runs(copied, "trial")} == {
        f"file://{copied}/{ARTIFACTS}/{run.info.run_id}/artifacts" for run in mlflow_runs(copied, "trial")
    }
    after = {path: path.stat().st_mtime_ns for path in sorted(runs.rglob("*"))}
    assert {
        path for path in after if path.suffix not in (".db-shm", ".db-wal") and before.get(path) != after[path]
    } <= {runs}


def test_a_folder_of_runs_that_was_moved_goes_on_where_it_is(
    dolos: Command,
    obvious: Path,
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert dolos(*ARGUMENTS).status == 0
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    shutil.move(runs, moved)
    uri = f"sqlite:///{moved / 'mlflow.db'}"
    store = open_store("dolos", tracking_uri=uri)  # reading changes nothing, and finds everything
    (run_id,) = store.runs()["run_id"]
    assert store.artifact(run_id, names.SCORES) == moved / ARTIFACTS / run_id / "artifacts" / names.SCORES
    assert mlflow_runs(moved, "trial")[0].info.artifact_uri.startswith(f"file://{runs}")
    _artifact_repos_cache.clear()  # MLflow's own, of this process: no process lives on while its store is moved

    again = ["dolos", "--data", str(obvious), "--local", *MORE, "--runs", str(moved)]
    assert launch.main(again) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 trials, 1 finished before, 2 to run" in said
    assert "the store was moved or copied: artifacts that were in " in caplog.text
    assert not runs.exists()
    trials = mlflow_runs(moved, "trial")
    assert {run.info.artifact_uri for run in trials} == {
        f"file://{moved}/{ARTIFACTS}/{run.info.run_id}/artifacts" for run in trials
    }
    assert len(open_store("dolos", tracking_uri=uri).runs()) == 3


def test_a_store_that_was_moved_without_its_artifacts_is_refused(
    dolos: Command, obvious: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dolos(*ARGUMENTS).status == 0
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(runs / "mlflow.db", moved)
    shutil.rmtree(runs)
    again = [
        "dolos",
        "--data",
        str(obvious),
        "--local",
        *ARGUMENTS,
        "--set",
        "residual_linear.l2=0.5",
        "--runs",
        str(moved),
    ]
    assert launch.main(again) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert f"mlflow.db was moved without its artifacts, which were in {runs / ARTIFACTS}." in said
    assert f"Move that folder to {moved / ARTIFACTS}" in said
    assert not runs.exists()


def moved_to(folder: Path, runs: Path) -> str:
    """Move a folder of runs: the store's new URI."""
    shutil.move(runs, folder)
    _artifact_repos_cache.clear()  # MLflow's own, of this process
    return f"sqlite:///{folder / 'mlflow.db'}"


def places(uri: str) -> list[str]:
    """Where the file says that artifacts are: of each experiment, then of each run."""
    with closing(sqlite3.connect(file_of(uri))) as connection:
        rows = connection.execute("SELECT artifact_location FROM experiments UNION ALL SELECT artifact_uri FROM runs")
        return [place for (place,) in rows]


@pytest.mark.parametrize("made", [False, True])
def test_an_experiment_without_runs_is_moved_too(store: str, runs: Path, tmp_path: Path, made: bool) -> None:
    location = (runs / ARTIFACTS).as_uri()
    MlflowClient(tracking_uri=store).create_experiment("dolos", artifact_location=location)
    if made:
        (runs / ARTIFACTS).mkdir()
    moved = tmp_path / "moved"
    uri, manifest = moved_to(moved, runs), paper_manifest(tmp_path / "images")
    if made:
        runs.mkdir()  # the launch's own, for a cache
    open_grid(uri, "dolos", manifest, [make_spec(manifest.digest)], runs / ARTIFACTS)
    (grid,) = mlflow_runs(moved, "grid")
    assert (moved / ARTIFACTS / grid.info.run_id / "artifacts" / names.PLAN).is_file()
    assert not (runs / ARTIFACTS).exists()
    assert location not in places(uri)


def test_a_report_of_a_store_that_was_moved_is_kept_there_and_changes_no_path(
    store: str, runs: Path, tmp_path: Path
) -> None:
    manifest, report, moved = paper_manifest(tmp_path / "images"), tmp_path / "report", tmp_path / "moved"
    grid = open_grid(store, "dolos", manifest, [make_spec(manifest.digest)], runs / ARTIFACTS)
    before = places(store)
    (report / "tables").mkdir(parents=True)
    (report / "tables" / "cells.csv").write_text("a,b")
    uri = moved_to(moved, runs)
    for _ in range(2):  # the second one replaces the first one
        tracking.keep_report(uri, grid.parent_id, report)
    kept = moved / ARTIFACTS / grid.parent_id / "artifacts" / names.REPORT / "tables" / "cells.csv"
    assert kept.read_text() == "a,b"
    assert places(uri) == before
    shutil.rmtree(moved / ARTIFACTS)
    with pytest.raises(StoreError, match="was moved without its artifacts"):
        tracking.keep_report(uri, grid.parent_id, report)
    assert not runs.exists()


def test_artifacts_in_another_folder_than_the_store_stay_there(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, artifacts = paper_manifest(tmp_path / "images"), tmp_path / "other" / "artifacts"
    for _ in range(2):
        open_grid(store, "dolos", manifest, [make_spec(manifest.digest)], artifacts)
    assert [path.name for path in artifacts.iterdir()] == [
        run.info.run_id for run in mlflow_runs(file_of(store).parent, "grid")
    ]


# Space for last words ------------------------------------------------------------------------------------------------


def test_a_reserve_takes_its_space_and_gives_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk, fsync = list[int](), os.fsync

    def synced(number: int) -> None:
        fsync(number)
        on_disk.append(os.fstat(number).st_size)

    monkeypatch.setattr(os, "fsync", synced)
    reserve = Reserve(tmp_path / "runs" / "reserve")
    for _ in range(2):  # the second time it is there, from a launch that was killed
        reserve.take()
        assert on_disk.pop() == 4 * 2**20
        content = (tmp_path / "runs" / "reserve").read_bytes()
        assert len(zlib.compress(content, 1)) >= len(content) == 4 * 2**20
    reserve.release()
    reserve.release()
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_versions_of_the_tables_are_those_that_alembic_finds() -> None:
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    newest, known = _revisions()
    assert newest == scripts.get_current_head()
    assert known == {script.revision for script in scripts.walk_revisions()}


@pytest.mark.parametrize(
    "code",
    [
        'revision = "b2"\ndown_revision = ("a1", "a0")\n',
        'revision: str = "b2"\ndown_revision: tuple[str, ...] | None = ("a1", "a0")\n',
    ],
)
def test_a_migration_may_have_annotations(code: str) -> None:
    assert _assigned(f"import os\n\n{code}branch_labels = None\n") == {"revision": "b2", "down_revision": ("a1", "a0")}
