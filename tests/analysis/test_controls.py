"""Controls and references apart from results: what is held against chance, what beside references, and what shows them.

The scores of `tests.analysis.grids` know the class that a task asks for, so controls there are far from chance: a leak.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis.controls import (
    NULL_COLUMNS,
    beside_references,
    has_controls,
    kept_references,
    methods_alone,
    null_cells,
    null_sentences,
)
from analysis.intervals import Cell, average
from analysis.page import Folder
from analysis.parts import Options, Report, list_parts
from analysis.predict import best_run
from analysis.report import make_report
from analysis.store import Store, StoreError
from analysis.text import print_controls
from benchmarks.controls import FULL, PER_IMAGE, SWAP, TRUE_LABELS, share_outside
from grid import names
from grid.controls import MASK_AREA, references
from grid.spec import TrialSpec
from grid.tasks import get_task, list_controls
from grid.tracking import keep_references
from models.metrics import Answers, in_words
from tests.analysis.grids import GENERATORS, Grid
from tests.grid.grids import fresh_store, make_spec


def controls_of(grid: Grid, seed: int = 0) -> list[TrialSpec]:
    specs = []
    for name in list_controls():
        (train,) = get_task(name).train_sets(None, GENERATORS)
        specs.append(make_spec(grid.manifest.digest, task=name, train=train.generators, seed=seed))
    return specs


def keep(grid: Grid) -> object:
    measured = pd.DataFrame({"mask_share": 0.2}, index=grid.manifest.table.index)
    return keep_references(
        grid.tracker.uri, grid.name, grid.manifest.digest, lambda sets: references(grid.manifest, measured, sets)
    )


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Two methods; controls of one of them with two seeds; a reference method; references without pictures."""
    folder = tmp_path_factory.mktemp("controls")
    grid = Grid(fresh_store(tmp_path_factory.getbasetemp(), folder), folder)
    for method in ("residual_linear", "mean_brightness"):
        grid.finish(*(grid.spec(method, train=name) for name in GENERATORS))
    grid.finish(grid.attribution(), *controls_of(grid), *controls_of(grid, seed=1))
    assert keep(grid) is not None
    return grid


@pytest.fixture(scope="module")
def store(grid: Grid) -> Store:
    return grid.open()


@pytest.fixture
def plain(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """A grid that no controls were asked for."""
    grid = Grid(fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "plain"), tmp_path / "plain")
    grid.finish(grid.spec())
    return grid


def test_methods_alone_have_neither_controls_nor_references(store: Store) -> None:
    runs = methods_alone(store).runs()
    assert set(runs["method"]) == {"residual_linear"}
    assert set(runs["task"]) == {"detection", "attribution"}
    assert len(store.runs()) == 2 * 3 + 1 + 4
    assert has_controls(store)


def test_cells_of_training_sets_that_came_later_lack_a_reference_and_that_is_said(plain: Grid) -> None:
    first, later, *_ = GENERATORS
    plain.finish(plain.spec(train=first))
    keep(plain)
    assert beside_references(plain.open()).without() == []
    plain.finish(plain.spec(train=later))
    assert beside_references(plain.open()).without() == [
        f"residual_linear: {len(GENERATORS)} of {2 * len(GENERATORS)} cells have no reference beside them, because its "
        "training sets came later. The launch command with --controls adds them."
    ]


def test_mlflow_says_what_is_no_method(store: Store) -> None:
    tags = {run["method"] + " " + run["task"]: store.tags(run["run_id"]) for run in store.runs().to_dict("records")}
    assert tags["residual_linear shuffled_labels"][names.CONTROL] == "control"
    assert tags["mean_brightness detection"][names.CONTROL] == "reference"
    assert names.CONTROL not in tags["residual_linear detection"]


def test_a_cell_of_a_control_by_hand(store: Store) -> None:
    cells = null_cells(store)
    assert list(cells.columns) == NULL_COLUMNS
    assert len(cells) == 2 * 2 * (len(GENERATORS) + 1)  # seeds, metrics, cells
    row = cells[(cells["task"] == "shuffled_labels") & (cells["seed"] == 1) & (cells["tested_on"] == "lama")]
    accuracy = row[row["metric"] == "accuracy"].iloc[0]
    scores = store.scores(accuracy["run_id"])
    scores = scores[scores["generator"].isin(["real", "lama"])]
    labels = get_task("shuffled_labels", 1).class_numbers(scores, ("real", "fake"))
    assert accuracy["value"] == pytest.approx(((scores["score"] > 0) == labels).mean())
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    auroc = row[row["metric"] == "auroc"].iloc[0]
    pairs = scores["score"].to_numpy()[labels == 1][:, None] - scores["score"].to_numpy()[labels == 0][None, :]
    assert auroc["value"] == pytest.approx((pairs > 0).mean())


def test_an_interval_of_99_percent_holds_that_of_95() -> None:
    rng = np.random.default_rng(0)
    labels, scores = np.repeat([0, 1], 40), rng.normal(size=80)
    cell = Cell(Answers.from_scores(labels, scores), np.tile(np.arange(40), 2), 40)
    for metric in ("accuracy", "auroc"):
        usual, wide = (average([cell.parts(metric)], level=level).interval for level in (0.95, 0.99))
        assert usual == average([cell.parts(metric)]).interval
        assert wide.low < usual.low < usual.high < wide.high


def test_a_leak_is_said_in_words(store: Store) -> None:
    cells = null_cells(store)
    outside = int(cells.loc[cells["task"] == "shuffled_labels", "outside"].sum())
    assert outside > 6
    (sentence,) = [text for text in null_sentences(cells) if text.startswith("shuffled_labels")]
    assert sentence.startswith(f"shuffled_labels: {outside} of 12 values are outside the 99 % interval around chance")
    assert "a leak between training and test, or an interval that is too narrow" in sentence


def test_at_chance_nothing_is_wrong() -> None:
    cells = pd.DataFrame({"task": "shuffled_labels", "outside": [True] * 2 + [False] * 98})
    (sentence,) = null_sentences(cells)
    assert sentence == (
        "shuffled_labels: 2 of 100 values are outside the 99 % interval around chance, where about 1.0 are expected: "
        "no sign of a leak between training and test, or of too narrow intervals."
    )
    assert null_sentences(cells, off_chance_only=True) == []
    cells.loc[2, "outside"] = True
    assert "cannot be believed" in null_sentences(cells, off_chance_only=True)[0]


def test_methods_beside_the_best_reference_by_hand(store: Store) -> None:
    beside = beside_references(store)
    assert set(beside.methods) == {"residual_linear"}
    assert set(beside.references) == {"mean_brightness", "headers_only", "mask_area"}
    cells = beside.cells
    assert len(cells) == 2 * len(GENERATORS) ** 2
    for row in cells.itertuples():
        rivals = {
            name: of_reference[row.trained_on, row.tested_on, row.metric].value
            for name, of_reference in beside.references.items()
        }
        assert row.reference_value == max(rivals.values()) == rivals[row.best_reference]
        assert row.difference == pytest.approx(row.value - row.reference_value)
        assert row.above == (row.low > 0)
        assert rivals[MASK_AREA] == 0.5  # all photographs are paired
    means = beside.means("residual_linear").set_index("reference")
    own = cells[(cells["metric"] == "auroc") & (cells["trained_on"] == cells["tested_on"])]
    in_domain = [beside.references["mean_brightness"][name, name, "auroc"].value for name in own["tested_on"]]
    assert means.loc["mean_brightness", "AUROC, in-domain"] == pytest.approx(np.mean(in_domain))
    assert beside.means("gone")["AUROC, in-domain"].isna().all()


def test_a_method_below_a_reference_is_named_with_its_cells(store: Store) -> None:
    beside = beside_references(store)
    below = beside.cells[~beside.cells["above"].astype(bool)]
    assert len(below)
    (warning,) = beside.warnings(list(GENERATORS))
    of_accuracy = below[below["metric"] == "accuracy"]
    assert (
        f"residual_linear is not above the best reference by accuracy at p = 0.5 in {len(of_accuracy)} of 9" in warning
    )
    worst = of_accuracy.sort_values("difference").iloc[0]
    assert f"trained on {worst['trained_on']}, tested on {worst['tested_on']}: {worst['value']:.3f} against" in warning
    assert beside.warnings(list(GENERATORS), "another method") == []


def test_the_terminal_names_the_worst_cell_of_a_method_in_a_few_lines(store: Store) -> None:
    beside = beside_references(store)
    (sentence,) = beside.brief(list(GENERATORS))
    below = beside.cells[~beside.cells["above"].astype(bool)]
    counts = below.groupby("metric", sort=False).size()
    worst = below.sort_values("difference").iloc[0]
    assert f"in {counts['accuracy']} of 9 cells by accuracy at p = 0.5" in sentence
    assert sentence.endswith(
        f"; worst: {in_words(worst['metric'])} {worst['value']:.3f} against {worst['reference_value']:.3f} of "
        f"{worst['best_reference']}, trained on {worst['trained_on']}, tested on {worst['tested_on']}"
    )
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        print_controls(store, beside, [], console)
    lines = capture.get().splitlines()
    assert len(lines) <= 5
    assert lines[-1] == "  the report lists these cells, under “Controls”"


def test_references_are_kept_once_and_grow_with_the_grid(plain: Grid) -> None:
    assert not has_controls(plain.open())
    assert kept_references(plain.open()) is None
    assert keep(plain) is not None
    assert keep(plain) is None  # the same again
    plain.finish(plain.spec(train="ldm"))
    assert keep(plain) is not None
    kept = kept_references(plain.open())
    assert kept is not None
    assert set(kept.cells["trained_on"]) == {"lama", "ldm"}
    assert len(kept.scores) == kept.cells["num_images"].sum()


def test_damaged_references_are_named_with_the_remedy(plain: Grid) -> None:
    keep(plain)
    plain.artifact(plain.tracker.parent_id, names.REFERENCES).write_text("{")
    with pytest.raises(
        StoreError, match=r"references.json of the grid's run .* cannot be read.*\n.*--controls writes it"
    ):
        kept_references(plain.open())


def test_a_reference_is_never_the_best(store: Store) -> None:
    with pytest.raises(
        StoreError, match=r"'mean_brightness' has no finished detection run.*there are: residual_linear"
    ):
        best_run(store, "mean_brightness")
    assert best_run(store, "residual_linear")


@pytest.mark.long
def test_the_report_has_controls_in_a_section_of_their_own(store: Store, tmp_path: Path) -> None:
    page = make_report(store, tmp_path / "report", Options(cam=False, log=False))
    text = page.read_text(encoding="utf-8")
    tables = tmp_path / "report" / "tables"
    assert pd.read_csv(tables / "summary.csv")["method"].tolist() == ["residual_linear"]
    assert not list(tables.glob("matrix-mean_brightness*"))
    assert set(pd.read_csv(tables / "controls.csv")["task"]) == set(list_controls())
    assert set(pd.read_csv(tables / "references.csv")["reference"]) == {"mean_brightness", "headers_only", "mask_area"}
    assert len(pd.read_csv(tables / "beside-references.csv")) == 18
    assert "Controls</h2>" in text
    assert "Warning: residual_linear is not above the best reference" in text
    assert "Null control shuffled_labels: " in text  # among the limitations
    runs = pd.read_csv(tables / "runs.csv")
    assert len(runs) == 11
    assert "detection (reference)" in text


def test_a_grid_of_controls_alone_has_a_report(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    grid = Grid(fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "runs"), tmp_path / "runs")
    grid.finish(*controls_of(grid))

    def shown(name: str) -> str:
        report = Report(grid.open(), Folder(tmp_path / name), Options(cam=False), [], lambda step: None)
        return str([list(part.blocks(report)) for part in list_parts()])

    assert "This grid has controls alone" in shown("before")
    grid.plan(grid.spec(), grid.attribution())  # methods, of which no trial is finished
    assert "This grid has controls alone" not in shown("after")


def test_the_terminal_shows_controls_under_a_heading_of_their_own(store: Store) -> None:
    console = Console(width=140, force_terminal=False)
    with console.capture() as capture:
        print_controls(store, beside_references(store), set(store.runs()["key"]), console)
    text = " ".join(capture.get().split())
    assert text.startswith("Null controls: .5 is expected; no results of detection")
    assert "warning: residual_linear is not above the best reference" in text


@pytest.mark.parametrize("case", FULL[:4], ids=str)
def test_labels_swapped_per_photograph_keep_the_interval_right(case: object) -> None:
    assert share_outside(case, SWAP, 100, seed=1) <= 0.05  # type: ignore[arg-type]  # 2 in 100, and chance


def test_true_labels_on_the_test_images_would_not_be_at_chance() -> None:
    (apart,) = [case for case in FULL if case.num_photographs == 100 and case.distance == 1]
    assert share_outside(apart, TRUE_LABELS, 50, seed=1) > 0.9
    assert share_outside(apart, PER_IMAGE, 50, seed=1) <= 0.06


def test_intervals_that_take_no_notice_of_photographs_are_found_out() -> None:
    (apart,) = [case for case in FULL if case.num_photographs == 100 and case.distance == 4]
    assert share_outside(apart, SWAP, 300, seed=1, over_images=True) > 0.03
