"""Matrices with their spread and their intervals, computed from a real store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis.cells import (
    CELL,
    CELL_COLUMNS,
    ONE_GENERATOR,
    SEVERAL_GENERATORS,
    IntervalMatrix,
    attribution_with_intervals,
    cell_table,
    compare,
    matrix_with_intervals,
)
from analysis.intervals import Estimate, Interval, Sources, average, difference
from analysis.matrices import class_table, cross_generator_matrix, in_domain_cells, trained_on_label
from analysis.published import beside_published
from analysis.store import Store, StoreError
from analysis.text import print_results
from grid import names
from grid.tasks import cell_rows, class_names, get_task, register_task
from grid.train_sets import TrainSet
from models.metrics import AT_VALIDATION, Answers, Metric, get_metric, register_metric
from models.scoring import attribution_metrics
from tests.analysis.grids import GENERATORS, THRESHOLD, Grid, made_scores
from tests.grid.grids import fresh_store, make_spec

METHODS = ("residual_linear", "clip_linear")
SEEDS = (0, 1, 2)
NewGrid = Callable[..., Grid]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Two methods, three seeds, one planned column that is not there yet and one of a union."""
    folder = tmp_path_factory.mktemp("cells")
    made = Grid(fresh_store(tmp_path_factory.getbasetemp(), folder / "runs"), folder)
    for method in METHODS:
        trained = ["lama", "ldm"] if method == "residual_linear" else ["lama", "ldm", "lama+ldm"]
        made.finish(*(made.spec(method, train=name, seed=seed) for name in trained for seed in SEEDS))
        made.finish(made.attribution(method))
    made.plan(made.spec(train="repaint"))
    return made


@pytest.fixture(scope="module")
def store(grid: Grid) -> Store:
    return grid.open()


@pytest.fixture(scope="module")
def cells(store: Store) -> pd.DataFrame:
    return cell_table(store, metrics=("accuracy", "auroc", "accuracy_valid_threshold"))


@pytest.fixture
def new_grid(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> NewGrid:
    """Makes a grid of this test alone."""

    def make(**named: Any) -> Grid:
        return Grid(fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "runs"), tmp_path, **named)

    return make


def cell_of(cells: pd.DataFrame, **place: str) -> pd.Series:
    rows = cells
    for column, value in ({"kind": CELL, "metric": "accuracy", "variant": "residual_linear"} | place).items():
        rows = rows[rows[column] == value]
    (row,) = rows.to_dict("records")
    return pd.Series(row)


def cell_scores(scores: pd.DataFrame, generator: str) -> pd.DataFrame:
    return scores[cell_rows(scores, generator)]


def estimate_of(frames: list[pd.DataFrame], metric: str, threshold: float = 0.0, *, sources: Sources) -> Estimate:
    """The mean over seeds of a metric of one cell."""
    return average([sources.cell(frame).parts(metric, threshold) for frame in frames])


def interval_alone(frames: list[pd.DataFrame], metric: str, threshold: float = 0.0) -> Interval:
    """Of one cell whose images are the whole test set."""
    return estimate_of(frames, metric, threshold, sources=Sources(frames)).interval


def test_every_logged_figure_comes_out_of_the_logged_scores(store: Store) -> None:
    results = store.results()
    detection = results[results["task"] == "detection"]
    checked = set()
    for (run_id, tested_on), figures in detection.groupby(["run_id", "tested_on"]):
        cell = cell_scores(store.scores(str(run_id)), str(tested_on))
        answers = Sources([cell]).cell(cell)
        for metric, value in zip(figures["metric"], figures["value"], strict=True):
            own = metric.endswith("_valid_threshold")
            threshold = store.threshold(str(run_id)) if own else 0.0
            base = metric.removesuffix("_valid_threshold")
            found = get_metric(base).value(answers.at(threshold))
            assert found == value if "accuracy" in metric else found == pytest.approx(value, abs=1e-6)
            checked.add(base)
    at_a_threshold = {"accuracy", "balanced_accuracy", "real_accuracy", "fake_accuracy"}
    assert checked == at_a_threshold | {"auroc", "ap", "eer", "oracle_accuracy", "tpr_at_fpr_1", "tpr_at_fpr_5"}


def test_so_does_attribution(store: Store) -> None:
    results = store.results()
    rows = results[results["task"] == "attribution"]
    classes = ("real", *sorted(GENERATORS))
    for run_id, figures in rows.groupby("run_id"):
        scores = store.scores(str(run_id))
        truth = scores["generator"].map(classes.index).to_numpy()
        logits = scores[[f"logit_{name}" for name in classes]].to_numpy()
        assert dict(zip(figures["metric"], figures["value"], strict=True)) == attribution_metrics(
            truth, logits, classes
        )


def test_a_cell_has_mean_spread_interval_and_runs(grid: Grid, store: Store, cells: pd.DataFrame) -> None:
    cell = cell_of(cells, trained_on="lama", tested_on="ldm")
    results = store.results()
    wanted = (results["variant"] == "residual_linear") & (results["trained_on"] == "lama")
    rows = results[wanted & (results["tested_on"] == "ldm") & (results["metric"] == "accuracy")]
    assert list(cells.columns) == CELL_COLUMNS
    assert cell["mean"] == pytest.approx(rows["value"].mean())
    assert cell["std"] == pytest.approx(np.std(rows["value"], ddof=1))
    assert (cell["num_seeds"], cell["run_ids"]) == (3, tuple(rows["run_id"]))
    seeds = [cell_scores(made_scores(grid.spec(train="lama", seed=seed), grid.manifest), "ldm") for seed in SEEDS]
    alone = interval_alone(seeds, "accuracy")
    assert (cell["low"], cell["high"]) == pytest.approx((alone.low, alone.high), abs=1e-6)
    assert cell["low"] < cell["mean"] < cell["high"]


def test_a_figure_at_the_runs_own_threshold_has_the_interval_there(grid: Grid, cells: pd.DataFrame) -> None:
    cell = cell_of(cells, trained_on="lama", tested_on="lama", metric="accuracy_valid_threshold")
    seeds = [cell_scores(made_scores(grid.spec(seed=seed), grid.manifest), "lama") for seed in SEEDS]
    alone = interval_alone(seeds, "accuracy", threshold=0.25)
    assert (cell["low"], cell["high"]) == pytest.approx((alone.low, alone.high), abs=1e-6)


def test_the_matrix_is_the_plain_one_with_more_beside_it(store: Store, cells: pd.DataFrame) -> None:
    matrix = matrix_with_intervals(store, "clip_linear", "auroc", cells=cells)
    plain = cross_generator_matrix(store.results(), "clip_linear", "auroc")
    assert list(matrix.mean.columns) == ["lama", "ldm", "lama+ldm"]  # nobody planned to train it on repaint
    pd.testing.assert_frame_equal(matrix.mean, plain[matrix.mean.columns])
    for part in (matrix.std, matrix.num_seeds, matrix.low, matrix.high):
        assert part.index.equals(plain.index)
        assert part.columns.equals(matrix.mean.columns)
    assert matrix.num_seeds.loc["ldm"].tolist() == [3, 3, 3]
    assert (matrix.low["lama"] < matrix.high["lama"]).all()


def test_the_means_have_intervals_of_their_own(store: Store, cells: pd.DataFrame) -> None:
    matrix = matrix_with_intervals(store, "residual_linear", cells=cells)
    for name, value in (
        ("in-domain mean", matrix.means.in_domain),
        ("cross-generator mean", matrix.means.cross_generator),
        ("gap", matrix.means.gap),
    ):
        low, high = matrix.intervals[name]
        assert low < value < high
        assert high - low < np.nanmean(matrix.high - matrix.low) * 2
    rows = cells[(cells["variant"] == "residual_linear") & (cells["kind"] == "gap") & (cells["metric"] == "accuracy")]
    assert rows["mean"].tolist() == pytest.approx([matrix.means.gap])


def test_means_of_one_generator_and_of_several_stand_apart(store: Store, cells: pd.DataFrame) -> None:
    own = cells[(cells["variant"] == "clip_linear") & (cells["metric"] == "auroc") & (cells["task"] == "detection")]
    means, own = own.set_index("kind")["mean"], own[own["kind"] == CELL]
    single, several = own[own["trained_on"] != "lama+ldm"], own[own["trained_on"] == "lama+ldm"]
    several = several.set_index("tested_on")["mean"]
    inside = single["trained_on"] == single["tested_on"]
    assert means["in-domain mean" + ONE_GENERATOR] == pytest.approx(single.loc[inside, "mean"].mean())
    assert means["cross-generator mean" + ONE_GENERATOR] == pytest.approx(single.loc[~inside, "mean"].mean())
    assert means["in-domain mean" + SEVERAL_GENERATORS] == pytest.approx(several[["lama", "ldm"]].mean())
    assert means["cross-generator mean" + SEVERAL_GENERATORS] == pytest.approx(several["repaint"])
    others = cells.loc[cells["variant"] == "residual_linear", "kind"]
    assert not others.str.endswith(SEVERAL_GENERATORS).any()  # it has no training set of several


def test_a_planned_column_stands_empty(store: Store, cells: pd.DataFrame) -> None:
    matrix = matrix_with_intervals(store, "residual_linear", cells=cells)
    assert list(matrix.mean.columns) == ["lama", "ldm", "repaint"]
    assert matrix.mean["repaint"].isna().all()


def test_a_metric_that_images_have_no_part_in_has_no_interval(new_grid: NewGrid) -> None:
    grid = new_grid(num_each=8)
    for run_id in grid.finish(grid.spec(train="lama"), grid.spec(train="ldm")):
        grid.tracker.client.log_metric(run_id, "test/lama/cam_iou", 0.25)
    opened = grid.open()
    matrix = matrix_with_intervals(opened, "residual_linear", "cam_iou", cells=cell_table(opened, metrics=["cam_iou"]))
    assert matrix.mean.loc["lama"].tolist() == [0.25, 0.25]
    assert matrix.low.isna().all(axis=None)
    assert all(np.isnan(bound) for bounds in matrix.intervals.values() for bound in bounds)


def test_an_unknown_variant_is_answered_with_those_that_exist(store: Store, cells: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no detection by 'clip'; there are: residual_linear, clip_linear"):
        matrix_with_intervals(store, "clip", cells=cells)


def test_a_metric_that_nobody_logged_is_missing_everywhere(store: Store) -> None:
    matrix = matrix_with_intervals(store, "clip_linear", "nothing", cells=cell_table(store, metrics=["nothing"]))
    assert matrix.mean.isna().all(axis=None)
    assert np.isnan(matrix.means.gap)


def test_attribution_has_an_interval_for_each_class(store: Store, cells: pd.DataFrame) -> None:
    rows = attribution_with_intervals(store, cells)
    assert rows["class"].tolist() == ["overall", "real", "lama", "ldm", "repaint"] * 2
    wide = rows.pivot_table(index="variant", columns="class", values="mean")
    plain = class_table(store.results(), "attribution")
    pd.testing.assert_frame_equal(wide.loc[plain.index, plain.columns], plain, check_names=False)
    assert ((rows["low"] <= rows["mean"]) & (rows["mean"] <= rows["high"])).all()


def test_comparison_is_the_paired_difference_of_each_cell(grid: Grid, store: Store) -> None:
    table = compare(store, "clip_linear", "residual_linear", "auroc")
    inside = table[(table["kind"] == CELL) & (table["task"] == "detection")]
    assert len(inside) == 6  # what both trained on, tested on each generator
    (row,) = inside[(inside["trained_on"] == "lama") & (inside["tested_on"] == "ldm")].to_dict("records")
    sides = [
        [cell_scores(made_scores(grid.spec(method, seed=seed), grid.manifest), "ldm") for seed in SEEDS]
        for method in ("clip_linear", "residual_linear")
    ]
    sources = Sources([frame for side in sides for frame in side])
    alone = difference(*(estimate_of(side, "auroc", sources=sources) for side in sides))
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(alone[:3], abs=1e-6)
    assert row["p"] == pytest.approx(alone.p)
    assert row["a"] - row["b"] == pytest.approx(row["difference"])
    overall = table[table["kind"] == "mean"].iloc[0]
    assert overall["difference"] == pytest.approx(inside["difference"].mean())
    assert set(table["kind"]) == {CELL, "mean", "in-domain mean", "cross-generator mean"}


def test_a_method_equals_itself_everywhere(store: Store) -> None:
    table = compare(store, "clip_linear", "clip_linear")
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert (table["p"] == 1).all()
    assert set(table["task"]) == {"detection", "attribution"}


def test_what_cannot_be_compared_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="no finished run of 'sam_linear'; there are: residual_linear, clip_linear"):
        compare(store, "clip_linear", "sam_linear")
    with pytest.raises(ValueError, match="no finished cell of 'loss' in common"):
        compare(store, "clip_linear", "residual_linear", "loss")


def test_lost_scores_are_named(grid: Grid, store: Store) -> None:
    runs = store.runs()
    run_id = runs.loc[runs["trained_on"] == "lama+ldm", "run_id"].iloc[0]
    path = grid.folder / "artifacts" / run_id / "artifacts" / names.SCORES
    away = path.rename(path.with_suffix(".away"))
    try:
        with pytest.raises(StoreError, match=f"scores.parquet of run {run_id}"):
            cell_table(store)
    finally:
        away.rename(path)


@pytest.mark.parametrize("task", ["detection", "attribution"])
@pytest.mark.parametrize("damage", ["another photograph", "another generator"])
def test_scores_of_other_images_are_named(grid: Grid, store: Store, damage: str, task: str) -> None:
    runs = store.runs()
    run_id = runs.loc[(runs["task"] == task) & (runs["state"] == "finished"), "run_id"].iloc[-1]
    path = grid.folder / "artifacts" / run_id / "artifacts" / names.SCORES
    content = path.read_bytes()
    scores = pd.read_parquet(path)
    if damage == "another photograph":
        scores.loc[0, "source_id"] = "somebody"
    else:
        scores.loc[scores["generator"] == "lama", "generator"] = "someone"
    scores.to_parquet(path)
    try:
        with pytest.raises(StoreError, match=f"scores.parquet of run {run_id}.*some"):
            cell_table(store)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("trained_on", "label"),
    [
        ("lama", "lama"), ("lama+ldm", "lama + ldm"), ("ldm+pluralistic+repaint", "all but lama"),
        ("lama+ldm+pluralistic+repaint", "all"), ("lama+ldm+other+pluralistic", "lama + ldm + other + pluralistic"),
    ],
)  # fmt: skip
def test_headings_of_unions_are_short(trained_on: str, label: str) -> None:
    assert trained_on_label(trained_on, ["lama", "ldm", "repaint", "pluralistic"]) == label


def test_of_two_generators_neither_is_all_but_the_other() -> None:
    assert trained_on_label("lama", ["lama", "ldm"]) == "lama"
    assert trained_on_label("lama+ldm", ["lama", "ldm"]) == "lama + ldm"


def test_means_have_a_spread_over_the_seeds_that_all_cells_have(new_grid: NewGrid) -> None:
    grid = new_grid(num_each=8)
    grid.finish(*(grid.spec(train=name, seed=seed) for name in GENERATORS for seed in (0, 1)))
    grid.finish(grid.spec(train="lama", seed=2))  # the others lack it
    opened = grid.open()
    results = opened.results()
    results = results[results["metric"] == "accuracy"]
    inside = results[results["trained_on"] == results["tested_on"]].groupby("seed")["value"].mean()
    outside = results[results["trained_on"] != results["tested_on"]].groupby("seed")["value"].mean()
    cells = cell_table(opened).set_index("kind")
    assert cells.loc["in-domain mean", "std"] == pytest.approx(inside.loc[[0, 1]].std(ddof=1))
    assert cells.loc["cross-generator mean", "std"] == pytest.approx(outside.loc[[0, 1]].std(ddof=1))
    assert cells.loc["gap", "std"] == pytest.approx((inside - outside).loc[[0, 1]].std(ddof=1))


def quick_matrix(opened: Store) -> IntervalMatrix:
    return matrix_with_intervals(opened, "residual_linear", cells=cell_table(opened))


def test_what_was_never_planned_is_no_missing_column(new_grid: NewGrid) -> None:
    grid = new_grid(num_each=8)
    grid.finish(grid.spec(train="lama"))
    matrix = quick_matrix(grid.open())
    assert list(matrix.mean.columns) == ["lama"]
    assert list(matrix.mean.index) == list(GENERATORS)
    grid.plan(grid.spec(train="ldm"))
    assert list(quick_matrix(grid.open()).mean.columns) == ["lama", "ldm"]


# Conditions ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conditioned(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Two methods on two training sets with attribution; the first was scored under two conditions as well."""
    folder = tmp_path_factory.mktemp("conditioned")
    made = Grid(fresh_store(tmp_path_factory.getbasetemp(), folder / "runs"), folder, num_each=20)
    for method, conditions in (("residual_linear", ["jpeg-75", "jpeg-50"]), ("clip_linear", [])):
        trials = [made.spec(method, train=name, seed=seed) for name in ("lama", "ldm") for seed in (0, 1)]
        made.finish(*trials, made.attribution(method), conditions=conditions)
    return made


def test_without_being_asked_for_conditions_cells_are_clean(conditioned: Grid) -> None:
    cells = cell_table(conditioned.open())
    assert set(cells["condition"]) == {"clean"}
    assert cells.groupby(["variant", "kind"]).size().to_dict() == {
        (method, kind): {"cell": 11}.get(kind, 1)  # 2 x 3 of detection, and attribution overall and of four classes
        for method in METHODS
        for kind in ("cell", "in-domain mean", "cross-generator mean", "gap")
    }


def test_cells_of_a_condition_come_out_of_its_own_scores(conditioned: Grid) -> None:
    store = conditioned.open()
    metrics = ("accuracy", "auroc", "accuracy_valid_threshold")
    cells = cell_table(store, metrics=metrics, conditions=("clean", "jpeg-50", "jpeg-75"))
    assert list(dict.fromkeys(cells["condition"])) == ["clean", "jpeg-50", "jpeg-75"]
    assert set(cells.loc[cells["condition"] != "clean", "variant"]) == {"residual_linear"}
    for condition in ("clean", "jpeg-50", "jpeg-75"):
        frames = [
            cell_scores(made_scores(conditioned.spec(seed=seed), conditioned.manifest, condition), "ldm")
            for seed in (0, 1)
        ]
        sources = Sources([store.scores(store.runs()["run_id"].iloc[0])])
        for metric in metrics:
            threshold = THRESHOLD if metric.endswith(AT_VALIDATION) else 0.0
            plain = metric.removesuffix(AT_VALIDATION)
            alone = estimate_of(frames, plain, threshold, sources=sources)
            cell = cell_of(cells, trained_on="lama", tested_on="ldm", condition=condition, metric=metric)
            assert cell["mean"] == pytest.approx(alone.value)
            assert (cell["low"], cell["high"]) == pytest.approx(alone.interval)
            assert cell["num_seeds"] == 2


def test_attribution_has_cells_of_a_condition_too(conditioned: Grid) -> None:
    store = conditioned.open()
    cells = cell_table(store, conditions=("jpeg-75",))
    own = cells[(cells["task"] == "attribution") & (cells["metric"] == "accuracy")]
    scores = made_scores(conditioned.attribution(), conditioned.manifest, "jpeg-75")
    classes = ["real", *GENERATORS]
    answered = scores[[f"logit_{name}" for name in classes]].to_numpy().argmax(axis=1)
    assert own["mean"].tolist() == [(answered == scores["generator"].map(classes.index)).mean()]


def test_a_matrix_is_of_one_condition(conditioned: Grid) -> None:
    store = conditioned.open()
    cells = cell_table(store, conditions=("clean", "jpeg-75"))
    clean, jpeg = (
        matrix_with_intervals(store, "residual_linear", cells=cells, condition=name) for name in ("clean", "jpeg-75")
    )
    alone = matrix_with_intervals(
        store, "residual_linear", condition="jpeg-75",
        cells=cell_table(store, conditions=("jpeg-75",)),
    )  # fmt: skip
    assert (clean.condition, jpeg.condition) == ("clean", "jpeg-75")
    pd.testing.assert_frame_equal(jpeg.mean, alone.mean)
    pd.testing.assert_frame_equal(jpeg.low, alone.low)
    assert jpeg.intervals == alone.intervals
    assert (clean.mean - jpeg.mean).abs().to_numpy().max() > 0.05
    for name, matrix in (("clean", clean), ("jpeg-75", jpeg)):
        plain = cross_generator_matrix(
            store.results(), "residual_linear", generators=store.generators, planned=["lama", "ldm"], condition=name
        )
        pd.testing.assert_frame_equal(matrix.mean, plain)


def test_a_condition_that_nobody_was_scored_under_is_missing_everywhere(conditioned: Grid) -> None:
    store = conditioned.open()
    cells = cell_table(store, conditions=("jpeg-75",))
    matrix = matrix_with_intervals(store, "clip_linear", cells=cells, condition="jpeg-75")
    assert matrix.mean.isna().all(axis=None)
    assert (matrix.num_seeds == 0).all(axis=None)


def test_methods_are_compared_on_clean_pictures(conditioned: Grid, tmp_path: Path) -> None:
    store = conditioned.open()
    table = compare(store, "residual_linear", "clip_linear")
    clean = store.results().query("condition == 'clean' and metric == 'accuracy' and task == 'detection'")
    means = clean.groupby(["variant", "trained_on", "tested_on"])["value"].mean()
    inside = table[(table["kind"] == CELL) & (table["task"] == "detection")]
    assert len(inside) == 6
    for row in inside.to_dict("records"):
        assert row["a"] == pytest.approx(means["residual_linear", row["trained_on"], row["tested_on"]])


def test_attribution_is_of_clean_pictures(conditioned: Grid) -> None:
    store = conditioned.open()
    cells = cell_table(store, conditions=("clean", "jpeg-75"))
    rows = attribution_with_intervals(store, cells)
    assert len(rows) == 2 * 5
    plain = class_table(store.results(), "attribution", store.generators)
    assert rows.loc[rows["class"] == "overall", "mean"].tolist() == plain["overall"].tolist()


# Without generators --------------------------------------------------------------------------------------------------


def test_without_generators_every_cell_is_unseen(new_grid: NewGrid) -> None:
    grid = new_grid(num_each=12)
    grid.finish(*(grid.spec(train="none", seed=seed) for seed in (0, 1)))
    opened = grid.open()
    cells = cell_table(opened)
    assert cells["kind"].tolist() == [CELL] * 3 + ["cross-generator mean"]
    assert set(cells.loc[cells["kind"] == CELL, "trained_on"]) == {"none"}
    matrix = matrix_with_intervals(opened, "residual_linear", cells=cells)
    assert list(matrix.mean.columns) == ["none"]
    assert list(matrix.intervals) == ["cross-generator mean"]
    assert np.isnan(matrix.means.in_domain)
    assert matrix.means.cross_generator == pytest.approx(matrix.mean["none"].mean())
    assert not in_domain_cells(matrix.mean).any()


def test_a_column_without_generators_is_the_first_and_has_its_heading(new_grid: NewGrid) -> None:
    grid = new_grid(num_each=12)
    grid.finish(*(grid.spec(train=name) for name in ("lama+ldm", "repaint", "none", "lama")))
    matrix = quick_matrix(grid.open())
    assert list(matrix.mean.columns) == ["none", "lama", "repaint", "lama+ldm"]
    assert [trained_on_label(name, GENERATORS) for name in matrix.mean.columns] == [
        "no generator", "lama", "repaint", "all but repaint",
    ]  # fmt: skip
    assert in_domain_cells(matrix.mean).sum(axis=0).tolist() == [0, 1, 1, 2]


# Registered later ----------------------------------------------------------------------------------------------------


def share_called_fake(answers: Answers, weights: np.ndarray | None = None) -> float:
    return float(np.average(answers.answered == 1, weights=weights))


@pytest.mark.usefixtures("own_registers")
@pytest.mark.parametrize("condition", ["clean", "jpeg-75"])
def test_a_metric_that_is_registered_later_comes_out_of_the_logged_scores(conditioned: Grid, condition: str) -> None:
    register_metric(Metric("toy_share_called_fake", "share called fake", share_called_fake, task="binary"))
    name, store = "toy_share_called_fake", conditioned.open()
    assert name not in set(store.results()["metric"])
    cells = cell_table(store, metrics=[name, name + AT_VALIDATION], conditions=[condition])
    assert set(cells["task"]) == {"detection"}
    for metric, threshold in ((name, 0.0), (name + AT_VALIDATION, THRESHOLD)):
        by_hand = []
        for seed in (0, 1):
            scores = made_scores(conditioned.spec(seed=seed), conditioned.manifest, condition)
            by_hand.append((cell_scores(scores, "ldm")["score"] > threshold).mean())
        cell = cell_of(cells, trained_on="lama", tested_on="ldm", metric=metric)
        assert cell["mean"] == pytest.approx(np.mean(by_hand))
        assert cell["std"] == pytest.approx(np.std(by_hand, ddof=1))
        assert cell["low"] < cell["mean"] < cell["high"]
    means = cells[(cells["kind"] == "in-domain mean") & (cells["metric"] == name)]
    assert len(means) == (2 if condition == "clean" else 1)
    matrix = matrix_with_intervals(store, "residual_linear", name, cells=cells, condition=condition)
    assert matrix.mean.notna().all(axis=None)
    assert (matrix.low < matrix.high).all(axis=None)


@pytest.mark.usefixtures("own_registers")
def test_one_of_several_classes_is_computed_for_attribution_alone(conditioned: Grid) -> None:
    register_metric(Metric("toy_share_of_class_1", "share of class 1", share_called_fake, task="several"))
    cells = cell_table(conditioned.open(), metrics=["toy_share_of_class_1"])
    assert cells[["kind", "task", "tested_on"]].to_numpy().tolist() == [[CELL, "attribution", "all"]] * 2
    scores = made_scores(conditioned.attribution(), conditioned.manifest)
    answered = scores[[f"logit_{name}" for name in ("real", *GENERATORS)]].to_numpy().argmax(axis=1)
    assert cells.loc[cells["variant"] == "residual_linear", "mean"].tolist() == [(answered == 1).mean()]


FAMILIES = {"lama": "old", "ldm": "old", "repaint": "new"}


@pytest.mark.usefixtures("own_registers")
def test_the_classes_of_a_task_are_its_own_and_not_the_generators_names(new_grid: NewGrid) -> None:
    @register_task
    class Families(get_task("attribution").__class__):
        name = "toy_families"

        def classes(self, train: TrainSet) -> tuple[str, ...]:
            return ("real", "old", "new")

        def class_numbers(self, rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
            families = pd.Series(class_names(rows)).map({"real": "real"} | FAMILIES)
            return families.map(list(classes).index).to_numpy(np.int64)

    grid = new_grid(num_each=20)
    spec = make_spec(grid.manifest.digest, task="toy_families", train=GENERATORS)
    grid.finish(spec)
    cells = cell_table(grid.open()).set_index("metric")
    scores = made_scores(spec, grid.manifest)
    truth = scores["generator"].map({"real": 0, "lama": 1, "ldm": 1, "repaint": 2}).to_numpy()
    answered = scores[["logit_real", "logit_old", "logit_new"]].to_numpy().argmax(axis=1)
    assert cells.loc["accuracy", "mean"] == (truth == answered).mean()
    for number, name in enumerate(("real", "old", "new")):
        cell = cells.loc[f"accuracy/{name}"]
        assert cell["mean"] == (answered[truth == number] == number).mean()
        assert cell["low"] < cell["mean"] < cell["high"]


# Order ---------------------------------------------------------------------------------------------------------------


def test_cells_come_in_the_order_of_the_corpus(new_grid: NewGrid) -> None:
    grid = new_grid(generators=("alpha", "ldm", "pluralistic", "lama"), num_each=8)
    grid.finish(*(grid.spec(train=name) for name in ("ldm+lama", "alpha", "none", "pluralistic", "lama")))
    grid.finish(grid.attribution(), grid.spec("clip_linear", train="lama"), grid.attribution("clip_linear"))
    order = ["lama", "ldm", "pluralistic", "alpha"]
    opened = grid.open()
    cells = cell_table(opened)
    own = cells[(cells["variant"] == "residual_linear") & (cells["kind"] == CELL)]
    detection = own[own["task"] == "detection"]
    assert list(dict.fromkeys(detection["trained_on"])) == ["none", "lama", "pluralistic", "alpha", "lama+ldm"]
    assert detection["tested_on"].tolist() == order * 5
    attribution = own[own["task"] == "attribution"]
    assert attribution["metric"].tolist() == ["accuracy", *(f"accuracy/{name}" for name in ("real", *order))]
    compared = compare(opened, "residual_linear", "clip_linear")
    inside = compared[(compared["kind"] == CELL) & (compared["task"] == "detection")]
    assert inside["tested_on"].tolist() == order


@pytest.mark.usefixtures("own_registers")
def test_a_second_binary_task_is_kept_apart_from_detection(new_grid: NewGrid) -> None:
    @register_task
    class Coarse(get_task("detection").__class__):
        name = "toy_coarse"

        def cells(self, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, np.ndarray]:
            return {"anything": np.ones(len(rows), dtype=bool)}

    grid = new_grid(num_each=20)
    grid.finish(grid.spec(), make_spec(grid.manifest.digest, task="toy_coarse", train=["lama"]))
    store = grid.open()
    results = store.results()
    console = Console(width=140)
    with console.capture() as capture:
        print_results(results, console, store)
    text = capture.get()
    assert "toy_coarse, accuracy (AUROC)" in text
    of_toy = text[text.index("toy_coarse, accuracy") :]
    value = results[(results["task"] == "toy_coarse") & (results["metric"] == "accuracy")]["value"].item()
    (line,) = (line for line in of_toy.splitlines() if line.split()[:1] == ["anything"])
    assert line.split()[1] == f"{value:.3f}"
    matrix = cross_generator_matrix(results, "residual_linear")
    assert list(matrix.index) == sorted(GENERATORS)
    assert set(beside_published(store, cell_table(store))["task"]) <= {"detection"}
