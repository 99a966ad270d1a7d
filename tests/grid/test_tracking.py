"""Against real SQLite stores of MLflow; the last test writes to one from eight processes."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from data.audits import Finding
from data.manifest import Manifest
from data.sources.base import Problem
from grid import names, records
from grid.checkpoints import LostCheckpointError
from grid.plan import FAILED, FINISHED, INTERRUPTED, RUNNING, TrialState
from grid.records import StoreError, knock, open_records
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION
from grid.tracking import Tracker, TrialRun
from tests.grid import writer
from tests.grid.grids import FACTS, make_spec, open_grid, paper_manifest, planted_result

EXPERIMENT = "dolos"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return paper_manifest(tmp_path / "images")


@pytest.fixture
def spec(manifest: Manifest) -> TrialSpec:
    return make_spec(manifest.digest)


@pytest.fixture
def tracker(store: str, manifest: Manifest, spec: TrialSpec, tmp_path: Path) -> Tracker:
    return open_grid(store, EXPERIMENT, manifest, [spec], tmp_path / "runs" / "artifacts")


def run_of(trial: TrialRun) -> Run:
    return trial.client.get_run(trial.run_id)


def runs_of(tracker: Tracker, role: str = names.TRIAL_ROLE) -> list[Run]:
    return list(tracker.client.search_runs([tracker.experiment_id], f"tags.`{names.ROLE}` = '{role}'"))


def planned_in(tracker: Tracker) -> list[TrialSpec]:
    """The trials of the grid's plan."""
    records = tracker.records
    return [TrialSpec.from_dict(fields) for fields in records.plan(records.client.get_run(tracker.parent_id)).values()]


def steps(trial: TrialRun, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in trial.client.get_metric_history(trial.run_id, metric)]


def artifact(trial: TrialRun, path: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return Path(trial.client.download_artifacts(trial.run_id, path, str(folder)))


def fitted(tmp_path: Path) -> Path:
    folder = tmp_path / "fitted"
    folder.mkdir(exist_ok=True)
    (folder / "head.json").write_text("{}")
    return folder


# The grid's own run --------------------------------------------------------------------------------------------------


def test_a_grid_has_one_parent_run_however_often_it_is_launched(
    tracker: Tracker, manifest: Manifest, spec: TrialSpec, tmp_path: Path
) -> None:
    tracker.close_grid(complete=False)
    again = open_grid(tracker.uri, EXPERIMENT, manifest, [spec], tmp_path / "runs" / "artifacts")
    assert again.parent_id == tracker.parent_id
    assert len(runs_of(tracker, names.GRID_ROLE)) == 1
    assert tracker.client.get_run(tracker.parent_id).info.status == "RUNNING"


def test_another_data_set_has_a_parent_run_of_its_own(tracker: Tracker, tmp_path: Path) -> None:
    other = paper_manifest(tmp_path / "images", num_each=11)
    trial = make_spec(other.digest)
    second = open_grid(tracker.uri, EXPERIMENT, other, [trial], tmp_path / "runs" / "artifacts")
    assert second.experiment_id == tracker.experiment_id
    assert second.parent_id != tracker.parent_id
    assert [run.info.run_id for run in tracker.records.grids()] == [tracker.parent_id, second.parent_id]
    assert [run.info.run_id for run in tracker.records.grids(other.digest)] == [second.parent_id]
    assert planned_in(second) == [trial]
    assert trial not in planned_in(tracker)


@pytest.mark.parametrize(("complete", "status"), [(True, "FINISHED"), (False, "FAILED")])
def test_the_parent_run_says_whether_the_grid_is_complete(tracker: Tracker, complete: bool, status: str) -> None:
    tracker.close_grid(complete=complete)
    assert tracker.client.get_run(tracker.parent_id).info.status == status


def test_the_parent_run_records_the_data_and_how_much_of_it_was_left_out(
    store: str, manifest: Manifest, tmp_path: Path
) -> None:
    bad = Problem("real/test/7.png", "cannot be decoded", "copy it again", skippable=True)
    tracker = open_grid(
        store, EXPERIMENT, dataclasses.replace(manifest, skipped=(bad, bad)), [], tmp_path / "runs" / "artifacts"
    )
    run = tracker.client.get_run(tracker.parent_id)
    assert run.data.tags[names.DATA] == manifest.digest
    assert run.data.tags[names.SOURCE] == "dolos"
    assert run.data.tags[names.SKIPPED] == "2"
    summary = tracker.client.download_artifacts(tracker.parent_id, names.MANIFEST_SUMMARY, str(tmp_path))
    assert Path(summary).read_text() == manifest.summary()


def test_the_data_set_is_an_mlflow_input_of_parent_and_trial(
    tracker: Tracker, manifest: Manifest, spec: TrialSpec
) -> None:
    trial = tracker.open_trial(spec, {})
    for run_id in (tracker.parent_id, trial.run_id):
        (found,) = tracker.client.get_run(run_id).inputs.dataset_inputs
        assert (found.dataset.name, found.dataset.digest) == ("dolos", manifest.digest)
        assert json.loads(found.dataset.source) == {"uri": manifest.root.as_uri()}
        profile = json.loads(found.dataset.profile)
        images = profile.pop("images")
        assert profile == {"num_rows": 90, "generators": ["lama", "ldm"]}
        assert images == {name: {"train": 10, "valid": 10, "test": 10} for name in ("real", "lama", "ldm")}


def test_the_plan_grows_over_launches_and_forgets_nothing(tracker: Tracker, manifest: Manifest, tmp_path: Path) -> None:
    first = [make_spec(manifest.digest, seed=seed) for seed in (0, 1)]
    second = [make_spec(manifest.digest, seed=seed) for seed in (1, 2)]
    for trials in (first, second):
        open_grid(tracker.uri, EXPERIMENT, manifest, trials, tmp_path / "runs" / "artifacts")
    (run,) = tracker.records.grids()
    assert run.info.run_id == tracker.parent_id
    assert planned_in(tracker) == [make_spec(manifest.digest, seed=seed) for seed in (0, 1, 2)]


def test_artifacts_of_a_local_store_lie_where_they_were_asked_for(
    tracker: Tracker, spec: TrialSpec, tmp_path: Path
) -> None:
    trial = tracker.open_trial(spec, {})
    kept = tmp_path / "runs" / "artifacts" / trial.run_id / "artifacts" / names.SPEC
    assert TrialSpec.from_dict(json.loads(kept.read_text())) == spec


def test_a_folder_with_a_space_in_its_name_holds_a_store_like_any_other(
    new_store: Callable[[Path], str], manifest: Manifest, spec: TrialSpec, tmp_path: Path
) -> None:
    runs = tmp_path / "my runs"
    tracker = open_grid(new_store(runs), EXPERIMENT, manifest, [spec], runs / "artifacts")
    trial = tracker.open_trial(spec, {})
    planted_result(spec, {"lama": 0.9, "ldm": 0.6}).finish(trial, fitted(tmp_path))
    assert (runs / "artifacts" / trial.run_id / "artifacts" / names.SCORES).is_file()
    assert artifact(trial, names.SCORES, tmp_path / "back").is_file()


# A trial's run -------------------------------------------------------------------------------------------------------


def test_a_trials_run_says_what_it_is(tracker: Tracker, spec: TrialSpec, tmp_path: Path) -> None:
    trial = tracker.open_trial(spec, {names.NODE: "here", names.GPU_SHARE: "0.25"})
    run = run_of(trial)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == spec.name
    assert run.data.params == {name: str(value) for name, value in spec.params().items()}
    expected = {
        names.ROLE: names.TRIAL_ROLE,
        names.PARENT_RUN: tracker.parent_id,
        names.KEY: spec.key,
        names.TASK: "detection",
        names.METHOD: "residual_linear",
        names.TRAIN_GENERATORS: "lama",
        names.SEED: "0",
        names.DATA: spec.data,
        names.NODE: "here",
        names.GPU_SHARE: "0.25",
    }
    assert run.data.tags.items() >= expected.items()
    assert TrialSpec.from_dict(json.loads(artifact(trial, names.SPEC, tmp_path / "back").read_text())) == spec


def test_the_driver_tells_which_commit_runs_because_workers_cannot(tracker: Tracker, spec: TrialSpec) -> None:
    assert tracker.origin[names.SOURCE_NAME] == "launch.py"
    elsewhere = dataclasses.replace(tracker, origin={names.GIT_COMMIT: "abc", names.GIT_CHANGED: "false"})
    tags = run_of(elsewhere.open_trial(spec, {})).data.tags
    assert (tags[names.GIT_COMMIT], tags[names.GIT_CHANGED]) == ("abc", "false")


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING", "SCHEDULED"])
def test_an_unfinished_trial_goes_on_in_its_own_run(tracker: Tracker, spec: TrialSpec, status: str) -> None:
    first = tracker.open_trial(spec, {names.NODE: "one"})
    tracker.client.update_run(first.run_id, status=status)
    second = tracker.open_trial(spec, {names.NODE: "two"})
    assert second.run_id == first.run_id
    assert [run.info.status for run in runs_of(tracker)] == ["RUNNING"]
    assert run_of(second).data.tags[names.NODE] == "two"


def test_a_description_that_a_person_changed_outlives_a_retry(tracker: Tracker, spec: TrialSpec) -> None:
    run = tracker.open_trial(spec, {})
    first = tracker.client.get_run(run.run_id).data.tags[names.DESCRIPTION]
    tracker.client.set_terminated(run.run_id, "FAILED")
    assert tracker.open_trial(spec, {}).run_id == run.run_id
    assert tracker.client.get_run(run.run_id).data.tags[names.DESCRIPTION] == first
    tracker.client.set_tag(run.run_id, names.DESCRIPTION, "the fan of this machine was broken")
    tracker.client.set_terminated(run.run_id, "FAILED")
    assert tracker.open_trial(spec, {}).run_id == run.run_id
    note = tracker.client.get_run(run.run_id).data.tags[names.DESCRIPTION]
    assert note == "the fan of this machine was broken"


def test_another_trial_has_another_run(tracker: Tracker, spec: TrialSpec) -> None:
    trials = [spec, dataclasses.replace(spec, seed=1), dataclasses.replace(spec, task=ATTRIBUTION)]
    assert len({tracker.open_trial(one, {}).run_id for one in trials}) == 3


def test_a_run_that_was_deleted_by_hand_is_not_gone_on_with(tracker: Tracker, spec: TrialSpec) -> None:
    first = tracker.open_trial(spec, {})
    tracker.client.delete_run(first.run_id)
    assert tracker.records.states([spec.key]) == {}
    assert tracker.open_trial(spec, {}).run_id != first.run_id


def test_a_run_whose_creator_died_before_it_was_described_is_completed(tracker: Tracker, spec: TrialSpec) -> None:
    tags = {names.ROLE: names.TRIAL_ROLE, names.KEY: spec.key}
    tracker.client.create_run(tracker.experiment_id, tags=tags)
    trial = tracker.open_trial(spec, {})
    assert run_of(trial).data.params == {name: str(value) for name, value in spec.params().items()}
    assert [item.path for item in trial.client.list_artifacts(trial.run_id)] == [names.SPEC]
    assert len(run_of(trial).inputs.dataset_inputs) == 1


@pytest.mark.parametrize(
    ("status", "state"),
    [("RUNNING", RUNNING), ("SCHEDULED", RUNNING), ("FAILED", FAILED), ("KILLED", INTERRUPTED), ("FINISHED", FINISHED)],
)
def test_the_state_of_a_trial_is_that_of_its_run(tracker: Tracker, spec: TrialSpec, status: str, state: str) -> None:
    trial = tracker.open_trial(spec, {})
    tracker.client.update_run(trial.run_id, status=status)
    found = tracker.records.states([spec.key, "0" * 16])
    scored = frozenset({"clean"}) if state == FINISHED else frozenset[str]()
    assert found == {spec.key: TrialState(trial.run_id, state, scored)}


@pytest.mark.parametrize("finished_first", [True, False])
def test_a_finished_run_speaks_for_a_trial_that_has_a_failed_one_too(
    tracker: Tracker, spec: TrialSpec, finished_first: bool
) -> None:
    tags = {names.ROLE: names.TRIAL_ROLE, names.KEY: spec.key}
    made = [tracker.client.create_run(tracker.experiment_id, tags=tags, start_time=time) for time in (1000, 2000)]
    finished, failed = made if finished_first else reversed(made)
    tracker.client.set_terminated(finished.info.run_id, "FINISHED")
    tracker.client.set_terminated(failed.info.run_id, "FAILED")
    states = tracker.records.states([spec.key])
    assert states[spec.key] == TrialState(finished.info.run_id, FINISHED, frozenset({"clean"}))


def test_runs_that_nobody_computes_any_more_are_marked_as_interrupted(tracker: Tracker, spec: TrialSpec) -> None:
    other, third = (dataclasses.replace(spec, seed=seed) for seed in (1, 2))
    open_run, foreign, done = (tracker.open_trial(one, {}) for one in (spec, other, third))
    planted_result(third, {"lama": 1.0, "ldm": 0.5}).finish(done, Path(__file__).parent / "nothing")
    tracker.close_interrupted([spec.key, third.key])
    assert [run_of(one).info.status for one in (open_run, foreign, done)] == ["KILLED", "RUNNING", "FINISHED"]


def test_trials_whose_workers_died_are_failed_with_what_is_known(tracker: Tracker, spec: TrialSpec) -> None:
    other = dataclasses.replace(spec, seed=1)
    lost, told = tracker.open_trial(spec, {}), tracker.open_trial(other, {})
    told.fail(ValueError("its own words"), "a traceback")
    tracker.close_interrupted([spec.key, other.key], {spec.key: "the worker died", other.key: "the worker died"})
    states = tracker.records.states([spec.key, other.key])
    assert {state.state for state in states.values()} == {FAILED}
    assert [run_of(one).data.tags[names.ERROR] for one in (lost, told)] == [
        "the worker died",
        "ValueError: its own words",
    ]
    assert run_of(lost).info.status == "FAILED"


# What a trial logs ---------------------------------------------------------------------------------------------------


def test_epochs_are_logged_in_order(tracker: Tracker, spec: TrialSpec) -> None:
    trial = tracker.open_trial(spec, {})
    for epoch in (1, 2, 3):
        trial.log_epoch(epoch, {"train/loss": 1 / epoch, "valid/loss": 2 / epoch})
    assert steps(trial, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert steps(trial, "valid/loss") == [(1, 2.0), (2, 1.0), (3, 2 / 3)]
    assert run_of(trial).data.metrics == {"train/loss": 1 / 3, "valid/loss": 2 / 3}


def test_a_retry_that_repeats_epochs_adds_no_second_points(tracker: Tracker, spec: TrialSpec) -> None:
    first = tracker.open_trial(spec, {})
    for epoch in (1, 2, 3):
        first.log_epoch(epoch, {"train/loss": float(epoch)})
    first.fail(RuntimeError("gone"), "Traceback")
    again = tracker.open_trial(spec, {})
    for epoch in (2, 3, 4, 5):  # from a checkpoint after the first
        again.log_epoch(epoch, {"train/loss": float(epoch)})
    assert steps(again, "train/loss") == [(epoch, float(epoch)) for epoch in (1, 2, 3, 4, 5)]


def test_a_metric_that_is_not_finite_is_refused_by_name(tracker: Tracker, spec: TrialSpec) -> None:
    trial = tracker.open_trial(spec, {})
    with pytest.raises(ValueError, match="not finite: valid/loss"):
        trial.log_epoch(1, {"train/loss": 1.0, "valid/loss": float("nan")})
    assert steps(trial, "train/loss") == []


def test_a_finished_trial_leaves_scores_embeddings_checkpoint_and_figures(
    tracker: Tracker, spec: TrialSpec, tmp_path: Path
) -> None:
    trial = tracker.open_trial(spec, {})
    result = planted_result(spec, {"lama": 0.9, "ldm": 0.6})
    result.finish(trial, fitted(tmp_path))
    run = run_of(trial)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == result.metrics
    assert run.data.tags.items() >= result.tags.items()
    back = tmp_path / "back"
    pd.testing.assert_frame_equal(pd.read_parquet(artifact(trial, names.SCORES, back)), result.scores)
    embeddings = np.load(artifact(trial, names.EMBEDDINGS, back))
    assert embeddings.dtype == np.float16
    np.testing.assert_array_equal(embeddings, result.embeddings)
    assert [path.name for path in artifact(trial, names.CHECKPOINT, back).iterdir()] == ["head.json"]


class Stops(MlflowClient):
    """A client that loses its server at one of its methods."""

    at = ""

    def __getattribute__(self, name: str) -> Any:
        if name == type(self).at:
            raise ConnectionError(f"lost the server before {name}")
        return super().__getattribute__(name)


@pytest.mark.parametrize("lost_at", ["log_artifacts", "log_batch", "set_terminated"])
def test_a_run_is_never_finished_before_it_is_whole(
    tracker: Tracker, spec: TrialSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost_at: str
) -> None:
    trial = tracker.open_trial(spec, {})
    result = planted_result(spec, {"lama": 0.9, "ldm": 0.6})
    with monkeypatch.context() as patched:
        patched.setattr(records, "MlflowClient", Stops)
        patched.setattr(Stops, "at", lost_at)
        with pytest.raises(ConnectionError):
            result.finish(trial, fitted(tmp_path))
    assert run_of(trial).info.status == "RUNNING"
    again = tracker.open_trial(spec, {})
    result.finish(again, fitted(tmp_path))
    assert again.run_id == trial.run_id
    assert run_of(again).info.status == "FINISHED"
    assert run_of(again).data.metrics == result.metrics
    assert all(len(steps(again, metric)) == 1 for metric in result.metrics)


def test_figures_are_those_of_the_scores_beside_them_though_a_retry_computed_others(
    tracker: Tracker, spec: TrialSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (planted_result(spec, {"lama": accuracy, "ldm": 0.6}) for accuracy in (0.9, 0.8))
    trial = tracker.open_trial(spec, {})
    with monkeypatch.context() as patched:
        patched.setattr(records, "MlflowClient", Stops)
        patched.setattr(Stops, "at", "set_terminated")
        with pytest.raises(ConnectionError):
            first.finish(trial, fitted(tmp_path))
    second.finish(tracker.open_trial(spec, {}), fitted(tmp_path))  # as on a GPU that does not repeat itself
    assert run_of(trial).data.metrics == second.metrics


def test_a_failed_trial_keeps_its_traceback_and_its_message(tracker: Tracker, spec: TrialSpec, tmp_path: Path) -> None:
    trial = tracker.open_trial(spec, {})
    trial.fail(ValueError("no such thing"), "Traceback (most recent call last):\n  …")
    assert run_of(trial).info.status == "FAILED"
    assert run_of(trial).data.tags[names.ERROR] == "ValueError: no such thing"
    assert artifact(trial, names.TRACEBACK, tmp_path / "back").read_text().startswith("Traceback")
    assert tracker.records.states([spec.key]) == {spec.key: TrialState(trial.run_id, FAILED)}


def test_a_message_of_any_length_is_kept_as_far_as_a_tag_holds(tracker: Tracker, spec: TrialSpec) -> None:
    trial = tracker.open_trial(spec, {})
    trial.fail(ValueError("x" * 100_000), "Traceback")
    assert run_of(trial).data.tags[names.ERROR].startswith("ValueError: xxx")


def test_a_trial_that_succeeds_in_the_end_has_no_error_left(tracker: Tracker, spec: TrialSpec, tmp_path: Path) -> None:
    tracker.open_trial(spec, {}).fail(ValueError("at first"), "Traceback")
    trial = tracker.open_trial(spec, {})
    planted_result(spec, {"lama": 0.9, "ldm": 0.6}).finish(trial, fitted(tmp_path))
    assert names.ERROR not in run_of(trial).data.tags
    assert len(runs_of(tracker)) == 1


# Conditions ----------------------------------------------------------------------------------------------------------

CELLS = {"lama": 0.9, "ldm": 0.6}


@pytest.fixture
def finished(tracker: Tracker, spec: TrialSpec, tmp_path: Path) -> TrialRun:
    """A trial that was scored on clean pictures."""
    trial = tracker.open_trial(spec, {})
    planted_result(spec, CELLS).finish(trial, fitted(tmp_path))
    return trial


def test_scores_under_a_condition_are_added_to_a_finished_run(
    tracker: Tracker, spec: TrialSpec, finished: TrialRun, tmp_path: Path
) -> None:
    clean = run_of(finished)
    jpeg = planted_result(spec, {"lama": 0.8, "ldm": 0.5}, condition="jpeg-75").scored
    tracker.finished_trial(finished.run_id).add_scores(jpeg, FACTS)
    run = run_of(finished)
    assert (run.info.status, run.info.end_time) == ("FINISHED", clean.info.end_time)
    assert run.data.metrics == clean.data.metrics | jpeg.metrics
    assert run.data.metrics["test.jpeg-75/lama/accuracy"] == 0.8
    assert run.data.metrics["test/lama/accuracy"] == 0.9
    assert run.data.tags[names.CONDITIONS] == "jpeg-75"
    kept = artifact(finished, "conditions/jpeg-75/scores.parquet", tmp_path / "back")
    pd.testing.assert_frame_equal(pd.read_parquet(kept), jpeg.scores)
    assert [path.name for path in kept.parent.iterdir()] == [names.SCORES]  # embeddings of clean pictures alone
    assert tracker.records.states([spec.key]) == {
        spec.key: TrialState(finished.run_id, FINISHED, frozenset({"clean", "jpeg-75"}), validated=True)
    }


@pytest.mark.parametrize("lost_at", ["log_artifacts", "log_batch"])
def test_a_condition_is_not_there_before_its_scores_are(
    tracker: Tracker, spec: TrialSpec, finished: TrialRun, monkeypatch: pytest.MonkeyPatch, lost_at: str
) -> None:
    jpeg = planted_result(spec, CELLS, condition="jpeg-75").scored
    with monkeypatch.context() as patched:
        patched.setattr(records, "MlflowClient", Stops)
        patched.setattr(Stops, "at", lost_at)
        with pytest.raises(ConnectionError):
            finished.add_scores(jpeg, FACTS)
    assert names.CONDITIONS not in run_of(finished).data.tags
    assert tracker.records.states([spec.key])[spec.key].conditions == {"clean"}
    finished.add_scores(jpeg, FACTS)
    assert tracker.records.states([spec.key])[spec.key].conditions == {"clean", "jpeg-75"}
    assert all(len(steps(finished, metric)) == 1 for metric in jpeg.metrics)


def test_conditions_add_up(tracker: Tracker, spec: TrialSpec, finished: TrialRun) -> None:
    for condition in ("jpeg-75", "jpeg-50", "jpeg-75"):
        finished.add_scores(planted_result(spec, CELLS, condition=condition).scored, FACTS)
    assert run_of(finished).data.tags[names.CONDITIONS] == "jpeg-50,jpeg-75"
    assert len(steps(finished, "test.jpeg-75/lama/accuracy")) == 1


def test_a_condition_that_failed_is_told_until_one_succeeds(
    spec: TrialSpec, finished: TrialRun, tmp_path: Path
) -> None:
    finished.fail_condition("jpeg-75", ValueError("no such thing"), "Traceback (most recent call last):\n  …")
    run = run_of(finished)
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.CONDITION_ERROR] == "jpeg-75: ValueError: no such thing"
    assert names.ERROR not in run.data.tags
    kept = artifact(finished, "conditions/jpeg-75/traceback.txt", tmp_path / "back")
    assert kept.read_text().startswith("Traceback")
    finished.add_scores(planted_result(spec, CELLS, condition="jpeg-75").scored, FACTS)
    assert names.CONDITION_ERROR not in run_of(finished).data.tags


def test_what_a_finished_trial_is_scored_with_comes_from_its_run(
    spec: TrialSpec, finished: TrialRun, tracker: Tracker, tmp_path: Path
) -> None:
    folder, threshold = finished.fitted()
    assert [path.name for path in folder.iterdir()] == ["head.json"]
    assert threshold == 0.5
    other = dataclasses.replace(spec, task=ATTRIBUTION, train_generators=("lama", "ldm"))
    trial = tracker.open_trial(other, {})
    planted_result(other, {"real": 1.0, "lama": 0.5, "ldm": 0.5}).finish(trial, fitted(tmp_path))
    assert trial.fitted()[1] is None


def test_a_checkpoint_that_is_gone_is_told_with_the_remedy(finished: TrialRun, tmp_path: Path) -> None:
    (tmp_path / "runs" / "artifacts" / finished.run_id / "artifacts" / "checkpoint").rename(tmp_path / "away")
    with pytest.raises(LostCheckpointError, match=rf"mlflow runs delete --run-id {finished.run_id}\) and launch again"):
        finished.fitted()


def test_the_grids_run_holds_every_condition_that_was_ever_asked_for(
    tracker: Tracker, manifest: Manifest, spec: TrialSpec, tmp_path: Path
) -> None:
    def tag(*conditions: str) -> str:
        again = open_grid(
            tracker.uri, EXPERIMENT, manifest, [spec], tmp_path / "runs" / "artifacts", conditions=conditions
        )
        return again.client.get_run(again.parent_id).data.tags[names.CONDITIONS]

    assert names.CONDITIONS not in tracker.client.get_run(tracker.parent_id).data.tags
    assert tag("clean", "jpeg-75") == "jpeg-75"
    assert tag("clean", "jpeg-50") == "jpeg-50,jpeg-75"
    assert tag() == "jpeg-50,jpeg-75"


def test_the_grids_run_says_what_made_it_and_what_the_data_are_like(
    tracker: Tracker, manifest: Manifest, spec: TrialSpec, tmp_path: Path
) -> None:
    finding = Finding("shortcuts", "warn", "fakes alone are PNG", "save all of them as PNG")
    noted = dataclasses.replace(manifest, notes=("a folder was left aside",), findings=(finding,))
    launched = {names.EXPERIMENT: "dolos", names.OPTIONS: "--local"}
    for options in ("--local", "--device cpu"):
        again = open_grid(
            tracker.uri, EXPERIMENT, noted, [spec], tmp_path / "runs" / "artifacts",
            launched=launched | {names.OPTIONS: options},
        )  # fmt: skip
    run = again.client.get_run(again.parent_id)
    assert again.parent_id == tracker.parent_id
    assert (run.data.tags[names.EXPERIMENT], run.data.tags[names.OPTIONS]) == ("dolos", "--device cpu")
    assert (again.records.text(run, names.NOTES) or "").splitlines() == [
        "a folder was left aside",
        "fakes alone are PNG; save all of them as PNG",
    ]


# Stores that are not as they should be -------------------------------------------------------------------------------


def test_an_experiment_that_is_not_there_is_not_made_by_looking(store: str) -> None:
    assert open_records(store, EXPERIMENT) is None
    assert open_records(store, EXPERIMENT) is None


def test_looking_for_an_experiment_makes_no_store(tmp_path: Path) -> None:
    assert open_records(f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}", EXPERIMENT) is None
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_experiment_is_answered_with_the_command_that_restores_it(
    tracker: Tracker, manifest: Manifest, tmp_path: Path
) -> None:
    tracker.client.delete_experiment(tracker.experiment_id)
    remedy = f"MLFLOW_TRACKING_URI={tracker.uri} mlflow experiments restore -x {tracker.experiment_id};"
    with pytest.raises(StoreError, match=remedy):
        open_records(tracker.uri, EXPERIMENT)
    with pytest.raises(StoreError, match=remedy):
        open_grid(tracker.uri, EXPERIMENT, manifest, [], tmp_path / "artifacts")


def test_a_server_that_does_not_answer_is_named_with_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    with socket.socket() as closed:  # bound, never listening: nobody else gets the port meanwhile
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(StoreError, match="cannot read MLflow at http") as caught:
            open_records(uri, EXPERIMENT)
    assert uri in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)


def test_a_password_in_the_address_is_for_mlflow_and_not_for_the_screen() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(StoreError, match=f"cannot read MLflow at http://{host}:") as caught:
            open_records(f"http://me:secret@{host}", EXPERIMENT)
    assert "secret" not in str(caught.value)


def test_a_server_is_found_behind_a_user_and_a_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answer)

        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(serve)
            knock(f"http://me:secret@127.0.0.1:{server.getsockname()[1]}")  # or it would raise
            served.result(timeout=10)


def test_a_store_that_is_no_store_is_named_with_what_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    with pytest.raises(StoreError, match=r"mlflow\.db cannot be read as an MLflow store: file is not a database"):
        open_records(f"sqlite:///{tmp_path / 'mlflow.db'}", EXPERIMENT)


# Many at once --------------------------------------------------------------------------------------------------------

NUM_PROCESSES, NUM_EPOCHS = 8, 20


def test_eight_processes_that_log_at_once_lose_nothing(tracker: Tracker, manifest: Manifest, tmp_path: Path) -> None:
    specs = [make_spec(manifest.digest, seed=seed) for seed in range(NUM_PROCESSES)]
    # A fork server has imported MLflow once and has opened nothing, so that no process inherits a connection; with
    # "spawn" each of the eight would import MLflow again, and that would be nearly all that this test did.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([writer.__name__])
    start = context.Barrier(NUM_PROCESSES)
    arguments = [(start, tracker, spec.to_dict(), NUM_EPOCHS, str(fitted(tmp_path))) for spec in specs]
    processes = [context.Process(target=writer.write_trial, args=one) for one in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=200)
    assert [process.exitcode for process in processes] == [0] * NUM_PROCESSES

    states = tracker.records.states([spec.key for spec in specs])
    assert len(runs_of(tracker)) == NUM_PROCESSES
    for spec in specs:
        trial = TrialRun(tracker.uri, states[spec.key].run_id)
        assert states[spec.key].state == FINISHED
        assert steps(trial, "train/loss") == [(epoch, spec.seed + 1 / epoch) for epoch in range(1, NUM_EPOCHS + 1)]
        assert steps(trial, "valid/loss") == [(epoch, spec.seed - 1 / epoch) for epoch in range(1, NUM_EPOCHS + 1)]
        assert run_of(trial).data.metrics["test/lama/accuracy"] == spec.seed / 10
        assert run_of(trial).data.params["seed"] == str(spec.seed)
        kept = {item.path for item in trial.client.list_artifacts(trial.run_id)}
        assert kept == {names.SPEC, names.SCORES, names.EMBEDDINGS, names.CHECKPOINT}
