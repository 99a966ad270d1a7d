from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.grid.grids import fresh_store


@pytest.fixture
def store(tmp_path: Path, new_store: Callable[[Path], str]) -> str:
    """Tracking URI of a new SQLite store of this test."""
    return new_store(tmp_path / "runs")


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Folder -> tracking URI of a new SQLite store in it."""
    base = tmp_path_factory.getbasetemp()
    return lambda runs: fresh_store(base, runs)
