"""Grids for the tests of this folder; what they have started ends with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.grids import Grid

MakeGrid = Callable[..., Grid]


@pytest.fixture
def make_grid(tmp_path: Path) -> Iterator[MakeGrid]:
    grids = []

    def make(generators: tuple[str, ...], name: str = "grid", *, options: list[str], uri: str = "") -> Grid:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        grids.append(Grid(folder, generators, options=options, uri=uri))
        return grids[-1]

    yield make
    for grid in grids:
        grid.end()
