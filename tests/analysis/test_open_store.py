"""A whole grid read back from a real MLflow store: states, configurations, artifacts, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sqlite3
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from rich.console import Console

from analysis.parts import Options
from analysis.report import make_report
from analysis.store import HISTORY_COLUMNS, RUN_COLUMNS, SCORE_COLUMNS, Store, StoreError, open_store
from grid import names
from grid.commands.status import print_status
from grid.spec import TrialSpec
from grid.variants import variant_names
from tests.analysis.grids import Grid, made_scores
from tests.grid.grids import open_grid


@pytest.fixture
def grid(store: str, tmp_path: Path) -> Grid:
    return Grid(store, tmp_path)


def test_every_trial_is_there_in_its_state(grid: Grid) -> None:
    trials = {seed: grid.spec(seed=seed) for seed in range(5)}
    grid.plan(*trials.values())
    grid.finish(trials[1])
    for seed, status in ((2, "RUNNING"), (3, "FAILED"), (4, "KILLED")):
        run = grid.tracker.open_trial(trials[seed], {})
        if status == "FAILED":
            run.fail(RuntimeError("out of memory"), "traceback")
        grid.tracker.client.update_run(run.run_id, status=status)
    runs = grid.open().runs().set_index("seed")
    assert list(runs.reset_index()[RUN_COLUMNS].columns) == RUN_COLUMNS
    assert runs["state"].to_dict() == {0: "pending", 1: "finished", 2: "running", 3: "failed", 4: "interrupted"}
    assert runs.loc[0, "run_id"] == ""
    assert runs.loc[3, "error"] == "RuntimeError: out of memory"
    assert {seed: runs.loc[seed, "key"] for seed in trials} == {seed: spec.key for seed, spec in trials.items()}


def test_a_row_says_how_the_trial_was_run(grid: Grid) -> None:
    spec = grid.spec(train="lama+ldm", seed=7)
    (run_id,) = grid.finish(spec)
    row = grid.open().runs().iloc[0]
    expected = {
        "run_id": run_id, "task": "detection", "method": "residual_linear", "variant": "residual_linear",
        "trained_on": "lama+ldm", "seed": 7, "weights": "random weights", "device": "cpu", "node": "here",
        "gpu_share": 0.5, "seconds": 1.5, "url": f"#/experiments/{grid.tracker.experiment_id}/runs/{run_id}",
    }  # fmt: skip
    assert row[list(expected)].to_dict() == expected
    assert json.loads(row["config"]) == dict(spec.config)
    assert row["start"] <= row["end"]
    assert row["end"].tzname() == "UTC"


def test_the_store_says_whose_it_is(grid: Grid) -> None:
    grid.finish(grid.spec())
    store = grid.open()
    assert (store.experiment, store.data, store.corpus) == ("dolos", grid.manifest.digest, "dolos")
    assert store.parent.info.run_id == grid.tracker.parent_id
    assert store.parent.data.tags[names.ROLE] == names.GRID_ROLE


def moved(store: Store, uri: str, **changes: bool) -> Store:
    """The same grid, as if it had been read from another address."""
    return dataclasses.replace(store, records=dataclasses.replace(store.records, uri=uri, **changes))


def test_a_server_is_linked_to(grid: Grid) -> None:
    (run_id,) = grid.finish(grid.spec())
    store = moved(grid.open(), "http://somewhere:5000/")
    link = store.runs()["url"].iloc[0]
    assert link == f"http://somewhere:5000/#/experiments/{store.records.experiment_id}/runs/{run_id}"


def test_configurations_that_differ_are_never_one_variant(grid: Grid) -> None:
    grid.finish(grid.spec(l2=0.1), grid.spec(l2=0.5), grid.spec("clip_linear"))
    results = grid.open().results()
    assert set(results["variant"]) == {"residual_linear (l2=0.1)", "residual_linear (l2=0.5)", "clip_linear"}
    assert results.groupby(["variant", "tested_on", "metric"]).size().max() == 1


def test_names_of_variants() -> None:
    configs = [{"a": 1, "b": True}, {"a": 2, "b": True}, {"a": 2, "b": False}, {"a": 2, "b": False, "c": "x"}]
    texts = [json.dumps(config) for config in configs]
    called = variant_names([("m", text) for text in texts] + [("n", "{}")])
    assert [called["m", text] for text in texts] == [
        "m (a=1, b=True, c=unset)", "m (a=2, b=True, c=unset)", "m (a=2, b=False, c=unset)", "m (a=2, b=False, c=x)",
    ]  # fmt: skip
    assert called["n", "{}"] == "n"


def test_results_are_the_logged_values_of_finished_trials(grid: Grid) -> None:
    spec = grid.spec()
    (run_id,) = grid.finish(spec)
    unfinished = grid.tracker.open_trial(grid.spec(seed=1), {})
    unfinished.log_epoch(1, {"test/lama/accuracy": 1.0})
    results = grid.open().results()
    logged = grid.tracker.client.get_run(run_id).data.metrics
    found = {f"test/{row.tested_on}/{row.metric}": row.value for row in results.itertuples()}
    assert found == {name: value for name, value in logged.items() if name.startswith("test/")}
    assert set(results["run_id"]) == {run_id}
    pd.testing.assert_frame_equal(open_store(tracking_uri=grid.tracker.uri).results(), results)


def test_of_several_runs_of_a_trial_one_speaks(grid: Grid) -> None:
    spec = grid.spec()
    (first,) = grid.finish(spec)
    grid.finish(spec)
    failed = grid.tracker.open_trial(spec, {})
    failed.fail(RuntimeError(), "")
    runs = grid.open().runs()
    assert runs["run_id"].tolist() == [first]


def test_history_is_everything_over_epochs(grid: Grid) -> None:
    ids = grid.finish(grid.spec(), grid.spec(seed=1))
    store = grid.open()
    history = store.history()
    assert list(history.columns) == HISTORY_COLUMNS
    loss = history[(history["run_id"] == ids[0]) & (history["metric"] == "train/loss")]
    assert loss[["step", "value"]].to_numpy().tolist() == [[1, 0.7], [2, 0.5]]
    assert set(history["metric"]) == {"train/loss"}
    assert set(store.history([ids[1]])["run_id"]) == {ids[1]}


def test_artifacts_come_back_as_they_were_written(grid: Grid) -> None:
    spec = grid.spec()
    (run_id,) = grid.finish(spec)
    store = grid.open()
    scores = store.scores(run_id)
    pd.testing.assert_frame_equal(scores, made_scores(spec, grid.manifest))
    assert list(store.scores(run_id, columns=["label", "score"]).columns) == ["label", "score"]
    embeddings = store.embeddings(run_id)
    assert (embeddings.dtype, embeddings.shape) == (np.float16, (len(scores), 2))
    assert (store.checkpoint(run_id) / "model.json").is_file()
    assert TrialSpec.from_dict(store.spec(run_id)) == spec
    assert store.threshold(run_id) == 0.25
    with pytest.raises(StoreError, match=r"no trial of 'dolos' .* has the run id 'nobody'"):
        store.scores("nobody")


@pytest.mark.parametrize("damage", ["gone", "cut short", "another format"])
@pytest.mark.parametrize("name", [names.SCORES, names.EMBEDDINGS, names.SPEC])
def test_a_broken_artifact_is_named_with_the_remedy(grid: Grid, name: str, damage: str) -> None:
    (run_id,) = grid.finish(grid.spec(seed=3))
    path = grid.artifact(run_id, name)
    content = path.read_bytes()
    path.write_bytes({"gone": b"", "cut short": content[: len(content) // 2], "another format": b"<html>"}[damage])
    if damage == "gone":
        path.unlink()
    store = grid.open()
    read = {names.SCORES: store.scores, names.EMBEDDINGS: store.embeddings, names.SPEC: store.spec}[name]
    with pytest.raises(StoreError) as caught:
        read(run_id)
    message = str(caught.value)
    assert f"{name} of run {run_id} (residual_linear/lama/seed3)" in message
    assert f"mlflow runs delete --run-id {run_id}" in message
    assert "launch.py dolos" in message
    assert "--seeds 3" in message


def test_scores_without_their_columns_are_broken(grid: Grid) -> None:
    (run_id,) = grid.finish(grid.spec())
    path = grid.artifact(run_id, names.SCORES)
    pd.DataFrame({"path": ["a"]}).to_parquet(path)
    with pytest.raises(StoreError, match="no column digest, source_id"):
        grid.open().scores(run_id)


def damaged(scores: pd.DataFrame, damage: str) -> pd.DataFrame:
    """The scores of a run after something has happened to them."""
    if damage == "dropped":
        return scores.drop(index=7)
    if damage == "doubled":
        return pd.concat([scores, scores.iloc[[3, 5]]])
    if damage == "another image":
        return scores.assign(digest=["0" * 64, *scores["digest"][1:]])
    if damage == "another class":
        return scores.assign(label=1 - scores["label"])
    if damage == "no class":
        return scores.assign(label=[7, *scores["label"][1:]])
    if damage == "no name":
        return scores.assign(generator=[None, *scores["generator"][1:]])
    if damage == "negated":
        return scores.assign(score=-scores["score"])
    if damage == "no logits":
        return scores.drop(columns="logit_real")
    if damage == "text":
        return scores.assign(score=scores["score"].astype(str))
    return scores.assign(score=[{"nan": np.nan, "infinity": np.inf}[damage], *scores["score"][1:]])


DAMAGES = {
    "dropped": "its 119 rows are not those of the data set's 120 test images",
    "doubled": "122 rows hold 120 images: at least one image is there twice",
    "another image": "its 120 rows are not those of the data set's 120 test images",
    "another class": "its 120 rows are not those of the data set's 120 test images",
    "no class": "a label is neither 0 nor 1",
    "no name": "a value of path, digest, source_id, generator, label is missing",
    "nan": "the column score has 1 value that is not finite",
    "infinity": "the column score has 1 value that is not finite",
    "text": "the column score holds no numbers",
    "negated": "they give an accuracy of ",
    "no logits": "no column logit_real",
}


def test_scores_that_are_not_those_of_the_test_images_are_broken(grid: Grid) -> None:
    (run_id,) = grid.finish(grid.spec(), conditions=["jpeg-75"])
    for condition, other in (("clean", "jpeg-75"), ("jpeg-75", "clean")):
        name = names.condition_artifact(condition, names.SCORES)
        path = grid.artifact(run_id, name)
        whole, store = pd.read_parquet(path), grid.open()
        for damage, said in DAMAGES.items():
            damaged(whole, damage).to_parquet(path)
            for columns in (None, ["label", "score"]):
                with pytest.raises(StoreError) as caught:
                    store.scores(run_id, columns, condition=condition)
                assert f"{name} of run {run_id} (residual_linear/lama/seed0)" in str(caught.value)
                assert said in str(caught.value)
            assert len(store.scores(run_id, condition=other)) == 120
        whole.to_parquet(path)


def test_rows_in_another_order_and_of_a_moved_data_folder_are_sound(grid: Grid) -> None:
    (run_id,) = grid.finish(grid.spec())
    path = grid.artifact(run_id, names.SCORES)
    scores = pd.read_parquet(path).sample(frac=1, random_state=0)
    scores.assign(path="elsewhere/" + scores["path"]).to_parquet(path)
    assert len(grid.open().scores(run_id)) == 120


def test_of_a_grid_that_did_not_record_its_test_images_the_logged_accuracy_is_asked(grid: Grid) -> None:
    (run_id,) = grid.finish(grid.spec())
    path = grid.artifact(run_id, names.SCORES)
    scores = pd.read_parquet(path)
    grid.tracker.client.delete_tag(grid.tracker.parent_id, names.TEST_IMAGES)
    assert len(grid.open().scores(run_id)) == 120
    damaged(scores, "dropped").to_parquet(path)
    with pytest.raises(StoreError, match="they give an accuracy of "):
        grid.open().scores(run_id)
    damaged(scores, "doubled").to_parquet(path)
    with pytest.raises(StoreError, match="there twice"):
        grid.open().scores(run_id)


@pytest.mark.long
def test_a_run_with_broken_scores_is_left_out_of_the_report_and_named(grid: Grid, tmp_path: Path) -> None:
    ids = grid.finish(grid.spec(seed=0), grid.spec(seed=1), conditions=["jpeg-75"])
    path = grid.artifact(ids[1], names.condition_artifact("jpeg-75", names.SCORES))
    damaged(pd.read_parquet(path), "nan").to_parquet(path)
    page = make_report(grid.open(), tmp_path / "report", Options(cam=False, log=False)).read_text(encoding="utf-8")
    assert f"Left out: conditions/jpeg-75/scores.parquet of run {ids[1]}" in page
    assert "1 of 2 trials finished" in page


def test_an_empty_checkpoint_is_broken(grid: Grid) -> None:
    (run_id,) = grid.finish(grid.spec())
    (grid.artifact(run_id, "checkpoint") / "model.json").unlink()
    with pytest.raises(StoreError, match="the folder is empty"):
        grid.open().checkpoint(run_id)


def test_what_lies_elsewhere_is_fetched_once(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run_id,) = grid.finish(grid.spec())
    store = grid.open()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("grid.records.artifact_folder", lambda uri, recorded: None)
    folder, scores = store.checkpoint(run_id), store.scores(run_id)
    assert folder.is_relative_to(tmp_path / "cache")
    assert sorted(path.name for path in folder.parent.iterdir()) == [names.CHECKPOINT, names.SCORES]
    monkeypatch.setattr(MlflowClient, "download_artifacts", None)
    assert store.checkpoint(run_id) == folder
    pd.testing.assert_frame_equal(store.scores(run_id), scores)


def test_what_cannot_be_fetched_is_named(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run_id,) = grid.finish(grid.spec())
    store = grid.open()
    grid.artifact(run_id, names.SCORES).unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("grid.records.artifact_folder", lambda uri, recorded: None)
    with pytest.raises(StoreError, match=f"scores.parquet of run {run_id}"):
        store.scores(run_id)


def test_a_server_that_went_away_is_no_reason_to_delete_a_run(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run_id,) = grid.finish(grid.spec())
    store = moved(grid.open(), "http://somewhere", patient=True)  # or it is asked first whether it is there

    def gone(*arguments: object) -> None:
        raise MlflowException("API request to http://somewhere failed with exception ...")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("grid.records.artifact_folder", lambda uri, recorded: None)
    monkeypatch.setattr(MlflowClient, "list_artifacts", gone)
    with pytest.raises(StoreError, match="Is the server running") as caught:
        store.scores(run_id)
    assert "delete" not in str(caught.value)


def test_a_lost_plan_leaves_what_has_run(grid: Grid, caplog: pytest.LogCaptureFixture) -> None:
    grid.plan(grid.spec(seed=1))
    grid.finish(grid.spec(l2=0.5))
    planned = grid.open().runs()
    (grid.artifact(grid.tracker.parent_id, names.PLAN)).write_text("{")
    runs = grid.open().runs()
    assert runs["state"].tolist() == ["finished"]
    assert runs["config"].tolist() == planned.loc[planned["state"] == "finished", "config"].tolist()
    assert f"{names.PLAN} of the grid's run {grid.tracker.parent_id}" in caplog.text


def test_trials_of_a_task_that_this_checkout_lacks_are_left_out_and_told(
    grid: Grid, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, other = grid.finish(grid.spec(), grid.spec(seed=1))
    plan = grid.artifact(grid.tracker.parent_id, names.PLAN)
    trials = json.loads(plan.read_text())
    trials["trials"][1]["task"] = "of-another-checkout"
    plan.write_text(json.dumps(trials))
    grid.tracker.client.set_tag(other, names.TASK, "of-another-checkout")
    store = grid.open()
    assert store.runs()["run_id"].tolist() == [kept]
    assert "1 trial is left out: this checkout does not have its task 'of-another-checkout'" in caplog.text
    make_report(store, grid.folder / "report", Options(cam=False, log=False))
    console = Console(width=120)
    print_status(grid.name, grid.tracker.uri, console)
    printed = capsys.readouterr().out
    assert "1 finished of 1" in printed
    assert "trials of of-another-checkout are left out: this checkout has no such task" in printed


def test_reading_writes_nothing(grid: Grid) -> None:
    (run_id,) = grid.finish(grid.spec())
    before = {path: path.read_bytes() for path in grid.folder.rglob("*") if path.is_file()}
    store = grid.open()
    store.results(), store.history(), store.scores(run_id), store.missing_command()
    assert {path: path.read_bytes() for path in grid.folder.rglob("*") if path.is_file()} == before


def test_what_is_handed_out_may_be_changed(grid: Grid) -> None:
    grid.finish(grid.spec())
    store = grid.open()
    runs = store.runs()
    runs["state"] = "changed"
    assert store.runs()["state"].tolist() == ["finished"]


# ---- conditions


def test_scores_under_a_condition_come_back_as_they_were_written(grid: Grid) -> None:
    spec = grid.spec()
    (run_id,) = grid.finish(spec, conditions=["jpeg-75"])
    store = grid.open()
    found = store.scores(run_id, condition="jpeg-75")
    pd.testing.assert_frame_equal(found, made_scores(spec, grid.manifest, "jpeg-75"))
    assert (found["score"] != store.scores(run_id)["score"]).all()
    grid.artifact(run_id, "conditions/jpeg-75/scores.parquet").unlink()
    with pytest.raises(StoreError, match=f"conditions/jpeg-75/scores.parquet of run {run_id}"):
        store.scores(run_id, condition="jpeg-75")
    assert len(store.scores(run_id)) == len(found)


def test_runs_from_before_there_were_conditions_are_clean(grid: Grid) -> None:
    spec = grid.spec()
    (run_id,) = grid.finish(spec)
    scores = made_scores(spec, grid.manifest)
    scores.drop(columns="condition").to_parquet(grid.artifact(run_id, names.SCORES), index=False)
    client = grid.tracker.client
    for of_run in (run_id, grid.tracker.parent_id):
        for tag in (names.CONDITIONS, names.TRAIN_CONDITION):
            if tag in client.get_run(of_run).data.tags:
                client.delete_tag(of_run, tag)
    store = grid.open()
    assert store.conditions == ["clean"]
    assert set(store.results()["condition"]) == {"clean"}
    assert store.runs()["train_condition"].tolist() == ["clean"]
    pd.testing.assert_frame_equal(store.scores(run_id), scores)
    assert list(store.scores(run_id))[: len(SCORE_COLUMNS) + 1] == [*SCORE_COLUMNS, "condition"]
    assert store.missing_command() == ""


def test_what_was_trained_under_another_condition_is_another_variant(grid: Grid) -> None:
    trials = [grid.spec(), grid.spec(train_condition="jpeg-95"), grid.spec("clip_linear", train_condition="jpeg-95")]
    ids = grid.finish(*trials)
    grid.plan(grid.spec(seed=1, train_condition="jpeg-95"))
    runs = grid.open().runs()
    assert runs["variant"].tolist() == [
        "residual_linear (train_condition=clean)", "residual_linear (train_condition=jpeg-95)", "clip_linear",
        "residual_linear (train_condition=jpeg-95)",
    ]  # fmt: skip
    assert runs["train_condition"].tolist() == ["clean", "jpeg-95", "jpeg-95", "jpeg-95"]
    assert runs["run_id"].tolist() == [*ids, ""]
    assert set(grid.open().results().groupby("variant")["run_id"].nunique()) == {1}


# ---- what is known of the corpus


def test_generators_come_in_the_order_of_the_corpus(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path, generators=("repaint", "zeta", "lama", "alpha", "ldm"), num_each=3)
    grid.finish(grid.spec(train="zeta"))
    opened = grid.open()
    assert opened.generators == ["lama", "ldm", "repaint", "alpha", "zeta"]
    assert opened.ordered(["zeta", "ldm", "alpha", "lama"]) == ["lama", "ldm", "alpha", "zeta"]
    assert opened.source.published is not None


@pytest.mark.parametrize("corpus", ["folders", "of another checkout"])
def test_without_facts_of_the_corpus_generators_come_in_alphabetical_order(
    store: str, tmp_path: Path, corpus: str
) -> None:
    grid = Grid(store, tmp_path, generators=("repaint", "pluralistic", "ldm", "lama"), num_each=3, corpus=corpus)
    grid.finish(grid.spec())
    opened = grid.open()
    assert opened.corpus == corpus
    assert opened.generators == ["lama", "ldm", "pluralistic", "repaint"]
    assert opened.source.published is None


def test_a_trial_without_generators_adds_none(grid: Grid) -> None:
    grid.finish(grid.spec(train="none"))
    opened = grid.open()
    assert opened.generators == ["lama", "ldm", "repaint"]
    assert opened.runs()["trained_on"].tolist() == ["none"]


# ---- what is refused


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for uri in (
        f"sqlite:///{tmp_path / 'no' / 'mlflow.db'}",
        f"sqlite:///{tmp_path / 'mlflow.db'}",
        str(tmp_path / "mlruns"),
    ):
        with pytest.raises(StoreError, match=r"no MLflow store at .*launch.py"):
            open_store("dolos", tracking_uri=uri)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    empty, text, other = tmp_path / "empty.db", tmp_path / "text.db", tmp_path / "other.db"
    empty.touch()
    text.write_text("not a database, but long enough to look at" * 100)
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE something (x)")
    connection.close()
    for path in (empty, text, other):
        before = path.read_bytes()
        with pytest.raises(StoreError, match=r"no MLflow store|cannot be read as an MLflow store"):
            open_store("dolos", tracking_uri=f"sqlite:///{path}")
        assert path.read_bytes() == before


def test_a_server_that_is_not_there_is_given_up_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with socket.socket() as silent:  # takes the call and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        closed = socket.socket()
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        closed.close()
        for uri in (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{silent.getsockname()[1]}"):
            start = time.monotonic()
            with pytest.raises(StoreError, match="Is the server running") as caught:
                open_store("dolos", tracking_uri=uri)
            assert time.monotonic() - start < 15
            assert uri in str(caught.value)
    assert dict(os.environ) == before


def test_a_server_that_went_away_since_is_given_up_within_seconds_too(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)  # MLflow's own are seven, which take minutes
    grid.finish(grid.spec())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        store = moved(grid.open(), uri)
        start = time.monotonic()
        with pytest.raises(StoreError, match=f"cannot read MLflow at {uri}.*refused\\W+Is the server running"):
            store.history()
    assert time.monotonic() - start < 5


def test_an_unknown_experiment_is_answered_with_those_that_exist(grid: Grid) -> None:
    grid.finish(grid.spec())
    with pytest.raises(StoreError, match=r"no MLflow experiment named 'doloss' .*there are: Default, dolos"):
        open_store("doloss", tracking_uri=grid.tracker.uri)


def test_a_deleted_experiment_can_be_restored(grid: Grid) -> None:
    grid.tracker.client.delete_experiment(grid.tracker.experiment_id)
    with pytest.raises(StoreError, match=f"mlflow experiments restore -x {grid.tracker.experiment_id}"):
        grid.open()


def test_the_only_grid_needs_no_name(grid: Grid, tmp_path: Path) -> None:
    grid.finish(grid.spec())
    assert open_store(tracking_uri=grid.tracker.uri).experiment == "dolos"
    Grid(grid.tracker.uri, tmp_path / "other", name="other")
    with pytest.raises(StoreError, match="several grids; choose one with --experiment: dolos, other"):
        open_store(tracking_uri=grid.tracker.uri)


def test_a_store_without_a_grid_says_so(store: str) -> None:
    with pytest.raises(StoreError, match=r"no experiment at .* holds a grid"):
        open_store(tracking_uri=store)
    with pytest.raises(StoreError, match=r"'Default' at .* holds no grid"):
        open_store("Default", tracking_uri=store)


def test_the_place_comes_from_the_environment(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    grid.finish(grid.spec())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", grid.tracker.uri)
    assert open_store("dolos").tracking_uri == grid.tracker.uri


def test_data_sets_are_never_mixed(grid: Grid, tmp_path: Path) -> None:
    grid.finish(grid.spec())
    other = Grid(grid.tracker.uri, tmp_path, num_each=31)
    other.finish(other.spec(), other.spec(seed=1))
    first, second = grid.manifest.digest, other.manifest.digest
    assert len(grid.open().runs()) == 2
    assert len(grid.open(data=first).runs()) == 1
    assert len(grid.open(data=second[:6]).runs()) == 2
    with pytest.raises(
        StoreError, match=r"no data set 'zzz'; there are: images=372: no limit \(.*; images=360: no limit"
    ):
        grid.open(data="zzz")


def test_spec_versions_are_never_mixed(grid: Grid) -> None:
    spec = grid.spec()
    old = TrialSpec(spec.task, spec.method, spec.config, spec.train_generators, 1, spec.data, version=0)
    (old_id, new_id) = grid.finish(old, spec)
    with pytest.raises(StoreError, match=r"several spec versions.*--spec-version") as caught:
        grid.open()
    assert old_id in str(caught.value)
    for version, run_id in ((0, old_id), (1, new_id)):
        assert grid.open(spec_version=version).runs()["run_id"].tolist() == [run_id]
    with pytest.raises(StoreError, match="no run of spec version 9"):
        grid.open(spec_version=9)


def test_a_grid_without_a_finished_trial_is_not_ready(grid: Grid) -> None:
    grid.plan(grid.spec())
    with pytest.raises(StoreError, match="is finished yet: none has started"):
        grid.open()
    grid.tracker.open_trial(grid.spec(), {})
    with pytest.raises(StoreError, match=f"{grid.tracker.parent_id}.* 1 running.*--status"):
        grid.open()


def test_such_a_grid_can_be_read_where_that_is_asked_for(grid: Grid) -> None:
    grid.plan(grid.spec())
    opened = grid.open(unfinished=True)
    assert opened.runs()["state"].tolist() == ["pending"]
    assert opened.results().empty


def test_a_lost_parent_can_be_restored(grid: Grid) -> None:
    grid.finish(grid.spec())
    grid.tracker.client.delete_run(grid.tracker.parent_id)
    with pytest.raises(StoreError, match=f"mlflow runs restore --run-id {grid.tracker.parent_id}"):
        grid.open()


def test_the_newest_parent_speaks(grid: Grid) -> None:
    grid.finish(grid.spec())
    grid.tracker.client.delete_run(grid.tracker.parent_id)
    tracker = open_grid(grid.tracker.uri, "dolos", grid.manifest, [grid.spec()], grid.folder / "artifacts")
    assert grid.open().parent.info.run_id == tracker.parent_id
