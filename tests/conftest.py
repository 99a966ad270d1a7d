"""Settings of all tests. Where processes share them (see the Makefile), which files they begin with."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # how long an example takes is no property of the code
settings.load_profile("any machine")

IN_ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ

if IN_ONE_OF_SEVERAL:  # a core for each: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(trylast=True)  # after -m has taken some away
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests of minutes come first, then those with slow ones: none is left to run alone at the end."""
    if IN_ONE_OF_SEVERAL:
        of_minutes, slow = (
            {item.path for item in items if item.get_closest_marker(marker)} for marker in ("long", "slow")
        )
        items.sort(key=lambda item: 0 if item.path in of_minutes else 1 if item.path in slow else 2)
