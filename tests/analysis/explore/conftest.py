from __future__ import annotations

from collections.abc import Iterator

import pytest

from analysis.store import Store
from tests.analysis.explore.server import Client, served


@pytest.fixture(scope="session")
def page(tracked: Store) -> Iterator[Client]:
    """The page of a small finished grid with pictures and detectors."""
    with served(tracked.tracking_uri) as client:
        yield client
