"""Where processes share the tests (`pytest -n 2 --dist loadfile`, see the Makefile): which files they begin with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

IN_ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ

if IN_ONE_OF_SEVERAL:  # a core for each: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none of them is left to run alone at the end."""
    if IN_ONE_OF_SEVERAL:
        slow: set[Path] = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)
