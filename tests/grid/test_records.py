"""The one reader of MLflow, on real SQLite stores."""

from __future__ import annotations

import dataclasses
import re
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from grid import names
from grid.plan import FAILED, FINISHED, INTERRUPTED, RUNNING
from grid.records import (
    Records,
    StoreError,
    check_store,
    conditions_of,
    knock,
    list_experiments,
    open_records,
    speaking_runs,
    state_of,
    trial_state,
)
from grid.spec import TrialSpec
from grid.tracking import Tracker
from tests.grid.grids import make_spec, open_grid, paper_manifest, planted_result

STATUSES = {"FINISHED": FINISHED, "RUNNING": RUNNING, "KILLED": INTERRUPTED, "FAILED": FAILED}


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    return make_spec(paper_manifest(tmp_path / "images").digest)


@pytest.fixture
def tracker(store: str, spec: TrialSpec, tmp_path: Path) -> Tracker:
    manifest = paper_manifest(tmp_path / "images")
    return open_grid(store, "dolos", manifest, [spec], tmp_path / "runs" / "artifacts")


@pytest.fixture
def records(tracker: Tracker) -> Records:
    found = open_records(tracker.uri, "dolos")
    assert found is not None
    return found


def finish(tracker: Tracker, spec: TrialSpec, folder: Path) -> str:
    run = tracker.open_trial(spec, {})
    folder.mkdir(exist_ok=True)
    (folder / "head.json").write_text("{}")
    planted_result(spec, {"lama": 0.9, "ldm": 0.6}).finish(run, folder)
    return run.run_id


# Which run speaks for a trial ----------------------------------------------------------------------------------------

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tracker: Tracker) -> MakeRun:
    """State, key -> a run; each is newer than the one before."""
    times = iter(range(1000, 100_000, 1000))

    def make(status: str, key: str | None = "k", **tags: str) -> Run:
        given = {names.ROLE: names.TRIAL_ROLE, **({names.KEY: key} if key else {}), **tags}
        run = tracker.client.create_run(tracker.experiment_id, tags=given, start_time=next(times))
        tracker.client.update_run(run.info.run_id, status=status)
        return tracker.client.get_run(run.info.run_id)

    return make


@pytest.mark.parametrize(
    ("statuses", "speaks"),
    [
        (["FAILED"], 0),
        (["FAILED", "FAILED"], 1),  # of two in the same state, the newer
        (["FAILED", "KILLED"], 1),
        (["KILLED", "FAILED"], 0),
        (["RUNNING", "KILLED"], 0),
        (["KILLED", "RUNNING", "FAILED"], 1),
        (["FINISHED", "RUNNING"], 0),
        (["FAILED", "FINISHED", "RUNNING"], 1),
        (["FINISHED", "FINISHED"], 0),  # what was finished first counts, whatever was computed again
        (["RUNNING", "FINISHED", "FINISHED"], 1),
    ],
)
def test_of_several_runs_of_one_trial_one_speaks(
    records: Records, make_run: MakeRun, statuses: list[str], speaks: int
) -> None:
    runs = [make_run(status) for status in statuses]
    expected = runs[speaks]
    assert speaking_runs(runs)["k"].info.run_id == expected.info.run_id
    found = records.states(["k", "other"])
    assert found.keys() == {"k"}
    assert (found["k"].run_id, found["k"].state) == (expected.info.run_id, STATUSES[statuses[speaks]])


def test_a_run_without_a_key_speaks_for_nothing(make_run: MakeRun) -> None:
    assert speaking_runs([make_run("FINISHED", key=None)]) == {}


def test_each_trial_has_a_run_of_its_own_that_speaks(make_run: MakeRun) -> None:
    one, two = make_run("FAILED", "a"), make_run("FINISHED", "b")
    assert {key: run.info.run_id for key, run in speaking_runs([one, two]).items()} == {
        "a": one.info.run_id,
        "b": two.info.run_id,
    }


@pytest.mark.parametrize(
    ("tag", "conditions"),
    [
        (None, {"clean"}),
        ("", {"clean"}),
        ("jpeg-75", {"clean", "jpeg-75"}),
        ("jpeg-50,jpeg-75", {"clean", "jpeg-50", "jpeg-75"}),
    ],
)
def test_the_conditions_of_a_run_are_clean_and_those_of_its_tag(
    make_run: MakeRun, tag: str | None, conditions: set[str]
) -> None:
    tags = {} if tag is None else {names.CONDITIONS: tag}
    finished, killed = make_run("FINISHED", **tags), make_run("KILLED", **tags)
    assert conditions_of(finished) == trial_state(finished).conditions == conditions
    assert trial_state(killed).conditions == frozenset()  # it was scored under nothing
    assert state_of(killed) == INTERRUPTED


# Grids, plans, artifacts ---------------------------------------------------------------------------------------------


def test_grids_and_trials_are_told_apart_and_chosen_by_the_data(
    tracker: Tracker, records: Records, spec: TrialSpec, tmp_path: Path
) -> None:
    other = paper_manifest(tmp_path / "images", num_each=11)
    second = open_grid(tracker.uri, "dolos", other, [], tmp_path / "runs" / "artifacts")
    mine = tracker.open_trial(spec, {}).run_id
    theirs = second.open_trial(dataclasses.replace(spec, data=other.digest), {}).run_id
    assert [run.info.run_id for run in records.grids()] == [tracker.parent_id, second.parent_id]
    assert [run.info.run_id for run in records.trials()] == [mine, theirs]
    assert [run.info.run_id for run in records.grids(other.digest)] == [second.parent_id]
    assert [run.info.run_id for run in records.runs_of(spec.key)] == [mine]


def test_a_plan_is_read_as_specs(tracker: Tracker, records: Records, spec: TrialSpec) -> None:
    planned = records.plan(records.client.get_run(tracker.parent_id))
    assert {key: TrialSpec.from_dict(fields) for key, fields in planned.items()} == {spec.key: spec}


def test_a_run_without_a_plan_has_an_empty_one(tracker: Tracker, records: Records, spec: TrialSpec) -> None:
    run = records.client.get_run(tracker.open_trial(spec, {}).run_id)
    assert records.plan(run) == {}
    assert records.text(run, "nothing.txt") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"trials": 3}', '{"trials": [{"task": "detection"}]}'])
def test_a_damaged_plan_is_told_with_what_writes_it_again(
    tracker: Tracker, records: Records, spec: TrialSpec, tmp_path: Path, text: str
) -> None:
    tracker.client.log_text(tracker.parent_id, text, names.PLAN)
    with pytest.raises(StoreError, match=rf"plan.json of the grid's run {tracker.parent_id} is damaged") as caught:
        records.plan(records.client.get_run(tracker.parent_id))
    assert "Launching the grid again writes it" in str(caught.value)
    manifest = paper_manifest(tmp_path / "images")
    open_grid(tracker.uri, "dolos", manifest, [spec], tmp_path / "runs" / "artifacts")
    assert list(records.plan(records.client.get_run(tracker.parent_id))) == [spec.key]


def test_artifacts_on_this_machine_are_read_in_place(
    tracker: Tracker, records: Records, spec: TrialSpec, tmp_path: Path
) -> None:
    run = records.client.get_run(finish(tracker, spec, tmp_path / "fitted"))
    kept = tmp_path / "runs" / "artifacts" / run.info.run_id / "artifacts"
    assert records.artifact(run, names.CHECKPOINT) == kept / "checkpoint"
    assert (kept / "checkpoint" / "head.json").read_text() == "{}"
    with pytest.raises(FileNotFoundError, match=r"nothing is at .*conditions/jpeg-75/scores\.parquet"):
        records.artifact(run, names.condition_artifact("jpeg-75", names.SCORES))


def test_every_point_of_a_metric_is_its_history(tracker: Tracker, records: Records, spec: TrialSpec) -> None:
    run = tracker.open_trial(spec, {})
    for epoch in (1, 2):
        run.log_epoch(epoch, {"train/loss": 1 / epoch})
    assert [(point.step, point.value) for point in records.history(run.run_id, "train/loss")] == [(1, 1.0), (2, 0.5)]


# Stores --------------------------------------------------------------------------------------------------------------


def test_an_experiment_is_found_by_its_name(tracker: Tracker) -> None:
    found = open_records(tracker.uri, "dolos")
    assert found == Records(tracker.uri, tracker.experiment_id, "dolos")
    assert list_experiments(tracker.uri)["dolos"] == tracker.experiment_id
    assert open_records(tracker.uri, "demo") is None


def test_options_in_the_address_are_no_part_of_the_file(tracker: Tracker) -> None:
    found = open_records(f"{tracker.uri}?timeout=60", "dolos")
    assert found is not None
    assert [run.info.run_id for run in found.grids()] == [tracker.parent_id]
    check_store(f"{tracker.uri}?timeout=60")


def test_a_sound_store_passes(store: str) -> None:
    check_store(store)


def test_a_store_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    for uri, place in (
        (f"sqlite:///{tmp_path}/none/mlflow.db", f"{tmp_path}/none/mlflow.db"),
        (f"sqlite:///{tmp_path}/mlflow.db?timeout=60", f"{tmp_path}/mlflow.db"),
        (f"{tmp_path}/mlruns", f"{tmp_path}/mlruns"),
    ):
        with pytest.raises(StoreError, match="no MLflow store at") as caught:
            check_store(uri)
        assert f"no MLflow store at {place}; `python launch.py` writes one" in str(caught.value)
        assert "MLFLOW_TRACKING_URI (or --runs of launch.py, --tracking-uri of python -m analysis)" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database" * 100)
    with pytest.raises(StoreError, match=r"text\.db cannot be read as an MLflow store: file is not a database"):
        check_store(f"sqlite:///{tmp_path / 'text.db'}")
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE runs (id INTEGER)")
    connection.close()
    with pytest.raises(StoreError, match=r"other\.db is an SQLite file but holds no MLflow store"):
        check_store(f"sqlite:///{tmp_path / 'other.db'}")


def test_more_runs_than_one_page_are_all_found(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    search = MlflowClient.search_runs

    def small_pages(self: MlflowClient, *arguments: Any, **named: Any) -> Any:
        return search(self, *arguments, **named | {"max_results": 2})

    monkeypatch.setattr(MlflowClient, "search_runs", small_pages)
    ids = [tracker.open_trial(make_spec("0" * 16, seed=seed), {}).run_id for seed in range(5)]
    assert sorted(run.info.run_id for run in tracker.records.trials()) == sorted(ids)


def test_a_servers_address_with_a_password_that_is_not_encoded_is_refused_without_it() -> None:
    with pytest.raises(StoreError, match=r"^http://host:5000 is no address of a server.*%2F for a slash") as caught:
        knock("http://me:se/cret@host:5000")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["postgresql", "mysql+pymysql"])
def test_a_database_that_nobody_serves_is_named_at_once(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # nobody gets this port meanwhile
        port = taken.getsockname()[1]
        knock(f"{kind}://me:secret@127.0.0.1:{port}/mlflow")  # or it would raise
    with pytest.raises(
        StoreError, match=rf"cannot read MLflow at {re.escape(kind)}://127.0.0.1:{port}/mlflow"
    ) as caught:
        open_records(f"{kind}://me:secret@127.0.0.1:{port}/mlflow", "dolos")
    assert "Is the server running" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["postgresql:///mlflow?host=/run/postgresql", "sqlite:////a/mlflow.db", "postgresql://h:x/y"]
)
def test_an_address_without_host_and_port_is_left_to_mlflow(uri: str) -> None:
    knock(uri)
