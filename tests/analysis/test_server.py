"""A grid that an MLflow server keeps, artifacts and all: read back over HTTP, with links to its pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from analysis.__main__ import main
from analysis.page import with_pictures_inside
from tests.analysis.grids import GENERATORS, Grid
from tests.mlflow_server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server on loopback that keeps artifacts where nobody but itself looks."""
    running = Server(tmp_path_factory.mktemp("server"))
    running.start()
    yield running.uri
    running.stop()


@pytest.fixture(scope="module")
def grid(server: str, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    made = Grid(server, tmp_path_factory.mktemp("grid"), num_each=12)
    made.finish(*(made.spec("clip_linear", train=generator) for generator in GENERATORS), made.attribution())
    return made


def test_the_report_links_to_the_servers_pages_and_is_kept_there(server: str, grid: Grid, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert main(["--tracking-uri", server, "--out", str(out), "--no-cam"]) == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    for run_id in grid.open().runs()["run_id"]:
        assert f'href="{server}/#/experiments/{grid.tracker.experiment_id}/runs/{run_id}"' in page
    client = MlflowClient(tracking_uri=server)
    kept = client.download_artifacts(grid.tracker.parent_id, "report/index.html", str(tmp_path))
    assert Path(kept).read_text(encoding="utf-8") == with_pictures_inside(page, out)


def test_an_export_of_a_servers_grid_has_the_report_that_is_kept_there(
    server: str, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where no report is
    grid.manifest.save(tmp_path / "cache" / "manifests" / grid.manifest.digest)
    words = ["export", "out", "--tracking-uri", server, "--cache", "cache"]
    assert main(words) == 0
    assert "the report is the one that is kept with the grid's run" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out" / "artifacts").iterdir()} == {
        "manifest.txt",
        "notes.txt",
        "plan.json",
    }
    assert main(["verify", "out"]) == 0
    assert "0 differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--experiment", "nope"], "no MLflow experiment named 'nope'"),
        (["--data", "ffff"], "no data set 'ffff'"),
        (["--experiment", "Default"], "holds no grid"),
    ],
)
def test_no_message_has_the_servers_password(
    server: str, grid: Grid, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    uri = server.replace("://", "://alice:S3CRETPW@")
    assert main(["--tracking-uri", uri, "--out", str(tmp_path), *arguments]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "S3CRETPW" not in printed.err + printed.out


def test_what_is_read_is_what_was_written(server: str, grid: Grid) -> None:
    store = grid.open()
    results = store.results()
    logged = results[(results["task"] == "detection") & (results["metric"] == "accuracy")]
    assert len(logged) == 9
    for run_id, of_run in logged.groupby("run_id"):
        scores = store.scores(str(run_id))
        for tested_on, value in of_run[["tested_on", "value"]].itertuples(index=False):
            cell = scores[(scores["generator"] == tested_on) | (scores["label"] == 0)]
            assert ((cell["score"] > 0) == (cell["label"] == 1)).mean() == value
