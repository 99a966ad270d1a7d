"""One launch of a grid at a time, on whatever machines: what two launches say to each other through MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from grid import names, tracking
from grid.records import StoreError
from grid.tracking import Tracker
from tests.grid.grids import make_spec, paper_manifest


@pytest.fixture
def tracker(store: str, tmp_path: Path) -> Tracker:
    manifest = paper_manifest(tmp_path / "images")
    return tracking.open_grid(store, "dolos", manifest, [make_spec(manifest.digest)], tmp_path / "runs" / "artifacts")


def stranger(tracker: Tracker, **changes: Any) -> None:
    """Enter a launch on another machine, which has just given a sign of life."""
    entry = {"user": "ada", "host": "node7", "pid": 4711, "since": "2026-11-23 12:00:00 UTC", "machine": "node7"}
    entry |= {"process_started": 0.0, "time": time.time(), "id": "x"} | changes
    run = tracker.client.get_run(tracker.parent_id)
    number = sum(name.startswith(names.LAUNCH) for name in run.data.params) + 1
    tracker.client.log_param(tracker.parent_id, f"{names.LAUNCH}{number}", json.dumps(entry))
    tracker.client.set_tag(tracker.parent_id, names.HEARTBEAT, f"{number} {entry['time']:.0f}")


def test_a_grid_that_somebody_runs_is_refused_with_who_and_since_when(tracker: Tracker) -> None:
    stranger(tracker)
    with pytest.raises(StoreError) as raised, tracker.claim():
        pass
    message = str(raised.value)
    assert "by ada on node7 (process 4711) since 2026-11-23 12:00:00 UTC" in message
    assert "--experiment-name" in message


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


def test_a_launch_elsewhere_that_gives_no_sign_of_life_is_taken_over(tracker: Tracker) -> None:
    stranger(tracker, time=time.time() - tracking.STALE_SECONDS - 1)
    with tracker.claim() as lost:
        assert not lost.is_set()


def test_a_launch_here_whose_process_is_gone_is_taken_over_at_once(tracker: Tracker) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(gone.pid).create_time()
    gone.wait()
    stranger(tracker, machine=tracking._machine(), pid=gone.pid, process_started=started)
    with tracker.claim():
        pass


def test_another_process_with_the_same_number_is_not_taken_for_it(tracker: Tracker) -> None:
    stranger(tracker, machine=tracking._machine(), pid=os.getpid(), process_started=1.0)
    with tracker.claim():
        pass


def test_a_launch_that_was_entered_and_has_not_come_further_counts(tracker: Tracker) -> None:
    stranger(tracker)
    tracker.client.set_tag(tracker.parent_id, names.HEARTBEAT, "0 ended")
    with pytest.raises(StoreError, match="this grid is being run by ada"), tracker.claim():
        pass


def test_of_two_who_enter_at_once_one_is_refused(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    log_param, calls = MlflowClient.log_param, []

    def slow(self: MlflowClient, run_id: str, key: str, value: Any) -> Any:
        if not calls:  # somebody else enters between our look and our entry
            calls.append(key)
            stranger(tracker)
        return log_param(self, run_id, key, value)

    monkeypatch.setattr(MlflowClient, "log_param", slow)
    with pytest.raises(StoreError, match="ada"), tracker.claim():
        pass
    assert calls == ["launch/1"]


def test_whoever_is_taken_over_stops(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "HEARTBEAT_SECONDS", 0.05)
    interrupted = False
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
    monkeypatch.setattr(tracking, "HEARTBEAT_SECONDS", 0.05)
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
    again = tracking.open_grid(tracker.uri, "dolos", manifest, [], tmp_path / "runs" / "artifacts")
    assert again.parent_id == tracker.parent_id
