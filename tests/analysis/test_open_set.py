"""The task `open_set` end to end on a tiny grid, and every number of its section, derived again from stored rows."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from analysis.figures.open_set import landing_figure
from analysis.open_set import landing_table, logged_table, open_set_tables, verdicts
from analysis.page import Bullets, Folder, Picture, Table, Text
from analysis.parts import Options, Report
from analysis.parts.open_set import open_set
from analysis.store import Store, StoreError, open_store
from analysis.text import print_results
from grid import names
from grid.plan import Work
from grid.spec import TrialSpec
from grid.tasks import OPEN_SET
from models.open_set import UNKNOWN_SCORES
from tests.analysis.grids import GENERATORS
from tests.analysis.grids import Grid as Made
from tests.grid.grids import fresh_store, make_manifest, make_settings, make_spec, open_grid, write_obvious
from tests.grid.running import Grid

CONDITION = "jpeg-75"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, list[TrialSpec]]:
    """Three trials that were really run, each with one of three generators left out."""
    folder = tmp_path_factory.mktemp("open-set")
    uri = fresh_store(tmp_path_factory.getbasetemp(), folder / "runs")
    settings = dataclasses.replace(make_settings(folder, uri), runs=folder / "runs")
    root = write_obvious(folder / "dolos", GENERATORS, {"train": 10, "valid": 4, "test": 6})
    manifest = make_manifest(root, settings)
    specs = [
        make_spec(manifest.digest, task=OPEN_SET, train=[one for one in GENERATORS if one != left_out])
        for left_out in GENERATORS
    ]
    tracker = open_grid(uri, "dolos", manifest, specs, settings.runs / "artifacts")
    grid = Grid(settings, manifest, tracker)
    grid.run(*specs)
    return grid, specs


@pytest.fixture(scope="module")
def store(run: tuple[Grid, list[TrialSpec]]) -> Store:
    return open_store("dolos", tracking_uri=run[0].tracker.uri)


# A trial -------------------------------------------------------------------------------------------------------------


def test_every_trial_has_each_score_of_every_test_image(run: tuple[Grid, list[TrialSpec]]) -> None:
    grid, specs = run
    for spec in specs:
        scores = grid.scores(spec)
        assert len(scores) == len(grid.manifest.select("test", GENERATORS)) == 24
        columns = [name for name in scores.columns if name.startswith("unknown_")]
        assert columns == [f"unknown_{name}" for name in UNKNOWN_SCORES]
        assert np.isfinite(scores[columns].to_numpy()).all()


def test_what_was_logged_follows_from_the_stored_rows_and_numpy(run: tuple[Grid, list[TrialSpec]]) -> None:
    grid, specs = run
    for spec, left_out in zip(specs, GENERATORS, strict=True):
        scores, logged = grid.scores(spec), grid.run_of(spec).data.metrics
        unknown = (scores["generator"] == left_out).to_numpy()
        classes = ["real", *spec.train_generators]
        answered = np.array(classes)[scores[[f"logit_{name}" for name in classes]].to_numpy().argmax(axis=1)]
        right = answered == scores["generator"].to_numpy()
        prefix = f"test/{left_out}"
        assert logged[f"{prefix}/accuracy"] == right[~unknown].mean()
        for name in UNKNOWN_SCORES:
            values = scores[f"unknown_{name}"].to_numpy()
            assert logged[f"{prefix}/unknown_auroc/{name}"] == pytest.approx(roc_auc_score(unknown, values), abs=1e-12)
            below = values[~unknown][:, None] < values[unknown]
            ties = values[~unknown][:, None] == values[unknown]
            pairs = right[~unknown][:, None] * (below + ties / 2)
            assert logged[f"{prefix}/oscr/{name}"] == pytest.approx(pairs.mean(), abs=1e-12)
        landed = {name: float((answered[unknown] == name).mean()) for name in classes}
        assert {name: logged[f"{prefix}/lands_on/{name}"] for name in classes} == landed
        assert f"{prefix}/lands_on/{left_out}" not in logged


def test_the_softmax_and_the_energy_follow_from_the_stored_logits(run: tuple[Grid, list[TrialSpec]]) -> None:
    scores = run[0].scores(run[1][0])
    logits = scores[[f"logit_{name}" for name in run[1][0].classes]].to_numpy(float)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    largest = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)
    np.testing.assert_allclose(np.exp(-scores["unknown_softmax"]), largest, rtol=1e-9)
    np.testing.assert_allclose(np.exp(-scores["unknown_energy"]), np.exp(logits).sum(axis=1), rtol=1e-9)


def test_under_another_condition_the_checkpoint_gives_the_scores_and_nothing_is_fitted(
    run: tuple[Grid, list[TrialSpec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, specs = run
    monkeypatch.setattr("models.linear.LinearDetector.fit", None)
    before = grid.artifacts(specs[0])
    state = grid.state(specs[0])
    assert state is not None
    grid.execute(Work(specs[0], (CONDITION,), state.run_id))
    assert before.items() <= grid.artifacts(specs[0]).items()
    scores, clean = grid.scores(specs[0], CONDITION), grid.scores(specs[0])
    for name in UNKNOWN_SCORES:
        column = f"unknown_{name}"
        assert np.isfinite(scores[column]).all()
        assert not np.allclose(scores[column], clean[column])
    assert f"test.{CONDITION}/lama/unknown_auroc/knn" in grid.run_of(specs[0]).data.metrics


def test_only_its_own_checkpoints_keep_training_embeddings(run: tuple[Grid, list[TrialSpec]]) -> None:
    grid, specs = run
    assert f"{names.CHECKPOINT}/{names.KNOWN_CLASSES}" in grid.artifacts(specs[0])
    other = make_spec(grid.manifest.digest, task="attribution", train=GENERATORS)
    grid.run(other)
    assert not [name for name in grid.artifacts(other) if name.endswith(names.KNOWN_CLASSES)]
    assert not [name for name in grid.scores(other).columns if name.startswith("unknown_")]


# Tables --------------------------------------------------------------------------------------------------------------


def test_the_tables_hold_the_logged_values_with_intervals_around_them(store: Store) -> None:
    table, accuracy = open_set_tables(store)
    assert table[["left_out", "score"]].to_numpy().tolist() == [
        [left_out, score] for left_out in store.ordered(GENERATORS) for score in UNKNOWN_SCORES
    ]
    results = store.results()
    logged = {(row.tested_on, row.metric): row.value for row in results[results["condition"] == "clean"].itertuples()}
    for row in table.itertuples():
        for column, metric in (("auroc", "unknown_auroc"), ("oscr", "oscr"), ("fpr95", "unknown_fpr95")):
            value = getattr(row, column)
            assert value == pytest.approx(logged[row.left_out, f"{metric}/{row.score}"], abs=1e-12)
            assert getattr(row, f"{column}_low") <= value <= getattr(row, f"{column}_high")
    assert accuracy["accuracy"].tolist() == [logged[name, "accuracy"] for name in accuracy["left_out"]]


def made(store: str, folder: Path) -> Made:
    return Made(store, folder, num_each=12)


@pytest.fixture
def new(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "runs"), tmp_path)


def test_seeds_are_averaged_and_the_difference_is_paired(new: Made) -> None:
    new.finish(new.open_set(seed=0), new.open_set(seed=1))
    table, _ = open_set_tables(new.open())
    assert table["num_seeds"].tolist() == [2] * 4
    values = table.set_index("score")
    assert values.loc["knn", "difference"] == pytest.approx(values.loc["knn", "auroc"] - values.loc["softmax", "auroc"])
    assert np.isnan(values.loc["softmax", "difference"])
    assert values.loc["knn", "difference_low"] < values.loc["knn", "difference"] < values.loc["knn", "difference_high"]


def test_where_the_unknown_land_is_counted_and_the_own_class_is_no_class(store: Store, new: Made) -> None:
    counts = landing_table(store, "residual_linear")
    assert counts.columns.tolist() == ["real", *store.ordered(GENERATORS)]
    assert counts.sum(axis=1).tolist() == [6.0] * 3
    assert [np.isnan(counts.loc[name, name]) for name in GENERATORS] == [True] * 3
    new.finish(new.open_set(seed=0), new.open_set(seed=1))
    assert landing_table(new.open(), "residual_linear").loc["lama"].sum() == 24  # 12 images, two seeds


def test_scores_without_their_columns_are_refused(new: Made) -> None:
    (run_id,) = new.finish(new.open_set())
    path = new.artifact(run_id, names.SCORES)
    scores = pd.read_parquet(path)
    scores.drop(columns=[name for name in scores if str(name).startswith("unknown_")]).to_parquet(path)
    with pytest.raises(StoreError, match="no column unknown_softmax"):
        open_set_tables(new.open())
    scores.assign(unknown_knn=np.nan).to_parquet(path)
    with pytest.raises(StoreError, match="the column unknown_knn has 48 values that are not finite"):
        open_set_tables(new.open())


def frame(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["left_out", "score", "auroc", "difference_low"]).assign(variant="m")


def test_the_verdict_counts_generators_of_each_distance() -> None:
    rows = [(left_out, "softmax", 0.5, np.nan) for left_out in "abcd"]
    rows += [("a", "mahalanobis", 0.9, 0.2), ("b", "mahalanobis", 0.6, -0.1), ("c", "mahalanobis", 0.7, 0.1)]
    rows += [("d", "mahalanobis", 0.5, -0.3), *((left_out, "knn", 0.4, -0.2) for left_out in "abcd")]
    (sentence,) = verdicts(frame(*rows))
    assert sentence == (
        "m: a distance beats the largest softmax on most of the left-out generators: the Mahalanobis distance on 3 of "
        "4 (on 2 the interval of the difference lies above 0), the k-NN distance on 0 of 4 (on 0 the interval of the "
        "difference lies above 0)"
    )


def test_the_verdict_says_when_no_distance_is_better() -> None:
    rows = [(left_out, score, auroc, -0.1) for left_out in "ab" for score, auroc in (("softmax", 0.5), ("knn", 0.4))]
    assert verdicts(frame(*rows)) == ["m: no distance beats the largest softmax on any of 2 left-out generators"]
    (sentence,) = verdicts(frame(*rows[:3], ("b", "knn", 0.6, -0.1)).drop(columns="difference_low"))
    assert sentence.endswith("no distance beats the largest softmax on most of the left-out generators: the k-NN "
                             "distance on 1 of 2")  # fmt: skip


# What a reader sees --------------------------------------------------------------------------------------------------


def begun(store: Store, out: Path) -> Report:
    return Report(store, Folder(out), Options(), [], lambda text: None)


def test_the_section_has_a_sentence_two_tables_and_a_picture(store: Store, tmp_path: Path) -> None:
    report = begun(store, tmp_path / "out")
    introduction, sentences, table, accuracy, picture, *_ = open_set(report)
    assert isinstance(introduction, Text)
    assert isinstance(sentences, Bullets)
    (sentence,) = sentences.items
    assert re.search(r"distance beats the largest softmax on .* Called real most often: \w+, \d of 6", sentence.text)
    assert isinstance(table, Table)
    assert len(table.rows) == 12
    assert isinstance(accuracy, Table)
    assert isinstance(picture, Picture)
    assert "lama: real " in picture.alt
    written = pd.read_csv(report.folder.path / "tables" / "open-set.csv")
    assert written["auroc"].tolist() == pytest.approx(open_set_tables(store)[0]["auroc"].tolist())
    assert (report.folder.path / "tables" / "landing-residual_linear.csv").is_file()


def test_a_grid_without_the_task_has_no_section_and_an_unfinished_one_names_the_command(
    new: Made, tmp_path: Path
) -> None:
    new.finish(new.spec())
    assert list(open_set(begun(new.open(), tmp_path / "a"))) == []
    new.plan(new.open_set())
    _, missing = open_set(begun(new.open(), tmp_path / "b"))
    assert isinstance(missing, Text)
    assert "no open-set trial is finished" in missing.text
    assert "--tasks open_set --train-on ldm+repaint" in missing.command


def test_the_terminal_has_a_row_per_left_out_generator_and_the_sentence(store: Store) -> None:
    console = Console(width=160)
    with console.capture() as capture:
        print_results(store.results(), console, store)
    text = capture.get()
    assert "AUROC of images of the generator that was left out" in text
    assert [word in text for word in ("accuracy on known", "largest softmax", "k-NN distance", "called real")] == [
        True
    ] * 4
    table = logged_table(store.results(), store)
    assert table["left out"].tolist() == store.ordered(GENERATORS)
    results = store.results()
    chosen = (results["tested_on"] == "ldm") & (results["metric"] == "unknown_auroc/knn")
    expected = results.loc[chosen & (results["condition"] == "clean"), "value"].iloc[0]
    assert table.set_index("left out").loc["ldm", "k-NN distance"] == expected
    assert "residual_linear: " in text


def test_the_landing_matrix_says_shares_and_counts() -> None:
    counts = pd.DataFrame([[3.0, np.nan, 1.0], [0.0, 4.0, np.nan]], index=["a", "b"], columns=["real", "a", "b"])
    figure = landing_figure(counts, title="where")
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == ["75%\n3", "25%\n1", "0%\n0", "100%\n4"]
