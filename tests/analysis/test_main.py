"""`python -m analysis`: what lands in the folder, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from tests.analysis.grids import GENERATORS, Grid
from tests.grid.grids import fresh_store


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    folder = tmp_path_factory.mktemp("main")
    made = Grid(fresh_store(tmp_path_factory.getbasetemp(), folder / "runs"), folder)
    for method in ("residual_linear", "clip_linear"):
        made.finish(*(made.spec(method, train=generator) for generator in GENERATORS), made.attribution(method))
    made.plan(made.spec("sam_linear"))
    return made


@pytest.fixture(scope="module")
def written(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    arguments = ["--tracking-uri", grid.tracker.uri, "--out", str(out), "--compare", "residual_linear", "clip_linear"]
    assert main(arguments) == 0
    return out


def test_every_method_has_its_matrices_as_tables_and_pictures(written: Path) -> None:
    for method in ("residual_linear", "clip_linear", "sam_linear"):
        for metric in ("accuracy", "auroc"):
            for kind in ("csv", "md", "tex", "png", "svg"):
                assert (written / f"matrix_{method}_{metric}.{kind}").stat().st_size > 0
    assert "Rows: tested on, columns: trained on" in (written / "matrix_residual_linear_accuracy.md").read_text()


def test_cells_are_the_logged_figures(grid: Grid, written: Path) -> None:
    cells = pd.read_csv(written / "matrix_clip_linear_auroc.csv")
    logged = grid.open().results()
    logged = logged[
        (logged["method"] == "clip_linear") & (logged["task"] == "detection") & (logged["metric"] == "auroc")
    ]
    both = cells.merge(logged, on=["tested_on", "trained_on"])
    assert len(both) == 9
    assert both["mean"].to_numpy() == pytest.approx(both["value"].to_numpy(), abs=0)


def test_what_is_not_finished_is_said_to_be_missing(grid: Grid, written: Path, tmp_path: Path, capsys) -> None:
    assert "missing" in (written / "matrix_sam_linear_accuracy.md").read_text()
    assert main(["--tracking-uri", grid.tracker.uri, "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "not everything is finished" in output
    assert "--methods sam_linear" in output


def test_attribution_and_the_comparison_are_there(written: Path) -> None:
    assert "residual_linear" in (written / "attribution.md").read_text()
    compared = pd.read_csv(written / "compare_residual_linear_clip_linear.csv")
    assert set(compared["kind"]) == {"cell", "mean", "in-domain mean", "cross-generator mean"}
    assert compared["p"].between(0, 1).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--experiment", "nonsense"], "nonsense"),
        (["--metric", "beauty"], "no finished run has logged beauty"),
        (["--compare", "residual_linear", "vgg"], "vgg"),
        (["--data", "ffff"], "ffff"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    grid: Grid, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    out = tmp_path / "report"
    assert main(["--tracking-uri", grid.tracker.uri, "--out", str(out), *arguments]) == 2
    assert said in capsys.readouterr().out
    assert not out.exists()


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--out", str(tmp_path / "report")]) == 2
    assert "mlflow.db" in capsys.readouterr().out
    assert not (tmp_path / "mlflow.db").exists()
