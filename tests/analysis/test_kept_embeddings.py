"""Runs that keep the embeddings of a sample: what is shown, exported and verified is as of all embeddings."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import analysis.projections
from analysis.embeddings import EmbeddingError, shown_embeddings
from analysis.export import write_evidence
from analysis.page import Folder, Row, Table, Text
from analysis.parts import Options, Report
from analysis.parts.attribution import attribution
from analysis.store import StoreError
from analysis.verify import estimates
from analysis.verify.evidence import Evidence
from analysis.verify.held import check_rows
from data.conditions import CLEAN
from grid import names
from grid.samples import drawn_images, kept_embeddings
from grid.tasks import class_names, get_task
from tests.analysis import grids
from tests.analysis.grids import Grid

MOST = 20


@pytest.fixture
def both(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Grid]:
    """Two grids with the same trials: one keeps all embeddings, the other as of a large test set."""
    made = grids.made

    def sampled(*arguments: object) -> grids.Scored:
        scored = made(*arguments)  # type: ignore[arg-type]
        task = get_task(arguments[0].task, 0)  # type: ignore[attr-defined]
        kept = kept_embeddings(scored.scores, task, most=MOST)
        return dataclasses.replace(scored, embeddings=scored.embeddings[kept], embedded=kept)

    monkeypatch.setattr("analysis.embeddings.drawn_images", partial(drawn_images, most=MOST))
    found = {}
    for name, write in (("all", made), ("sample", sampled)):
        monkeypatch.setattr(grids, "made", write)
        found[name] = Grid(store, tmp_path / name, num_each=12, name=name, root=tmp_path / "images")
        found[name].finish(found[name].attribution(), found[name].spec())
    return found


def run_ids(grid: Grid) -> dict[str, str]:
    runs = grid.open().runs()
    return dict(zip(runs["task"], runs["run_id"], strict=True))


def test_a_report_shows_the_same(both: dict[str, Grid], tmp_path: Path) -> None:
    tables, shown = [], []
    for name, grid in both.items():
        opened, run_id = grid.open(), run_ids(grid)["attribution"]
        report = Report(opened, Folder(tmp_path / f"report {name}"), Options(cam=False), [], lambda text: None)
        _, table = [block for block in attribution(report) if isinstance(block, Table)]
        tables.append((table.caption, [[cell.text for cell in row] for row in table.rows]))
        shown.append(shown_embeddings(opened, run_id, class_names(opened.scores(run_id))))
    assert tables[0] == tables[1]
    assert f"of a sample of {len(shown[0][0])} of " in tables[0][0]
    np.testing.assert_array_equal(shown[0][0], shown[1][0])
    np.testing.assert_array_equal(shown[0][1], shown[1][1])


@pytest.mark.parametrize("place", ["shown_embeddings", "separate_and_project"])
def test_an_unexpected_failure_costs_one_picture(
    both: dict[str, Grid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise IndexError("a bug")

    monkeypatch.setattr(analysis.projections, place, fail)
    folder, problems = Folder(tmp_path / "report"), list[Text]()
    report = Report(both["sample"].open(), folder, Options(cam=False), problems, lambda text: None)
    blocks = list(attribution(report))
    (row,) = [block for block in blocks if isinstance(block, Row)]
    assert [picture.name for picture in row.pictures] == ["confusion-residual_linear"]
    said = "residual_linear: no picture of its embeddings: IndexError('a bug')"
    assert said in [block.text for block in blocks if isinstance(block, Text)]
    assert said in [problem.text for problem in problems]
    assert "the embeddings of 'residual_linear' failed" in caplog.text


def test_the_evidence_has_the_sample_and_is_verified(
    both: dict[str, Grid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = both["sample"]
    folder = tmp_path / "evidence"
    folder.mkdir()
    write_evidence(grid.open(), folder, grid.manifest)
    keys = {spec.task: spec.key for spec in (grid.attribution(), grid.spec())}
    kept = {path.name for path in (folder / "embeddings").iterdir()}
    assert kept == {f"{keys['attribution']}.npy", f"{keys['attribution']}-rows.npy"}
    monkeypatch.setattr(estimates, "sample", partial(estimates.sample, most=MOST))
    evidence = Evidence(folder)
    assert [list(check_rows(evidence, key, CLEAN)) for key in keys.values()] == [[], []]
    path = folder / "embeddings" / f"{keys['attribution']}-rows.npy"
    np.save(path, np.load(path) + 1)
    (difference,) = check_rows(evidence, keys["attribution"], CLEAN)
    assert difference.file == f"embeddings/{keys['attribution']}-rows.npy"


def test_a_run_without_embeddings_says_so(both: dict[str, Grid]) -> None:
    opened, run_id = both["sample"].open(), run_ids(both["sample"])["detection"]
    with pytest.raises(EmbeddingError, match="keeps no embeddings"):
        shown_embeddings(opened, run_id, class_names(opened.scores(run_id)))


@pytest.mark.parametrize("damage", ["shorter", "twice", "outside", "gone", "no array"])
def test_damaged_rows_are_refused(both: dict[str, Grid], damage: str) -> None:
    grid = both["sample"]
    run_id = run_ids(grid)["attribution"]
    path = grid.artifact(run_id, names.EMBEDDED_ROWS)
    rows = np.load(path)
    if damage == "gone":
        path.unlink()
    elif damage == "no array":
        path.write_text("rows")
    else:
        rows[-1] = {"twice": rows[-2], "outside": 10**6}.get(damage, rows[-1])
        np.save(path, rows[:-1] if damage == "shorter" else rows)
    opened = grid.open()
    with pytest.raises(StoreError, match=rf"{names.EMBEDDED_ROWS} of run {run_id} .*missing or cannot be read"):
        shown_embeddings(opened, run_id, class_names(opened.scores(run_id)))
