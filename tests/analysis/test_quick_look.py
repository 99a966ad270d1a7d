"""A quick look with --limit, then all images: which of the two data sets is read, and how to get the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from analysis.__main__ import main
from analysis.cam import open_images
from analysis.store import StoreError, open_store
from data.manifest import build_manifest
from grid import names
from grid.commands.status import print_status
from tests.analysis.grids import Grid
from tests.corpora import write_dolos
from tests.grid.grids import fresh_store, open_grid


@pytest.fixture(scope="module")
def grids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, Grid]:
    """Two grids of one experiment, the first with --limit 20; read them only."""
    folder = tmp_path_factory.mktemp("quick")
    uri = fresh_store(tmp_path_factory.getbasetemp(), folder / "runs")
    few = Grid(uri, folder, num_each=20, launched={names.OPTIONS: "--limit 20 --local"})
    few.finish(few.spec())
    many = Grid(uri, folder, num_each=31, launched={names.OPTIONS: "--local"})
    many.finish(many.spec(), many.spec(seed=1))
    return few, many


def test_the_newest_is_read_and_the_words_for_the_other_are_said(
    grids: tuple[Grid, Grid], caplog: pytest.LogCaptureFixture
) -> None:
    few, many = grids
    assert few.open().data == many.manifest.digest
    (said,) = caplog.messages
    assert "'dolos' holds 2 data sets; this is the newest: no limit (372 images, launched 20" in said
    assert " UTC, 2 finished trials). --data limit=20 for limit 20 (240 images, launched 20" in said
    assert few.manifest.digest not in said
    assert many.manifest.digest not in said
    caplog.clear()
    for words in ("limit=20", "images=240", few.manifest.digest):
        assert few.open(data=words).data == few.manifest.digest
    assert few.open(data="limit=none").data == many.manifest.digest
    assert caplog.messages == []
    with pytest.raises(
        StoreError, match="the MLflow experiment 'dolos': no data set 'limit=7'; there are: limit=none: no limit"
    ):
        few.open(data="limit=7")


def test_a_run_says_its_data_set_by_itself(grids: tuple[Grid, Grid], caplog: pytest.LogCaptureFixture) -> None:
    few, many = grids
    run_id = few.open(data="limit=20").runs()["run_id"].item()
    assert few.open(run_id=run_id[:8]).data == few.manifest.digest
    assert caplog.messages == []
    assert few.open(run_id="nobody").data == many.manifest.digest


def test_words_that_choose_nothing_are_bad_input_of_the_command_line(
    grids: tuple[Grid, Grid], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert main(["--tracking-uri", grids[0].tracker.uri, "--out", str(out), "--data", "size=7"]) == 2
    said = capsys.readouterr().err
    assert "no data set 'size=7'; give limit=20, limit=none, images=540" in said
    assert "limit=20: limit 20 (240 images, launched 20" in said
    assert not out.exists()


def test_the_status_says_which_data_set_each_grid_is_on(
    grids: tuple[Grid, Grid], capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = grids
    print_status(few.name, few.tracker.uri, Console(width=120))
    said = capsys.readouterr().out
    assert f"dolos on {many.manifest.digest}: no limit (372 images, launched 20" in said
    assert f"dolos on {few.manifest.digest}: limit 20 (240 images, launched 20" in said


def test_a_data_set_that_was_launched_again_is_the_newest(store: str, tmp_path: Path) -> None:
    few, many = (Grid(store, tmp_path, num_each=number) for number in (3, 4))
    for grid in (few, many):
        grid.finish(grid.spec())
    for grid in (many, few):
        with grid.tracker.claim():
            pass
    assert few.open().data == few.manifest.digest


def test_the_images_of_a_quick_look_are_found_again_without_its_cache(store: str, tmp_path: Path) -> None:
    root = write_dolos(tmp_path / "dolos")
    typed = "--limit 2 --generators lama --names-per-split --local"
    limited = build_manifest(
        "dolos", root, cache=tmp_path / "cache", limit=2, generators=["lama"], names_per_split=True
    )
    open_grid(store, "dolos", limited, [], tmp_path / "artifacts", launched={names.OPTIONS: typed})
    opened = open_store("dolos", tracking_uri=store, unfinished=True)
    assert open_images(opened, root=root, cache=tmp_path / "another").digest == limited.digest
    (root / limited.table["path"].iloc[0]).unlink()
    with pytest.raises(StoreError, match="name the right folder with --images DIR"):
        open_images(opened, root=root, cache=tmp_path / "another")
