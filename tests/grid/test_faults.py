"""What a launch says and leaves behind when the machine fails it; each time, the same command goes on."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from grid import names, runner
from grid.commands import run as run_command
from grid.faults import FaultError, fault, in_one_line
from grid.settings import SOCKET_BYTES, long_temporary_folder
from tests.grid.command import Command, Outcome, mlflow_runs

pytestmark = pytest.mark.usefixtures("nothing_from_outside")
ARGUMENTS = ("--methods", "residual_linear", "--tasks", "detection")

Happen = Callable[[Callable[[], object]], None]


@pytest.fixture
def in_mid_run(monkeypatch: pytest.MonkeyPatch) -> Happen:
    """Something happens once, when the first trial begins to train."""

    def plan(event: Callable[[], object]) -> None:
        fit, happened = runner.fit, []

        def first(*arguments: Any, **named: Any) -> Any:
            if not happened:
                happened.append(event())
            return fit(*arguments, **named)

        monkeypatch.setattr(runner, "fit", first)

    return plan


def assert_told_once(outcome: Outcome, message: str) -> None:
    assert outcome.status == 2
    assert "Traceback" not in outcome.printed
    assert "SQL:" not in outcome.printed
    assert outcome.text.count(message) == 1
    assert outcome.text.count("error:") == 1
    assert "goes on from the last checkpoints" in outcome.text


def test_a_cache_that_is_deleted_is_told_and_made_again(dolos: Command, runs: Path, in_mid_run: Happen) -> None:
    in_mid_run(lambda: shutil.rmtree(runs / "cache"))
    outcome = dolos(*ARGUMENTS)
    assert_told_once(outcome, f"the cache {runs / 'cache'}, or a part of it, was deleted while the grid ran")
    assert [run.info.status for run in mlflow_runs(runs, "trial")] == ["FAILED"]
    assert [run.info.status for run in mlflow_runs(runs, "grid")] == ["FAILED"]
    assert dolos(*ARGUMENTS).status == 0
    assert [run.info.status for run in mlflow_runs(runs, "trial")] == ["FINISHED"] * 2


@pytest.fixture
def disk(runs: Path) -> Iterator[Path]:
    """A disk of 24 MB where the grid has its runs."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    runs.mkdir(exist_ok=True)
    kept = list(runs.iterdir())
    aside = runs.with_name("aside")
    aside.mkdir()
    for path in kept:
        shutil.move(path, aside)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", runs], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"root may not mount here: {done.stderr}")
    for path in aside.iterdir():
        shutil.copy(path, runs)
    yield runs
    subprocess.run(["umount", "--lazy", runs], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))


def test_a_full_disk_is_told_and_recorded(dolos: Command, disk: Path, in_mid_run: Happen) -> None:
    in_mid_run(lambda: fill(disk))
    outcome = dolos(*ARGUMENTS)
    assert_told_once(outcome, "a disk is full: ")
    assert "Make space where --runs and --cache are" in outcome.text
    assert [run.info.status for run in mlflow_runs(disk, "trial")] == ["KILLED"]  # interrupted, and not running
    assert [run.info.status for run in mlflow_runs(disk, "grid")] == ["FAILED"]
    (disk / "ballast").unlink()
    assert dolos(*ARGUMENTS).status == 0
    assert [run.info.status for run in mlflow_runs(disk, "trial")] == ["FINISHED"] * 2
    assert not list(disk.glob(".reserve*"))


def test_a_folder_that_becomes_read_only_is_told(dolos: Command, disk: Path, in_mid_run: Happen) -> None:
    def protect() -> None:  # a second mount over the first one, which has open files
        for options in (["--bind", disk], ["-o", "remount,bind,ro"]):
            subprocess.run(["mount", *options, disk], check=True)

    in_mid_run(protect)
    try:
        outcome = dolos(*ARGUMENTS)
        assert_told_once(outcome, "a folder cannot be written to any more: ")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    # nothing could be recorded, not even the end of the launch; otherwise it is seen by the end of its process
    (grid,) = mlflow_runs(disk, "grid")
    MlflowClient(tracking_uri=f"sqlite:///{disk / 'mlflow.db'}").set_tag(grid.info.run_id, names.HEARTBEAT, "1 ended")
    assert dolos(*ARGUMENTS).status == 0
    assert [run.info.status for run in mlflow_runs(disk, "trial")] == ["FINISHED"] * 2


# Words ---------------------------------------------------------------------------------------------------------------

LOCKED = """(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block)
(sqlite3.OperationalError) database is locked
[SQL: INSERT INTO metrics (key, value) VALUES (?, ?)]
[parameters: ('loss', 0.5)]
(Background on this error at: https://sqlalche.me/e/20/e3q8)"""


def test_an_error_of_the_store_is_one_line_without_its_statement() -> None:
    assert in_one_line(RuntimeError(LOCKED)) == "(sqlite3.OperationalError) database is locked"
    assert (
        in_one_line(RuntimeError("cannot ask\n http://ada:s3cret@host:5000/api")) == "cannot ask http://host:5000/api"
    )
    assert in_one_line(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/d/file"), "a disk is full: "),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "a disk is full: "),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "a disk is full: "),
        (OSError(errno.EROFS, "Read-only file system", "/d/file"), "a folder cannot be written to any more: "),
        (RuntimeError("attempt to write a readonly database"), "a folder cannot be written to any more: "),
        (RuntimeError("unable to open database file"), "a folder cannot be written to any more: "),
        (PermissionError(errno.EACCES, "Permission denied", "/d/file"), "permission is denied: [Errno 13]"),
        (RuntimeError(LOCKED), "another program has locked the MLflow store: "),
        (FileNotFoundError(errno.ENOENT, "No such file", "/no/cache/rows.npy"), "the cache /no/cache, or a part of it"),
        (FaultError("the machine is tired"), "the machine is tired"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/images/a.png"), None),
        (OSError(errno.EIO, "Input/output error"), None),
        (ValueError("a bad value"), None),
    ],
)
def test_the_faults_of_a_machine_are_told_from_other_errors(error: Exception, said: str | None, tmp_path: Path) -> None:
    outer = ValueError("something else")
    outer.__cause__ = error
    cache = Path("/no/cache") if said and "cache" in said else tmp_path
    for seen in (error, outer):
        message = fault(seen, cache=cache)
        assert (message is None) if said is None else (message is not None and message.startswith(said))
        assert message is None or "\n" not in message


@pytest.mark.parametrize("suppressed", [False, True])
def test_what_an_error_was_raised_in_spite_of_is_its_cause_unless_the_code_says_otherwise(
    suppressed: bool, tmp_path: Path
) -> None:
    lost = FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "cache" / "rows.npy"))
    bug = ValueError("a real bug")

    def fail() -> None:
        try:
            raise lost
        except FileNotFoundError:
            if suppressed:
                raise bug from None
            raise bug  # noqa: B904

    with pytest.raises(ValueError, match="a real bug"):
        fail()
    assert (fault(bug, cache=tmp_path / "cache") is None) == suppressed


def test_an_error_that_nobody_expected_is_one_line_and_a_file(
    dolos: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("at http://ada:s3cret@host/")

    monkeypatch.setattr(run_command, "run_pending", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = dolos(*ARGUMENTS)
    assert outcome.status == 1
    (log,) = tmp_path.glob("inpaint-grid-*.log")
    said = "error: an error that this program does not expect: ZeroDivisionError: at http://host/. "
    assert f"{said}The traceback is in {log}" in outcome.text
    assert "Traceback" not in outcome.printed
    text = log.read_text()
    assert text.startswith("Traceback")
    assert "in broken" in text
    assert "s3cret" not in text
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


# Ray's temporary folder ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_with_a_long_path_is_refused_before_anything_is_read(
    command: Command, obvious: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = f"/tmp/{'l' * 90}"
    monkeypatch.setenv(variable, long)
    monkeypatch.setattr("tempfile.tempdir", long if variable == "TMPDIR" else None)
    outcome = command("dolos", "--data", obvious)
    assert outcome.status == 2
    assert f"the temporary folder {long} has too long a path for Ray" in outcome.text
    assert "RAY_TMPDIR=/tmp" in outcome.text
    assert "lama" not in outcome.text
    assert not runs.exists()


def test_a_temporary_folder_may_be_as_long_as_a_socket_in_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    session = f"/ray/session_2026-11-26_21-12-19_123456_{os.getpid()}/sockets/plasma_store"
    longest = "/" + "l" * (SOCKET_BYTES - len(session) - 1)
    monkeypatch.setenv("RAY_TMPDIR", longest)
    assert long_temporary_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", longest + "l")
    assert f"({len(longest) + 1} bytes, at most {len(longest)})" in str(long_temporary_folder())


def test_a_store_that_is_lost_for_good_ends_the_launch_in_one_line(
    dolos: Command, monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise RuntimeError(LOCKED)

    monkeypatch.setattr(runner, "fit", locked)
    outcome = dolos(*ARGUMENTS)
    assert_told_once(
        outcome, "another program has locked the MLflow store: (sqlite3.OperationalError) database is locked"
    )
    (trial,) = mlflow_runs(runs, "trial")
    assert trial.info.status == "FAILED"
    assert trial.data.tags["grid.error"].startswith("FaultError: another program has locked the MLflow store")
