"""One launch of a grid at a time, on whatever machines: what two launches say to each other through MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from grid import names, tracking
from grid.launches import machine, newest_launch, process_start
from grid.records import StoreError
from grid.tracking import Tracker
from tests.grid.grids import make_spec, open_grid, paper_manifest


@pytest.fixture
def tracker(store: str, tmp_path: Path) -> Tracker:
    manifest = paper_manifest(tmp_path / "images")
    return open_grid(store, "dolos", manifest, [make_spec(manifest.digest)], tmp_path / "runs" / "artifacts")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life come quickly, and so does the end of patience with who gives none."""
    monkeypatch.setattr(tracking, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(tracking, "STALE_SECONDS", 0.3)


def stranger(tracker: Tracker, *, clock: float = 0.0, **changes: Any) -> Callable[[], None]:
    """Enter a launch on another machine, whose clock is ahead by `clock` seconds; what makes it give a sign of life."""
    entry = {"user": "ada", "host": "node7", "pid": 4711, "since": "2026-11-23 12:00:00 UTC", "machine": "node7"}
    entry |= {"started": 0, "id": "x"} | changes
    run = tracker.client.get_run(tracker.parent_id)
    number = sum(name.startswith(names.LAUNCH) for name in run.data.params) + 1
    tracker.client.log_param(tracker.parent_id, f"{names.LAUNCH}{number}", json.dumps(entry))

    def beat() -> None:
        tracker.client.set_tag(tracker.parent_id, names.HEARTBEAT, f"{number} {time.time() + clock:.3f}")

    beat()
    return beat


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """The other launch gives signs of life for the duration of a block."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(0.1):
            beat()

    heart = threading.Thread(target=go_on)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()


def test_a_grid_that_somebody_runs_is_refused_with_who_and_since_when(tracker: Tracker) -> None:
    with beating(stranger(tracker)), pytest.raises(StoreError) as raised, tracker.claim():
        pass
    message = str(raised.value)
    assert "by ada on node7 (process 4711) since 2026-11-23 12:00:00 UTC" in message
    assert "--experiment-name" in message


HOURS = 6 * 3600.0


@pytest.mark.parametrize("clock", [-HOURS, HOURS])
def test_a_launch_whose_machine_has_another_time_is_alive_while_it_gives_signs_of_life(
    tracker: Tracker, clock: float
) -> None:
    beat = stranger(tracker, clock=clock)
    with beating(beat), pytest.raises(StoreError, match="this grid is being run by ada"), tracker.claim():
        pass
    with tracker.claim() as lost:  # it has given no sign for a while, whatever its clock says
        assert not lost.is_set()


def test_a_second_claim_in_the_same_place_is_refused_too(tracker: Tracker) -> None:
    with tracker.claim(), pytest.raises(StoreError, match=f"process {os.getpid()}"), tracker.claim():
        pass


def test_a_claim_ends_with_its_block(tracker: Tracker) -> None:
    with pytest.raises(ZeroDivisionError), tracker.claim():
        raise ZeroDivisionError
    with tracker.claim():
        pass
    params = tracker.client.get_run(tracker.parent_id).data.params
    assert {name for name in params if name.startswith(names.LAUNCH)} == {"launch/1", "launch/2"}


def test_a_launch_elsewhere_that_gives_no_sign_of_life_is_taken_over(
    tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    stranger(tracker)
    with tracker.claim() as lost:
        assert not lost.is_set()
    assert "ada on node7 (process 4711) since 2026-11-23 12:00:00 UTC runs this grid, and has not ended" in caplog.text


def test_a_launch_elsewhere_that_ends_meanwhile_makes_way(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "STALE_SECONDS", 60.0)
    stranger(tracker)
    end = threading.Timer(0.2, tracker.client.set_tag, [tracker.parent_id, names.HEARTBEAT, "1 ended"])
    end.start()
    started = time.monotonic()
    with tracker.claim():
        assert time.monotonic() - started < 30


def test_a_launch_here_whose_process_is_gone_is_taken_over_at_once(tracker: Tracker) -> None:
    here = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(here.pid)
    stranger(tracker, machine=machine(), pid=here.pid, started=started)
    with pytest.raises(StoreError, match=f"process {here.pid}"), tracker.claim():
        pass
    here.communicate(b"\n")
    with tracker.claim():
        pass


def test_a_killed_process_that_nobody_has_asked_about_is_gone(tracker: Tracker) -> None:
    here = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stranger(tracker, machine=machine(), pid=here.pid, started=process_start(here.pid))
    here.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, here.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table of processes
    assert newest_launch(tracker.client.get_run(tracker.parent_id)).is_gone
    with tracker.claim():
        pass
    here.communicate()


def test_another_process_with_the_same_number_is_not_taken_for_it(tracker: Tracker) -> None:
    stranger(tracker, machine=machine(), pid=os.getpid(), started=1)
    with tracker.claim():
        pass


def test_an_entry_that_cannot_be_read_is_of_somebody_elsewhere(tracker: Tracker) -> None:
    for number, entry in enumerate(["", "{", "[]", "3", "nonsense"], 1):
        tracker.client.log_param(tracker.parent_id, f"{names.LAUNCH}{number}", entry)
        tracker.client.set_tag(tracker.parent_id, names.HEARTBEAT, f"{number} nonsense")
        launch = newest_launch(tracker.client.get_run(tracker.parent_id))
        assert (launch.number, launch.entry, launch.is_gone) == (number, {}, False)
        assert launch.who == "? on ? (process ?) since ?"


def test_a_launch_that_was_entered_and_has_not_come_further_counts(tracker: Tracker) -> None:
    beat = stranger(tracker)
    tracker.client.set_tag(tracker.parent_id, names.HEARTBEAT, "0 ended")
    with beating(beat), pytest.raises(StoreError, match="this grid is being run by ada"), tracker.claim():
        pass


def test_of_two_who_enter_at_once_one_is_refused(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    log_param, calls, beats = MlflowClient.log_param, [], []

    def slow(self: MlflowClient, run_id: str, key: str, value: Any) -> Any:
        if not calls:  # somebody else enters between our look and our entry
            calls.append(key)
            beats.append(stranger(tracker))
        return log_param(self, run_id, key, value)

    monkeypatch.setattr(MlflowClient, "log_param", slow)
    with beating(lambda: [beat() for beat in beats] and None), pytest.raises(StoreError, match="ada"), tracker.claim():
        pass
    assert calls == ["launch/1"]


def test_whoever_is_taken_over_stops(tracker: Tracker, request: pytest.FixtureRequest) -> None:
    interrupted = False
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as launch.py; Tune leaves one of its own
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with tracker.claim() as lost:
        try:
            stranger(tracker)
            threading.Event().wait(timeout=60)
        except KeyboardInterrupt:
            interrupted = True
    assert interrupted
    assert lost.is_set()


def test_signs_of_life_are_given_though_the_server_is_away_for_a_while(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_run, failures = MlflowClient.get_run, []
    came_back = threading.Event()

    def away(self: MlflowClient, run_id: str) -> Any:
        if threading.current_thread().name == "heartbeat":
            if len(failures) < 3:
                failures.append(run_id)
                raise MlflowException("connection refused")
            came_back.set()
        return get_run(self, run_id)

    monkeypatch.setattr(MlflowClient, "get_run", away)
    with tracker.claim() as lost:
        assert came_back.wait(timeout=60)
    assert not lost.is_set()


def test_an_end_that_cannot_be_told_hides_no_error(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: MlflowClient, *arguments: Any) -> None:
        raise MlflowException("connection refused")

    def fail() -> None:
        with tracker.claim():
            monkeypatch.setattr(MlflowClient, "set_tag", away)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_of_two_parent_runs_that_were_made_at_once_everybody_takes_the_older(tracker: Tracker, tmp_path: Path) -> None:
    manifest = paper_manifest(tmp_path / "images")
    tags = {names.ROLE: names.GRID_ROLE, names.DATA: manifest.digest}
    tracker.client.create_run(tracker.experiment_id, tags=tags)
    again = open_grid(tracker.uri, "dolos", manifest, [], tmp_path / "runs" / "artifacts")
    assert again.parent_id == tracker.parent_id


def test_of_two_parent_runs_the_one_in_use_is_taken_whatever_the_clock_of_the_other(
    tracker: Tracker, tmp_path: Path
) -> None:
    manifest = paper_manifest(tmp_path / "images")
    tags = {names.ROLE: names.GRID_ROLE, names.DATA: manifest.digest}
    tracker.client.create_run(tracker.experiment_id, tags=tags, start_time=1)  # by a machine whose clock is behind
    with tracker.claim():
        again = open_grid(tracker.uri, "dolos", manifest, [], tmp_path / "runs" / "artifacts")
    assert again.parent_id == tracker.parent_id


# A store that was moved, or that has another path on this machine ----------------------------------------------------


def recorded(tracker: Tracker) -> list[str]:
    """Where the store says that artifacts are: of the experiment, then of its runs."""
    runs = tracker.client.search_runs([tracker.experiment_id])
    return [tracker.client.get_experiment(tracker.experiment_id).artifact_location] + [
        run.info.artifact_uri for run in runs
    ]


@pytest.mark.parametrize("same_grid", [True, False])
def test_paths_of_artifacts_that_another_launch_uses_are_not_changed(
    tracker: Tracker, tmp_path: Path, same_grid: bool
) -> None:
    there, here = tmp_path / "runs", tmp_path / "here"  # one folder, under different paths on two machines
    there.rename(here)
    _artifact_repos_cache.clear()  # MLflow's own, of this process
    uri = f"sqlite:///{here / 'mlflow.db'}"
    other = Tracker(uri, tracker.experiment_id, tracker.parent_id, {})
    beat, before = stranger(other), recorded(other)
    manifest = paper_manifest(tmp_path / "images", ("lama",) if not same_grid else ("lama", "ldm"))
    grid = tracking.find_grid(uri, "dolos", manifest, here / "artifacts")
    with beating(beat), pytest.raises(StoreError, match="being run by ada on node7") as caught, grid.claim():
        grid.record_launch(manifest, [make_spec(manifest.digest)])
    assert (f"Its artifacts are in {there / 'artifacts'} there" in str(caught.value)) == (not same_grid)
    assert set(before) <= set(recorded(other))
    assert not there.exists()
    time.sleep(0.1)
    with grid.claim():  # the other launch gives no sign of life any more
        grid.record_launch(manifest, [make_spec(manifest.digest)])
    assert all(place.startswith((here / "artifacts").as_uri()) for place in recorded(other))
    assert not there.exists()
