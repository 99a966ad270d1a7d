"""One detector at several thresholds, against answers by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.page import Fold, Folder, Table, Text
from analysis.parts import Options, Report
from analysis.parts.thresholds import thresholds
from analysis.predict import best_run
from analysis.thresholds import transfer, transfer_matrix
from grid import names
from tests.analysis.grids import Grid


def frame(**scores: list[float]) -> pd.DataFrame:
    """Shared reals, and fakes of each generator."""
    rows = [(name, int(name != "real"), score) for name, values in scores.items() for score in values]
    return pd.DataFrame(rows, columns=["generator", "label", "score"])


def test_a_threshold_chosen_on_one_generator_and_used_on_another() -> None:
    """Reals at 0 and 1. lama's threshold is 2 (between 1 and 3), ldm's is 6 (between 1 and 11)."""
    valid = frame(real=[0.0, 1.0], lama=[3.0, 4.0], ldm=[11.0, 12.0])
    test = frame(real=[1.5, 5.0], lama=[3.0, 8.0], ldm=[7.0, 9.0])
    table = transfer(valid, test)
    assert table.to_numpy().tolist() == [
        ["lama", "lama", 0.75],  # above 2: one of two reals, both fakes
        ["lama", "ldm", 0.75],
        ["ldm", "lama", 0.75],  # above 6: no real, one of two fakes
        ["ldm", "ldm", 1.0],
    ]
    matrix = transfer_matrix(table, ["ldm", "lama", "other"])
    assert matrix.index.tolist() == matrix.columns.tolist() == ["ldm", "lama"]
    assert matrix.loc["lama", "ldm"] == 0.75  # row: used on; column: chosen on


def test_a_generator_without_validation_fakes_chooses_nothing() -> None:
    table = transfer(frame(real=[0.0], lama=[1.0]), frame(real=[0.0], lama=[1.0], ldm=[2.0]))
    assert set(table["chosen_on"]) == {"lama"}
    assert set(table["used_on"]) == {"lama", "ldm"}


@pytest.fixture
def grid(store: str, tmp_path: Path) -> Grid:
    return Grid(store, tmp_path, num_each=8)


def blocks(grid: Grid, tmp_path: Path) -> tuple[list[Text], Table, list[Fold]]:
    report = Report(grid.open(), Folder(tmp_path / "report"), Options(cam=False), [], lambda step: None)
    found = list(thresholds(report))
    (table,) = [block for block in found if isinstance(block, Table)]
    folds = [block for block in found if isinstance(block, Fold)]
    return [block for block in found if isinstance(block, Text)], table, folds


def test_the_part_shows_the_oracle_labelled_and_names_what_rests_on_too_few(grid: Grid, tmp_path: Path) -> None:
    grid.finish(grid.spec(train="lama"), grid.spec(train="ldm"))
    texts, table, folds = blocks(grid, tmp_path)
    assert "oracle accuracy, best threshold in hindsight, in-domain" in table.columns
    assert "TPR at 1 % FPR, cross-generator" in table.columns
    assert "nothing is ranked by it and nothing is chosen with it" in texts[0].text
    assert [text.text.partition(":")[0] for text in texts[1:]] == [
        "TPR at 1 % FPR rests on too few images",
        "TPR at 5 % FPR rests on too few images",
    ]
    assert "a test cell has 8 reals, and with fewer than 100" in texts[1].text
    assert [fold.title for fold in folds] == ["Temperatures", "residual_linear [random weights]: thresholds"]
    assert (tmp_path / "report" / ".unfinished" / "tables" / "threshold-transfer-residual_linear.csv").is_file()


@pytest.mark.parametrize(("reals", "said"), [(100, "of which 1 may be called"), (499, "of which 4 may"), (500, "")])
def test_the_part_says_where_the_interval_of_few_reals_is_too_narrow(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reals: int, said: str
) -> None:
    grid.finish(grid.spec(train="lama"))
    monkeypatch.setattr("analysis.parts.thresholds.fewest_reals", lambda store, run_id: reals)
    texts, *_ = blocks(grid, tmp_path)
    found = [text.text for text in texts[1:] if text.text.startswith("TPR at ")]
    assert [said in text and "its interval too narrow" in text for text in found] == [True] * bool(said)


def test_older_runs_have_the_table_and_the_command_that_adds_the_rest(grid: Grid, tmp_path: Path) -> None:
    """Also of runs that did not log the new metrics: the table is made from the scores."""
    grid.finish(grid.spec(train="lama"), validation={})
    _, table, folds = blocks(grid, tmp_path)
    (row,) = table.rows
    assert "missing" not in [cell.text for cell in row]
    (fold,) = folds
    (text,) = [block for block in fold.blocks if isinstance(block, Text)]
    assert text.text.startswith("1 older run of residual_linear keeps no validation scores")
    assert "python launch.py dolos" in text.command


def test_the_oracle_is_not_among_what_best_looks_at(grid: Grid) -> None:
    """A run whose logged oracle is perfect does not win."""
    (expected,) = grid.finish(grid.spec(train="lama"), validation=dict.fromkeys(("lama", "ldm", "repaint"), 0.9))
    (other,) = grid.finish(grid.spec(train="ldm"), validation=dict.fromkeys(("lama", "ldm", "repaint"), 0.5))
    for generator in ("lama", "ldm", "repaint"):
        grid.tracker.client.log_metric(other, names.metric_name(generator, "oracle_accuracy"), 1.0)
    run_id, words = best_run(grid.open(), "residual_linear")
    assert run_id == expected
    assert "oracle" not in words
