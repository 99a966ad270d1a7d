from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpora import write_dolos


@pytest.fixture
def dolos(tmp_path: Path) -> Path:
    """A sound Dolos tree: two generators, 4 / 2 / 3 photographs."""
    return write_dolos(tmp_path / "dolos")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
