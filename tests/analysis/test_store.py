"""What `grid.tracking` writes into a real MLflow store, read back as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.store import COLUMNS, load_results
from data.manifest import Manifest
from grid import names, tracking
from grid.spec import ATTRIBUTION, TrialSpec
from grid.tracking import Tracker
from tests.grid.grids import make_spec, paper_manifest, planted_result

CELLS = {"lama": 0.9, "ldm": 0.6}
CLASSES = {"real": 0.9, "lama": 0.8, "ldm": 0.7}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return paper_manifest(tmp_path / "images")


@pytest.fixture
def tracker(store: str, manifest: Manifest, tmp_path: Path) -> Tracker:
    return tracking.open_grid(store, "dolos", manifest, [], tmp_path / "artifacts")


Finish = Callable[..., str]


@pytest.fixture
def finish(tracker: Tracker, tmp_path: Path) -> Finish:
    """Write a finished trial; its run's id."""

    def write(spec: TrialSpec, figures: dict[str, float] = CELLS) -> str:
        run = tracker.open_trial(spec, {})
        run.log_epoch(1, {"train/loss": 0.5, "valid/accuracy": 0.99})
        run.finish(planted_result(spec, figures), tmp_path / "no checkpoint")
        return run.run_id

    return write


def test_every_test_figure_of_a_finished_trial_is_one_row(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    spec = make_spec(manifest.digest, seed=3)
    run_id = finish(spec)
    table = load_results(tracker.uri, "dolos")
    assert list(table.columns) == COLUMNS
    shared: dict[str, Any] = {
        "run_id": run_id,
        "key": spec.key,
        "task": "detection",
        "method": "residual_linear",
        "trained_on": "lama",
        "seed": 3,
        "data": manifest.digest,
        "weights": "random weights",
    }
    for column, value in shared.items():
        assert (table[column] == value).all()
    cells = table.set_index(["tested_on", "metric"])["value"]
    assert cells["lama", "accuracy"] == 0.9
    assert cells["ldm", "accuracy"] == 0.6
    assert cells.index.is_unique
    written = planted_result(spec, CELLS).metrics
    assert {f"test/{name}/{metric}": value for (name, metric), value in cells.items()} == {
        name: value for name, value in written.items() if name.startswith("test/")
    }


def test_figures_of_training_and_validation_stay_out(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    finish(make_spec(manifest.digest))
    table = load_results(tracker.uri, "dolos")
    assert set(table["tested_on"]) == {"lama", "ldm"}
    assert not set(table["metric"]) & {"loss", "threshold", "seconds"}


def test_attribution_is_tested_on_all(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    finish(make_spec(manifest.digest, task=ATTRIBUTION, train=("lama", "ldm")), CLASSES)
    table = load_results(tracker.uri, "dolos")
    assert set(table["tested_on"]) == {"all"}
    assert set(table["trained_on"]) == {"lama+ldm"}
    figures = table.set_index("metric")["value"]
    assert {name: figures[f"accuracy/{name}"] for name in CLASSES} == CLASSES
    assert figures["accuracy"] == pytest.approx(0.8)


def test_unfinished_trials_have_no_figures(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    finish(make_spec(manifest.digest))
    for seed, status in enumerate(("RUNNING", "FAILED", "KILLED"), start=1):
        run = tracker.open_trial(make_spec(manifest.digest, seed=seed), {})
        run.log_epoch(1, {"test/lama/accuracy": 1.0})
        tracker.client.update_run(run.run_id, status=status)
    assert set(load_results(tracker.uri, "dolos")["seed"]) == {0}


def test_an_experiment_without_finished_trials_gives_an_empty_table(tracker: Tracker) -> None:
    table = load_results(tracker.uri, "dolos")
    assert table.empty
    assert list(table.columns) == COLUMNS


def test_runs_of_several_data_sets_are_refused_until_one_is_chosen(
    tracker: Tracker, manifest: Manifest, finish: Finish, tmp_path: Path
) -> None:
    other = paper_manifest(tmp_path / "images", num_each=11)
    for digest in (manifest.digest, other.digest):
        finish(make_spec(digest))
    with pytest.raises(ValueError, match="several data sets") as caught:
        load_results(tracker.uri, "dolos")
    assert manifest.digest in str(caught.value)
    assert other.digest in str(caught.value)
    for digest in (manifest.digest, other.digest):
        assert set(load_results(tracker.uri, "dolos", data=digest)["data"]) == {digest}


def test_of_several_finished_runs_of_a_trial_the_first_counts(
    tracker: Tracker, manifest: Manifest, finish: Finish
) -> None:
    spec = make_spec(manifest.digest)
    first = finish(spec)
    second = finish(spec, {"lama": 0.1, "ldm": 0.1})
    assert first != second
    table = load_results(tracker.uri, "dolos")
    assert set(table["run_id"]) == {first}


def test_more_trials_than_a_page_holds_are_all_read(
    tracker: Tracker, manifest: Manifest, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis import store

    plain = store.MlflowClient.search_runs

    def small_pages(self: Any, *arguments: Any, **named: Any) -> Any:
        return plain(self, *arguments, **named | {"max_results": 2})

    monkeypatch.setattr(store.MlflowClient, "search_runs", small_pages)
    for seed in range(5):
        finish(make_spec(manifest.digest, seed=seed))
    assert sorted(load_results(tracker.uri, "dolos")["seed"].unique()) == [0, 1, 2, 3, 4]


def test_a_deleted_run_is_gone(tracker: Tracker, manifest: Manifest, finish: Finish) -> None:
    tracker.client.delete_run(finish(make_spec(manifest.digest)))
    assert load_results(tracker.uri, "dolos").empty


def test_an_unknown_experiment_is_answered_with_those_that_exist(tracker: Tracker) -> None:
    with pytest.raises(ValueError, match="no MLflow experiment named 'doloss'") as caught:
        load_results(tracker.uri, "doloss")
    assert "Default, dolos" in str(caught.value)


def test_reading_writes_nothing(tracker: Tracker, manifest: Manifest, finish: Finish, tmp_path: Path) -> None:
    finish(make_spec(manifest.digest))
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    load_results(tracker.uri, "dolos")
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before


def test_weights_that_are_not_named_are_empty(tracker: Tracker, manifest: Manifest, tmp_path: Path) -> None:
    spec = make_spec(manifest.digest)
    result = dataclasses.replace(planted_result(spec, CELLS), tags={names.DEVICE: "cpu"})
    tracker.open_trial(spec, {}).finish(result, tmp_path / "no checkpoint")
    assert set(load_results(tracker.uri, "dolos")["weights"]) == {""}
