from __future__ import annotations

from pathlib import Path

import pytest

from tests.grid.grids import fresh_store


@pytest.fixture
def store(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tracking URI of a new SQLite store of this test."""
    return fresh_store(tmp_path_factory.getbasetemp(), tmp_path / "runs")
