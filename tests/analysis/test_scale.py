"""What a report of many runs reads once, samples or thins: the values are the same, and the report says so."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis.drawing import Drawing
from analysis.embeddings import project, separate_and_project, separation
from analysis.figures.curves import FEWEST_POINTS, MOST_IN_PANEL, MOST_POINTS, cells_of, points_of_each
from analysis.intervals import Sources
from analysis.page import Block, Fold, Folder, Row, Table, Text
from analysis.parts import Options, Report
from analysis.parts.attribution import attribution
from analysis.parts.curves import curves
from analysis.soundness import CellRows
from analysis.text import PRINTED, print_results
from analysis.verify import estimates
from analysis.verify.tables import named_seeds
from grid.controls import METHOD
from grid.names import parse_metric
from grid.overview import seeds_in_words
from grid.samples import drawn_images
from grid.tasks import DETECTION, cell_rows, class_names, generators_of, get_task
from models.detector import DETECTION_CLASSES
from models.metrics import Answers, get_metric, metrics_for
from tests.analysis.grids import GENERATORS, Grid


def made_scores(number: int = 60, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, number)
    generator = np.where(label == 1, random.choice(GENERATORS, number), "real")
    source = [f"s{n % 20}" for n in range(number)]
    scores = pd.DataFrame({"source_id": source, "generator": generator, "label": label})
    return scores.assign(score=random.normal(label, 1.0), trained_on="lama", seed=0)


def report_on(grid: Grid, folder: Path) -> Report:
    return Report(grid.open(), Folder(folder), Options(cam=False), [], lambda text: None)


def flat(blocks: list[Block]) -> list[Block]:
    found = list[Block]()
    for block in blocks:
        inside = block.blocks if isinstance(block, Fold) else block.pictures if isinstance(block, Row) else ()
        found += [block, *flat(list(inside))]
    return found


# Read once -----------------------------------------------------------------------------------------------------------


def test_cells_of_one_frame_are_those_of_its_parts() -> None:
    scores = made_scores()
    sources, task = Sources([scores]), get_task(DETECTION)
    numbers, rows = CellRows().of(task, DETECTION_CLASSES, scores)
    together = sources.cells(scores, numbers, rows)
    assert list(together) == generators_of(scores)
    for name, cell in together.items():
        alone = sources.cell(scores[cell_rows(scores, name)])
        for metric in metrics_for(DETECTION_CLASSES):
            for one, other in zip(cell.parts(metric.name, 0.3), alone.parts(metric.name, 0.3), strict=True):
                assert one.value == other.value
                assert one.num_sources == other.num_sources
                assert np.array_equal(one.influence, other.influence)


def test_rows_of_cells_follow_the_images() -> None:
    known, task = CellRows(), get_task(DETECTION)
    for scores in (made_scores(), made_scores(seed=1), made_scores(), made_scores().iloc[::-1]):
        numbers, cells = known.of(task, DETECTION_CLASSES, scores)
        assert np.array_equal(numbers, scores["label"])
        assert {name: rows.tolist() for name, rows in cells.items()} == {
            name: cell_rows(scores, name).tolist() for name in generators_of(scores)
        }


def test_answers_of_some_images_are_those_of_a_cell_of_them() -> None:
    scores = made_scores()
    labels, values = scores["label"].to_numpy(), scores["score"].to_numpy()
    chosen = labels == scores["label"].shift(fill_value=0).to_numpy()
    for metric in metrics_for(DETECTION_CLASSES):
        some = metric.value(Answers.from_scores(labels, values).of(chosen))
        assert some == metric.value(Answers.from_scores(labels[chosen], values[chosen]))


def test_accuracy_counts_by_weights() -> None:
    answers = Answers.from_scores(np.array([0, 1, 1]), np.array([-1.0, 1.0, -1.0]))
    assert get_metric("accuracy").value(answers) == 2 / 3
    assert get_metric("accuracy").value(answers, np.array([1.0, 1.0, 2.0])) == 0.5


def test_the_histories_of_a_grid_are_those_of_its_runs(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path, num_each=4)
    ids = grid.finish(grid.spec(), grid.spec(seed=1))
    opened = grid.open()
    metrics = {run_id: ["valid/loss", "train/loss", "no/such"] for run_id in reversed(ids)}
    alone = [
        (run_id, metric, point.step, point.value)
        for run_id, chosen in metrics.items()
        for metric in chosen
        for point in opened.records.history(run_id, metric)
    ]
    assert alone
    assert list(opened.records.histories(metrics)) == alone


def test_what_is_printed_is_the_same_from_the_metrics_that_are_printed(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path, num_each=12)
    trials = [grid.spec(seed=seed) for seed in range(12)]
    grid.finish(
        *trials,
        grid.spec(train="ldm"),
        grid.spec(train="ldm", seed=1),
        grid.attribution(),
        grid.open_set(),
        conditions=["jpeg-75"],
    )
    opened, printed = grid.open(), []
    whole, part = opened.results(), opened.results(binary_metrics=PRINTED)
    for results in (whole, part):
        console = Console(file=io.StringIO(), width=120, record=True)
        print_results(results, console, opened)
        printed.append(console.export_text())
    assert printed[0] == printed[1]
    assert "seeds: 0 to 11 (12)" in printed[0]
    is_kept = ~whole["task"].map(lambda task: get_task(task).is_binary) | whole["metric"].isin(PRINTED)
    pd.testing.assert_frame_equal(part, whole[is_kept].reset_index(drop=True))
    assert len(part) < len(whole) / 2


def test_the_values_of_runs_are_those_that_mlflow_has(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path, num_each=12)
    grid.finish(grid.spec(), grid.attribution(), conditions=["jpeg-75"])
    opened = grid.open()
    logged = {
        (run.info.run_id, *parsed): value
        for run in opened.entities()
        for name, value in run.data.metrics.items()
        if (parsed := parse_metric(name)) is not None
    }
    columns = ["run_id", "condition", "tested_on", "metric"]
    results = opened.results()
    assert dict(zip(results[columns].itertuples(index=False, name=None), results["value"], strict=True)) == logged
    assert opened.of_kinds(METHOD) is opened  # nothing to leave out: the tables are made once


# Samples -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [5, 100, 899, 900])
def test_verify_draws_the_same_sample(most: int) -> None:
    classes = np.random.default_rng(0).choice(["real", *GENERATORS], 900, p=[0.5, 0.3, 0.19, 0.01])
    assert np.array_equal(estimates.sample(classes, most), drawn_images(classes, most))


def test_a_report_says_that_it_shows_a_sample(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(store, tmp_path, num_each=12)
    (run_id,) = grid.finish(grid.attribution())
    report = report_on(grid, tmp_path / "all")
    _, whole = [block for block in attribution(report) if isinstance(block, Table)]
    monkeypatch.setattr("analysis.embeddings.drawn_images", partial(drawn_images, most=20))
    report = report_on(grid, tmp_path / "some")
    blocks = list(attribution(report))
    _, table = [block for block in blocks if isinstance(block, Table)]
    scores, vectors = report.store.scores(run_id), report.store.embeddings(run_id)
    drawn = drawn_images(class_names(scores), most=20)
    assert whole.caption == "How well the classes part in the embeddings"
    counts = f"{len(drawn)} of {len(vectors)}"
    assert table.caption == f"{whole.caption}; of a sample of {counts} test images, with the same share of each class"
    (row,) = [block for block in blocks if isinstance(block, Row)]
    assert f"{counts} test embeddings" in row.pictures[1].alt
    expected = separation(vectors[drawn], class_names(scores)[drawn], scores["source_id"].to_numpy(object)[drawn])
    assert table.rows[0][1].value == pytest.approx(expected.silhouette, abs=1e-3)


@pytest.mark.parametrize("processes", [1, 2])
def test_projections_of_other_processes_are_the_same(processes: int) -> None:
    random = np.random.default_rng(0)
    vectors, classes = random.normal(size=(40, 5)), np.repeat(["real", "lama"], 20)
    sources = np.array([f"s{number % 10}" for number in range(40)], dtype=object)
    with Drawing(processes) as drawing:
        measured, shown = drawing.compute(separate_and_project, vectors, classes, sources, kind="tsne")()
    assert measured == separation(vectors, classes, sources)
    assert np.array_equal(shown.points, project(vectors).points)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_work_raises_reaches_whoever_waits(processes: int) -> None:
    with Drawing(processes) as drawing:
        wait: Callable[[], float] = drawing.compute(float, "no number")
        with pytest.raises(ValueError, match="no number"):
            wait()


# Curves --------------------------------------------------------------------------------------------------------------


def test_many_curves_in_a_panel_have_fewer_points_each() -> None:
    assert [points_of_each(count) for count in (0, 1, 20, 40, 10_000)] == [500, 500, 500, 250, FEWEST_POINTS]
    assert all(points_of_each(count) * count <= MOST_IN_PANEL for count in range(200 + 1))
    assert points_of_each(1) == MOST_POINTS


def test_cells_of_a_panel_are_those_of_each_seed() -> None:
    scores = pd.concat([made_scores(seed=2).assign(seed=7), made_scores(seed=3).assign(seed=1)])
    cells = cells_of(scores)
    assert set(cells) == set(GENERATORS)
    for generator, (first, second) in cells.items():
        assert [set(frame["seed"]) for frame in (first, second)] == [{1}, {7}]
        assert set(first.loc[first["label"] == 1, "generator"]) == {generator}
        assert (first["label"] == 0).sum() == (made_scores(seed=3)["label"] == 0).sum()


def test_a_report_says_that_curves_have_fewer_points(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Grid(store, tmp_path, num_each=12)
    grid.finish(grid.spec(), grid.spec(seed=1))

    def said(folder: str) -> list[str]:
        blocks = flat(list(curves(report_on(grid, tmp_path / folder))))
        return [block.text for block in blocks if isinstance(block, Text) and "points are drawn" in block.text]

    assert said("all") == []
    monkeypatch.setattr("analysis.figures.curves.MOST_POINTS", 10)
    monkeypatch.setattr("analysis.figures.curves.FEWEST_POINTS", 5)
    (text,) = said("some")
    assert text.startswith("Of a ROC curve, and of one of precision and recall, at most 10 points are drawn, evenly")


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([0], "one seed (0)"),
        ([2, 0], "0, 2"),
        (list(range(11)), "0 to 10 (11)"),
        (list(range(0, 22, 2)), "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20"),
    ],
)
def test_seeds_are_named_alike_in_the_report_and_where_it_is_verified(seeds: list[int], words: str) -> None:
    assert seeds_in_words(sorted(seeds)) == named_seeds(set(seeds)) == words
