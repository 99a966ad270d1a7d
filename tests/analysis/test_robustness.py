"""Robustness, paste-back and edited area, held against values that are computed again from the scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from analysis.areas import THIRDS, area_table
from analysis.page import Folder, Text
from analysis.parts import Options, Report
from analysis.parts.edited_area import edited_area
from analysis.parts.paste_back import paste_back
from analysis.parts.robustness import equalised, robustness
from analysis.paste_back import paste_back_table, sentence
from analysis.robustness import changed, mean_over_conditions, ordered, score_shifts
from analysis.store import Store, StoreError
from data.conditions import SETS
from grid import names
from grid.spec import TrialSpec
from grid.tasks import cell_rows, get_task
from grid.trial import Scored
from tests.analysis.grids import THRESHOLD, Grid, made_scores
from tests.grid.grids import FACTS, fresh_store

GENERATORS = ("lama", "ldm")
MOVES = {"jpeg-75": (2.0, -1.0), "jpeg-50": (3.5, -0.5), "paste-back": (0.0, 0.0)}  # condition -> of real, of fake


def moved(spec: TrialSpec, grid: Grid, condition: str, real: float, fake: float) -> Scored:
    """The clean scores of a trial, with those of real and of fake images moved."""
    scores = made_scores(spec, grid.manifest)
    change = np.where(scores["label"] == 1, fake, real).astype(np.float32)
    scores["logit_fake"] += change
    scores["score"] = scores["logit_fake"] - scores["logit_real"]
    scores["condition"] = condition
    logits = scores[["logit_real", "logit_fake"]].to_numpy()
    measured = get_task(spec.task).measure(scores, logits, spec.classes, THRESHOLD)
    metrics = {
        names.metric_name(tested_on, metric, condition): value
        for tested_on, values in measured.items()
        for metric, value in values.items()
    }
    return Scored(condition, metrics, scores, np.zeros((len(scores), 2), dtype=np.float16))


def begun(grid: Grid, out: Path) -> Report:
    return Report(grid.open(), Folder(out), Options(), [], lambda text: None)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Two training sets and two seeds under `MOVES`; one trial under a training condition; areas of half the fakes."""
    folder = tmp_path_factory.mktemp("robust")
    grid = Grid(fresh_store(tmp_path_factory.getbasetemp(), folder / "runs"), folder, generators=GENERATORS)
    specs = [grid.spec(train=name, seed=seed) for name in GENERATORS for seed in (0, 1)]
    for spec, run_id in zip(specs, grid.finish(*specs), strict=True):
        for condition, (real, fake) in MOVES.items():
            grid.tracker.finished_trial(run_id).add_scores(moved(spec, grid, condition, real, fake), FACTS)
    pasted = grid.spec("clip_linear", train_condition="paste-back")
    (run_id,) = grid.finish(pasted)
    grid.tracker.finished_trial(run_id).add_scores(moved(pasted, grid, "paste-back", 0, -3), FACTS)
    equal = grid.spec("clip_linear", train_condition="jpeg-95")
    (run_id,) = grid.finish(equal)
    grid.tracker.finished_trial(run_id).add_scores(moved(equal, grid, "jpeg-95", 0, 0), FACTS)
    rows = grid.manifest.select("test", GENERATORS).query("label == 1")
    grid.tracker.record_areas({digest: (number % 10 + 1) / 20 for number, digest in enumerate(rows["digest"])})
    return grid


@pytest.fixture(scope="module")
def store(grid: Grid) -> Store:
    return grid.open()


@pytest.fixture(scope="module")
def run_ids(store: Store) -> list[str]:
    runs = store.runs()
    return list(runs.loc[runs["method"] == "residual_linear", "run_id"])


# Robustness ----------------------------------------------------------------------------------------------------------


def test_conditions_are_in_the_order_of_tables() -> None:
    assert ordered(["resize-50", "jpeg-30", "clean", "noise-4", "messenger", "jpeg-95", "blur-2", "blur-1"]) == [
        "clean", "blur-1", "blur-2", "jpeg-95", "jpeg-30", "messenger", "noise-4", "resize-50",
    ]  # fmt: skip
    assert changed(["clean", "paste-back", "jpeg-30"]) == ["jpeg-30"]


def test_shifts_are_medians_of_the_same_image_against_clean(store: Store, run_ids: list[str]) -> None:
    shifts = score_shifts(store, run_ids, ["jpeg-75", "jpeg-50", "blur-1"]).set_index("condition")
    assert list(shifts.index) == ["jpeg-75", "jpeg-50"]
    for condition in shifts.index:
        assert tuple(shifts.loc[condition]) == pytest.approx(MOVES[condition], abs=1e-5)


def test_the_mean_over_conditions_is_that_of_all_cells(store: Store, run_ids: list[str]) -> None:
    results = store.results()
    results = results[results["run_id"].isin(run_ids) & results["condition"].isin(["jpeg-75", "jpeg-50"])]
    results = results[results["metric"] == "auroc"]
    in_domain = results["trained_on"] == results["tested_on"]
    found = mean_over_conditions(store, run_ids, "auroc", ["jpeg-75", "jpeg-50"])
    for estimate, rows in zip(found, (results[in_domain], results[~in_domain]), strict=True):
        assert estimate is not None
        assert estimate.value == pytest.approx(rows["value"].mean(), abs=1e-6)
        assert estimate.interval.low < estimate.value < estimate.interval.high


def test_each_condition_has_its_matrices_below_a_heading(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, grid: Grid
) -> None:
    other = Grid(fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "runs"), tmp_path, num_each=6)
    other.finish(other.spec(), conditions=SETS["robustness"][:4])
    report = begun(other, tmp_path / "out")
    blocks = list(robustness(report))
    folds = [block for block in blocks if type(block).__name__ == "Fold"]
    assert [fold.title for fold in folds] == [
        f"residual_linear [random weights]: {name}" for name in SETS["robustness"][:4]
    ]
    assert {type(block).__name__ for fold in folds for block in fold.blocks} == {"HeatMaps"}
    assert (report.folder.path / "tables" / "matrix-residual_linear-auroc-jpeg-60.tex").exists()


def test_the_report_says_what_was_made_alike(grid: Grid, tmp_path: Path) -> None:
    (alike,) = equalised(begun(grid, tmp_path / "out"))
    assert alike.startswith("Real and fake were made alike by jpeg-95: clip_linear (train_condition=jpeg-95) learned")


# Paste-back ----------------------------------------------------------------------------------------------------------


def test_where_no_score_changes_the_difference_is_exactly_0(store: Store, run_ids: list[str]) -> None:
    for metric in ("auroc", "accuracy"):
        table = paste_back_table(store, run_ids, metric)
        assert list(table["kind"].value_counts()) == [4, 1, 1, 1]
        assert (table[["difference", "low", "high"]] == 0).all(axis=None)
        assert table["unchanged"].all()
    assert sentence("m", paste_back_table(store, run_ids, "auroc")) == (
        "m: every score stays the same, so the difference is exactly 0. Outside their masks these fakes are their "
        "originals already."
    )


def test_differences_are_pasted_minus_raw(grid: Grid, store: Store) -> None:
    runs = store.runs()
    run_id = runs.loc[runs["train_condition"] == "paste-back", "run_id"].item()
    table = paste_back_table(store, [run_id], "auroc")
    raw, pasted = store.scores(run_id), store.scores(run_id, condition="paste-back")
    for row in table[table["kind"] == "cell"].to_dict("records"):
        cells = [scores[cell_rows(scores, row["tested_on"])] for scores in (raw, pasted)]
        values = [roc_auc_score(cell["label"], cell["score"]) for cell in cells]
        assert [row["raw"], row["pasted"]] == pytest.approx(values, abs=1e-6)
        assert row["difference"] == pytest.approx(values[1] - values[0], abs=1e-6)
        assert row["low"] < row["difference"] < row["high"] < 0
        assert not row["unchanged"]


def of_values(raw: float, pasted: float, low: float, high: float, inner: tuple[float, float]) -> pd.DataFrame:
    row = {"kind": "mean", "raw": raw, "pasted": pasted, "difference": pasted - raw, "low": low, "high": high}
    return pd.DataFrame([row | {"pasted_low": inner[0], "pasted_high": inner[1], "unchanged": False}])


@pytest.mark.parametrize(
    ("table", "said", "unsaid"),
    [
        (of_values(0.99, 0.52, -0.6, -0.4, (0.45, 0.6)), ["outside the edited region", "from chance"], []),
        (of_values(0.99, 0.82, -0.3, -0.1, (0.7, 0.9)), ["0.990 raw, 0.820 pasted", "-0.170 [-0.300"], ["chance"]),
        (of_values(0.80, 0.79, -0.1, 0.1, (0.7, 0.9)), ["do not show that it makes a difference"], ["rested on"]),
        (of_values(0.60, 0.80, 0.1, 0.3, (0.7, 0.9)), ["does better where only the edited region"], ["rested on"]),
    ],
)
def test_a_sentence_says_what_the_difference_means(table: pd.DataFrame, said: list[str], unsaid: list[str]) -> None:
    words = sentence("m", table)
    assert all(part in words for part in said)
    assert not any(part in words for part in unsaid)


def test_the_section_has_a_sentence_per_method_and_what_it_was_trained_on(grid: Grid, tmp_path: Path) -> None:
    report = begun(grid, tmp_path / "out")
    blocks = list(paste_back(report))
    sentences = [block.text for block in blocks if isinstance(block, Text)][1:]
    methods = ["residual_linear", "clip_linear (train_condition=paste-back)"]
    assert [text.partition(": ")[0] for text in sentences] == methods
    table = pd.read_csv(report.folder.path / "tables" / "paste-back.csv")
    trained = table.groupby("method", sort=False)["trained on"].first()
    assert list(trained.items()) == [(methods[0], "raw"), (methods[1], "pasted")]
    assert set(table.loc[table["method"] == "residual_linear", "difference"]) == {"0, exactly"}


# Edited area ---------------------------------------------------------------------------------------------------------


def test_each_third_has_its_fakes_and_all_real_images_of_the_cell(store: Store, run_ids: list[str]) -> None:
    areas = store.edited_areas
    table = area_table(store, run_ids, areas, ["auroc", "balanced_accuracy"])
    runs = store.runs().set_index("run_id")
    cells = table[table["kind"] == "cell"]
    assert len(cells) == 2 * 2 * 2 * 3
    for row in cells.to_dict("records"):
        values = []
        for run_id in run_ids:
            if runs.loc[run_id, "trained_on"] != row["trained_on"]:
                continue
            scores = store.scores(run_id)
            scores = scores[cell_rows(scores, row["tested_on"])]
            area = scores["digest"].map(areas)
            chosen = scores[(scores["label"] == 0) | area.between(row["area_from"], row["area_to"])]
            assert (chosen["label"] == 1).sum() == row["num_fakes"]
            measure: Callable[..., float] = roc_auc_score
            given = chosen["score"]
            if row["metric"] == "balanced_accuracy":
                measure, given = balanced_accuracy_score, chosen["score"] > 0
            values.append(measure(chosen["label"], given))
        assert len(values) == 2
        assert row["mean"] == pytest.approx(np.mean(values), abs=1e-6)
        assert row["low"] <= row["mean"] <= row["high"]
    of_lama = cells[(cells["tested_on"] == "lama") & (cells["metric"] == "auroc") & (cells["trained_on"] == "ldm")]
    assert list(of_lama["third"]) == list(THIRDS)
    assert of_lama["num_fakes"].sum() == 30


def test_masks_of_one_size_make_one_third(store: Store, run_ids: list[str]) -> None:
    table = area_table(store, run_ids, dict.fromkeys(store.edited_areas, 0.2), ["auroc"])
    assert set(table["third"]) == {THIRDS[0]}
    assert set(table.loc[table["kind"] == "cell", "num_fakes"]) == {30}


def test_the_section_of_edited_areas(grid: Grid, tmp_path: Path) -> None:
    report = begun(grid, tmp_path / "out")
    assert [type(block).__name__ for block in edited_area(report)] == ["Text", "Table", "Fold"]
    table = pd.read_csv(report.folder.path / "tables" / "edited-area.csv")
    assert list(table.columns) == ["method", "mean", *THIRDS, "backbone_and_weights"]
    cells = pd.read_csv(report.folder.path / "tables" / "edited-area-cells.csv")
    assert cells["num_fakes"].gt(0).all()


def test_the_section_names_generators_whose_fakes_have_no_area(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Grid(fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "runs"), tmp_path, num_each=4)
    other.finish(other.spec())
    rows = other.manifest.select("test", ["ldm"]).query("label == 1")
    other.tracker.record_areas(dict(zip(rows["digest"], [0.1, 0.2, 0.3, 0.4], strict=True)))
    report = begun(other, tmp_path / "out")
    said = [block.text for block in edited_area(report) if isinstance(block, Text)]
    assert said[1].startswith("Fakes of lama and repaint are left out: they have no masks, or the audit ")
    cells = pd.read_csv(report.folder.path / "tables" / "edited-area-cells.csv")
    assert set(cells["tested_on"]) == {"ldm"}


def test_a_grid_without_areas_has_no_such_section(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Grid(fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "runs"), tmp_path, num_each=3)
    other.finish(other.spec())
    assert list(edited_area(begun(other, tmp_path / "out"))) == []


def test_damaged_areas_are_told_with_the_remedy(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Grid(fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "runs"), tmp_path, num_each=3)
    other.finish(other.spec())
    other.tracker.record_areas({"a": 0.5})
    other.artifact(other.tracker.parent_id, names.AREAS).write_text("[1")
    with pytest.raises(StoreError, match=r"edited_areas\.json of the grid's run .* is damaged.*The next launch"):
        _ = other.open().edited_areas
