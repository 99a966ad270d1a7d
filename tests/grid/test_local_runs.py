"""Runs of a local store, read by a query per table: the same as MLflow's own search returns."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from grid import names
from grid.local_runs import read_runs
from grid.plan import FINISHED
from grid.records import Records, StoreError


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


def add(client: MlflowClient, experiment: str, *, role: str = names.TRIAL_ROLE, start: int = 1, **tags: str) -> str:
    all_tags = {names.ROLE: role, **tags}
    return str(client.create_run(experiment, start_time=start, tags=all_tags, run_name=f"at {start}").info.run_id)


def as_plain(run: Run) -> dict[str, Any]:
    metrics = {name: str(value) for name, value in run.data.metrics.items()}  # so that NaN equals NaN
    return {"info": dict(run.info), "tags": run.data.tags, "params": run.data.params, "metrics": metrics}


def searched(client: MlflowClient, experiment: str) -> list[Run]:
    query = f"tags.`{names.ROLE}` = '{names.TRIAL_ROLE}'"
    return list(client.search_runs([experiment], query, order_by=["attributes.start_time ASC"]))


def test_it_is_what_mlflow_itself_returns(client: MlflowClient, tmp_path: Path) -> None:
    experiment, other = client.create_experiment("one"), client.create_experiment("other")
    runs = [add(client, experiment, start=start, note="läuft\n") for start in (30, 10, 20, 20)]
    client.log_batch(
        runs[0],
        metrics=[
            Metric("test/a/auroc", 0.1, 1, 0),
            Metric("test/a/auroc", 0.2, 2, 1),  # the newest counts
            Metric("undefined", math.nan, 3, 0),
            Metric("infinite", math.inf, 3, 0),
        ],
        params=[Param("seed", "0"), Param("empty", "")],
        tags=[RunTag("mlflow.note.content", "words")],
    )
    client.set_terminated(runs[0], "FINISHED", end_time=40)
    client.delete_run(runs[1])
    add(client, experiment, role=names.GRID_ROLE)
    add(client, other)

    found = read_runs(tmp_path / "mlflow.db", experiment, names.ROLE, names.TRIAL_ROLE)
    assert [as_plain(run) for run in found] == [as_plain(run) for run in searched(client, experiment)]
    assert [run.info.start_time for run in found] == [20, 20, 30]
    assert found[-1].data.metrics["test/a/auroc"] == 0.2
    assert math.isnan(found[-1].data.metrics["undefined"])


def test_without_values_there_are_tags_alone(client: MlflowClient, tmp_path: Path) -> None:
    experiment = client.create_experiment("one")
    run_id = add(client, experiment, note="kept")
    client.log_batch(run_id, metrics=[Metric("a", 1.0, 1, 0)], params=[Param("b", "c")])
    (found,) = read_runs(tmp_path / "mlflow.db", experiment, names.ROLE, names.TRIAL_ROLE, params=False, metrics=())
    assert found.data.tags["note"] == "kept"
    assert (found.data.metrics, found.data.params) == ({}, {})


def test_metrics_are_chosen_by_patterns(client: MlflowClient, tmp_path: Path) -> None:
    experiment = client.create_experiment("one")
    run_id = add(client, experiment)
    logged = ("test/a/accuracy", "test/a/auroc", "test.jpeg-75/a/accuracy", "train/loss", "time/seconds")
    client.log_batch(run_id, metrics=[Metric(name, 1.0, 1, 0) for name in logged], params=[Param("b", "c")])
    chosen = ("test/*/accuracy", "train/*")
    (found,) = read_runs(tmp_path / "mlflow.db", experiment, names.ROLE, names.TRIAL_ROLE, metrics=chosen)
    assert found.data.metrics == {"test/a/accuracy": 1.0, "train/loss": 1.0}
    assert found.data.params == {"b": "c"}
    assert found.to_dictionary()["data"]["metrics"] == found.data.metrics


def test_states_are_those_of_the_runs(client: MlflowClient, tmp_path: Path) -> None:
    experiment = client.create_experiment("one")
    finished = add(client, experiment, **{names.KEY: "k1", names.CONDITIONS: "jpeg-75"})
    client.set_terminated(finished, "FINISHED")
    add(client, experiment, start=2, **{names.KEY: "k2"})
    states = Records(f"sqlite:///{tmp_path / 'mlflow.db'}", experiment).states(["k1", "k2", "k3"])
    assert sorted(states) == ["k1", "k2"]
    assert (states["k1"].run_id, states["k1"].state) == (finished, FINISHED)
    assert states["k1"].conditions == {"clean", "jpeg-75"}


def test_nothing_is_made_and_a_damaged_file_is_said(client: MlflowClient, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    with pytest.raises(sqlite3.Error):
        read_runs(missing, "1", names.ROLE, names.TRIAL_ROLE)
    assert not missing.exists()
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database at all, and long enough to be looked at by SQLite" * 20)
    with pytest.raises(StoreError, match=r"cannot read MLflow at .*broken\.db"):
        Records(f"sqlite:///{broken}", "1").trials()
