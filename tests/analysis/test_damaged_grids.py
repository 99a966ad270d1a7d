"""What MLflow has of a grid's launches and images, damaged: one message that names the run, or the value before it."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest
from rich.console import Console

from analysis.cam import open_images
from analysis.store import StoreError
from grid import names
from grid.commands import BadInputError
from grid.commands.status import print_status
from tests.analysis.grids import Grid


@pytest.fixture
def grid(store: str, tmp_path: Path) -> Grid:
    return Grid(store, tmp_path, num_each=6)


def status(grid: Grid) -> str:
    console = Console(width=200, record=True, quiet=False)
    with console.capture() as printed:
        print_status(grid.name, grid.tracker.uri, console)
    return printed.get()


def refused_everywhere(grid: Grid) -> str:
    """The one message of a report and of a status."""
    with pytest.raises(StoreError) as report:
        grid.open()
    with pytest.raises(BadInputError) as shown:
        status(grid)
    assert str(report.value) == str(shown.value)
    return str(report.value)


def damage(grid: Grid, statement: str) -> None:
    with sqlite3.connect(grid.tracker.uri.removeprefix("sqlite:///")) as connection:
        assert connection.execute(statement).rowcount == 1


def test_options_that_cannot_be_read_are_told_with_run_and_tag(grid: Grid) -> None:
    grid.finish(grid.spec())
    client, run_id = grid.tracker.client, grid.tracker.parent_id
    for typed in ("--limit x", "--generators", "--cache 'a"):
        client.set_tag(run_id, names.OPTIONS, typed)
        said = refused_everywhere(grid)
        assert f"the run {run_id} (" in said
        assert f"is damaged: its tag {names.OPTIONS} is {typed!r}" in said
        assert "Mend the tag in the MLflow UI, or launch the grid again" in said
    client.set_tag(run_id, names.OPTIONS, "--limit 3")
    assert "limit 3 (" in status(grid)


def test_images_that_cannot_be_read_are_told_with_the_run(grid: Grid) -> None:
    grid.finish(grid.spec())
    for text in ('{"num_rows":', "[1]", '{"num_rows": "many"}'):
        damage(grid, f"UPDATE datasets SET dataset_profile = '{text}'")
        assert f"the profile of the data set of run {grid.tracker.parent_id} (" in refused_everywhere(grid)


@pytest.mark.parametrize("entry", ['{"time": "soon"}', '{"time": 1e300}', '{"time": nu', "[]", "{}"])
def test_a_launch_whose_time_cannot_be_read_has_the_time_of_the_run(grid: Grid, entry: str) -> None:
    grid.finish(grid.spec())
    with grid.tracker.claim():
        pass
    damage(grid, f"UPDATE params SET value = '{entry}' WHERE key = '{names.LAUNCH}1'")
    damage(grid, f"UPDATE runs SET start_time = 1000000000000 WHERE run_uuid = '{grid.tracker.parent_id}'")
    assert "launched 2001-09-09 01:46 UTC" in status(grid)
    assert len(grid.open().runs()) == 1


@pytest.mark.parametrize("config", [{"no_longer": 3}, {"epochs": "some"}])
def test_a_configuration_of_an_older_checkout_is_told_before_the_pictures_are_read(
    grid: Grid, config: dict[str, object]
) -> None:
    (run_id,) = grid.finish(dataclasses.replace(grid.spec("xception_scratch"), config=tuple(config.items())))
    with pytest.raises(StoreError, match=rf"run {run_id} \(xception_scratch\) cannot be used.*check out the commit"):
        open_images(grid.open(), root=grid.folder)
