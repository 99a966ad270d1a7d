"""What `grid.tracking` writes into a real MLflow store, read back as one tidy table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from analysis.store import RUN_COLUMNS, StoreError, open_store
from data.conditions import CLEAN
from data.manifest import Manifest
from grid import names
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION, WHOLE
from grid.tracking import Tracker
from grid.trial import Scored
from tests.grid.grids import FACTS, make_spec, open_grid, paper_manifest

CELLS = {"lama": 0.9, "ldm": 0.6}
CLASSES = {"real": 0.9, "lama": 0.8, "ldm": 0.7}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return paper_manifest(tmp_path / "images")


@pytest.fixture
def tracker(store: str, manifest: Manifest, tmp_path: Path) -> Tracker:
    return open_grid(store, "dolos", manifest, [], tmp_path / "artifacts")


def planted(spec: TrialSpec, values: Mapping[str, float], condition: str = CLEAN) -> Scored:
    """Scored with chosen accuracies: tested on -> accuracy for detection, class -> accuracy for attribution."""
    if spec.task == DETECTION:
        metrics = {(name, "accuracy"): value for name, value in values.items()}
        metrics |= {(name, "auroc"): value + 0.05 for name, value in values.items()}
    else:
        metrics = {(WHOLE, f"accuracy/{name}"): value for name, value in values.items()}
        metrics[WHOLE, "accuracy"] = float(np.mean(list(values.values())))
    logged = {names.metric_name(*where, condition): value for where, value in metrics.items()}
    return Scored(condition, logged, pd.DataFrame({"path": ["0.png"]}), np.eye(1, dtype=np.float16))


Finish = Callable[..., str]


@pytest.fixture
def finish(tracker: Tracker, tmp_path: Path) -> Finish:
    """Write a finished trial; its run's id."""

    def write(
        spec: TrialSpec, values: Mapping[str, float] = CELLS, *, tags: Mapping[str, str] | None = None, **more: Any
    ) -> str:
        run = tracker.open_trial(spec, {})
        run.log_epoch(1, {"train/loss": 0.5, "valid/accuracy": 0.99})
        metrics = {names.THRESHOLD: 0.5, names.SECONDS: 1.0}
        said = {names.WEIGHTS: "random weights"} if tags is None else tags
        run.finish(planted(spec, values), metrics, said, tmp_path / "no checkpoint")
        for condition, others in more.items():
            run.add_scores(planted(spec, others, condition), FACTS)
        return run.run_id

    return write


def read(tracker: Tracker, **named: Any) -> pd.DataFrame:
    return open_store("dolos", tracking_uri=tracker.uri, unfinished=True, **named).results()


def test_every_test_value_of_a_finished_trial_is_one_row(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    spec = make_spec(manifest.digest, seed=3)
    run_id = finish(spec)
    table = read(tracker)
    assert list(table.columns) == [*RUN_COLUMNS, "data", "condition", "tested_on", "metric", "value"]
    shared: dict[str, Any] = {
        "run_id": run_id,
        "key": spec.key,
        "task": "detection",
        "method": "residual_linear",
        "variant": "residual_linear",
        "trained_on": "lama",
        "train_condition": "clean",
        "seed": 3,
        "data": manifest.digest,
        "condition": "clean",
        "weights": "random weights",
    }
    for column, value in shared.items():
        assert (table[column] == value).all()
    cells = table.set_index(["tested_on", "metric"])["value"]
    assert cells["lama", "accuracy"] == 0.9
    assert cells["ldm", "accuracy"] == 0.6
    assert cells.index.is_unique
    written = planted(spec, CELLS).metrics
    assert {f"test/{name}/{metric}": value for (name, metric), value in cells.items()} == written


def test_values_of_training_and_validation_stay_out(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    finish(make_spec(manifest.digest))
    table = read(tracker)
    assert set(table["tested_on"]) == {"lama", "ldm"}
    assert set(table["metric"]) == {"accuracy", "auroc"}


def test_attribution_is_tested_on_all(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    finish(make_spec(manifest.digest, task=ATTRIBUTION, train=("lama", "ldm")), CLASSES)
    table = read(tracker)
    assert set(table["tested_on"]) == {"all"}
    assert set(table["trained_on"]) == {"lama+ldm"}
    values = table.set_index("metric")["value"]
    assert {name: values[f"accuracy/{name}"] for name in CLASSES} == CLASSES
    assert values["accuracy"] == pytest.approx(0.8)


def test_unfinished_trials_have_no_values(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    finish(make_spec(manifest.digest))
    for seed, status in enumerate(("RUNNING", "FAILED", "KILLED"), start=1):
        run = tracker.open_trial(make_spec(manifest.digest, seed=seed), {})
        run.log_epoch(1, {"test/lama/accuracy": 1.0})
        tracker.client.update_run(run.run_id, status=status)
    assert set(read(tracker)["seed"]) == {0}


def test_an_experiment_without_finished_trials_gives_an_empty_table(tracker: Tracker) -> None:
    table = read(tracker)
    assert table.empty
    assert list(table.columns) == [*RUN_COLUMNS, "data", "condition", "tested_on", "metric", "value"]


def test_runs_of_several_data_sets_are_never_in_one_table(
    tracker: Tracker, manifest: Manifest, finish: Finish, tmp_path: Path
) -> None:
    other = paper_manifest(tmp_path / "images", num_each=11)
    open_grid(tracker.uri, "dolos", other, [], tmp_path / "artifacts")
    for digest in (manifest.digest, other.digest):
        finish(make_spec(digest))
    assert set(read(tracker)["data"]) == {other.digest}  # the newest
    for digest in (manifest.digest, other.digest):
        assert set(read(tracker, data=digest)["data"]) == {digest}


def test_of_several_finished_runs_of_a_trial_the_first_counts(
    tracker: Tracker, manifest: Manifest, finish: Finish
) -> None:
    spec = make_spec(manifest.digest)
    first = finish(spec)
    second = finish(spec, {"lama": 0.1, "ldm": 0.1})
    assert first != second
    assert set(read(tracker)["run_id"]) == {first}


def test_more_trials_than_a_page_holds_are_all_read(
    tracker: Tracker, manifest: Manifest, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = MlflowClient.search_runs

    def small_pages(self: Any, *arguments: Any, **named: Any) -> Any:
        return plain(self, *arguments, **named | {"max_results": 2})

    monkeypatch.setattr(MlflowClient, "search_runs", small_pages)
    for seed in range(5):
        finish(make_spec(manifest.digest, seed=seed))
    assert sorted(read(tracker)["seed"].unique()) == [0, 1, 2, 3, 4]


def test_a_deleted_run_is_gone(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    tracker.client.delete_run(finish(make_spec(manifest.digest)))
    assert read(tracker).empty


def test_an_unknown_experiment_is_answered_with_those_that_exist(tracker: Tracker) -> None:
    with pytest.raises(StoreError, match="no MLflow experiment named 'doloss'") as caught:
        open_store("doloss", tracking_uri=tracker.uri)
    assert "Default, dolos" in str(caught.value)


def test_reading_writes_nothing(tracker: Tracker, manifest: Manifest, finish: Finish, tmp_path: Path) -> None:
    finish(make_spec(manifest.digest))
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    read(tracker)
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before


def test_weights_that_are_not_named_are_empty(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    finish(make_spec(manifest.digest), tags={names.DEVICE: "cpu"})
    assert set(read(tracker)["weights"]) == {""}


# Conditions ----------------------------------------------------------------------------------------------------------


def test_each_condition_has_values_of_its_own(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    spec = make_spec(manifest.digest)
    jpeg = {"lama": 0.7, "ldm": 0.5}
    run_id = finish(spec, CELLS, **{"jpeg-75": jpeg})
    table = read(tracker)
    assert set(table["run_id"]) == {run_id}
    values = table.set_index(["condition", "tested_on", "metric"])["value"]
    assert values.index.is_unique
    for condition, planned in (("clean", CELLS), ("jpeg-75", jpeg)):
        assert {name: values[condition, name, "accuracy"] for name in planned} == planned
        assert {name: values[condition, name, "auroc"] - 0.05 for name in planned} == pytest.approx(planned)
    assert len(table) == 8


def test_the_store_lists_the_conditions_that_any_trial_has_clean_first(
    tracker: Tracker, manifest: Manifest, finish: Finish
) -> None:
    assert open_store("dolos", tracking_uri=tracker.uri, unfinished=True).conditions == ["clean"]
    finish(make_spec(manifest.digest))
    finish(make_spec(manifest.digest, seed=1), CELLS, **{"jpeg-75": CELLS, "blur-1": CELLS, "a": CELLS})
    assert open_store("dolos", tracking_uri=tracker.uri).conditions == ["clean", "a", "blur-1", "jpeg-75"]


def test_a_condition_does_not_finish_a_trial(tracker: Tracker, manifest: Manifest) -> None:
    spec = make_spec(manifest.digest)
    tracker.open_trial(spec, {}).add_scores(planted(spec, CELLS, "jpeg-75"), FACTS)
    assert read(tracker).empty


def test_why_a_condition_lacks_is_the_error_of_a_finished_trial(
    tracker: Tracker, manifest: Manifest, finish: Finish
) -> None:
    run_id = finish(make_spec(manifest.digest))
    tracker.finished_trial(run_id).fail_condition("jpeg-75", OSError("the disk is gone"), "traceback")
    (run,) = open_store("dolos", tracking_uri=tracker.uri).runs().to_dict("records")
    assert (run["state"], run["error"]) == ("finished", "jpeg-75: OSError: the disk is gone")
