"""Published tables in the report: where they stand, what is said of second-hand values, and that ours are derived."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import data.published_tables
from analysis.__main__ import main
from analysis.export import evidence_of_report
from analysis.page import Folder, Table, Text
from analysis.parts import Options, Report
from analysis.parts.published_tables import published_tables
from analysis.verify.verify import verify
from data.published_tables import COLUMNS, ORIGINAL, SECOND_HAND
from tests.analysis.grids import Grid


@pytest.fixture
def report(store: str, tmp_path: Path) -> Report:
    """A report on a small grid on Dolos."""
    return Report(filled(store, tmp_path).open(), Folder(tmp_path / "out"), Options(), [], lambda text: None)


def filled(store: str, folder: Path) -> Grid:
    grid = Grid(store, folder, num_each=20)
    grid.finish(grid.spec("xception_scratch"), grid.spec("xception_scratch", train="ldm"))
    return grid


def texts(report: Report) -> list[str]:
    return [block.text for block in published_tables(report) if isinstance(block, Text)]


def test_a_grid_on_dolos_has_the_summary_of_declip(report: Report) -> None:
    blocks = list(published_tables(report))
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert table.caption == (
        "Published: declip_summary. Values of other methods, with set-ups of their own; "
        "difference is ours minus published"
    )
    assert [block.text for block in blocks if isinstance(block, Text)] == [
        "Second-hand in the table declip_summary, and not checked against the publication: the values with the source "
        "a summary of arXiv 2409.08849.",
        "No value of the table declip_summary is of a cell of this grid: it shows what others reached, and is no "
        "comparison of like with like.",
    ]
    written = pd.read_csv(report.folder.path / "tables/published-declip_summary.csv")
    assert (len(written), written["ours"].isna().all()) == (9, True)
    assert written["read"].value_counts().to_dict() == {SECOND_HAND: 6, ORIGINAL: 3}


@pytest.fixture
def own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only table: two values of cells of the grid, and one of none."""
    folder = tmp_path / "published"
    folder.mkdir()
    rows = [
        ("dolos", "theirs", "lama", "ldm", "auroc", 0.5, "arXiv 1", ORIGINAL, ""),
        ("dolos", "theirs", "ldm", "lama", "accuracy", 0.25, "arXiv 1", SECOND_HAND, "a note"),
        ("dolos", "theirs", "lama+ldm", "lama", "accuracy", 0.25, "arXiv 1", ORIGINAL, ""),
    ]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(folder / "theirs.csv", index=False)
    monkeypatch.setattr(data.published_tables, "FOLDER", folder)
    return folder


def test_ours_stand_beside_the_values_of_the_same_cells(own_table: Path, report: Report) -> None:
    assert texts(report) == [
        "Second-hand in the table theirs, and not checked against the publication: the values with the source arXiv 1."
    ]
    written = pd.read_csv(report.folder.path / "tables/published-theirs.csv")
    cells = report.cells.set_index(["kind", "metric", "trained_on", "tested_on"])["mean"]
    assert written["ours"].tolist()[:2] == pytest.approx(
        [cells["cell", "auroc", "lama", "ldm"], cells["cell", "accuracy", "ldm", "lama"]]
    )
    assert written["difference"].tolist()[:2] == pytest.approx((written["ours"] - written["published"]).tolist()[:2])
    assert written[["variant", "ours"]].isna().all(axis=1).tolist() == [False, False, True]


def test_ours_are_derived_again_and_a_changed_value_is_found(own_table: Path, store: str, tmp_path: Path) -> None:
    manifest = filled(store, tmp_path).manifest
    manifest.save(tmp_path / "runs/cache/manifests" / manifest.digest)
    own = tmp_path / "report"
    assert main(["--experiment=dolos", f"--tracking-uri={store}", f"--out={own}", "--no-log", "--no-cam"]) == 0
    (tmp_path / "evidence").mkdir()
    evidence_of_report(own, tmp_path / "evidence", tracking_uri=store)
    checked = verify(tmp_path / "evidence", own)
    assert [str(difference) for difference in checked.differences] == []
    (line,) = (line for line in checked.report if line.file == "tables/published-theirs.csv")
    assert line.agree == 4
    assert line.unverified.keys() == {"copied from a paper"}
    table = own / "tables/published-theirs.csv"
    changed = pd.read_csv(table, keep_default_na=False)
    changed["ours"] = ["0.123", *changed["ours"].tolist()[1:]]
    changed.to_csv(table, index=False)
    found = [str(difference) for difference in verify(tmp_path / "evidence", own).differences]
    assert any("published-theirs.csv" in text and "column ours: shown 0.123" in text for text in found)
