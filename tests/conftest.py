"""How processes share the tests where there are several of them: `pytest -n 2 --dist loadgroup` (see the Makefile)."""

from __future__ import annotations

import os

import pytest

IN_ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ

if IN_ONE_OF_SEVERAL:  # a core for each: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs one after the other in one process: the tests on the shared Ray; then each file's others.

    Groups with slow tests come first, so that none of them is left to run alone at the end.
    """
    if not IN_ONE_OF_SEVERAL:
        return
    ranks: dict[str, int] = {}
    groups: dict[pytest.Item, str] = {}
    for item in items:
        shares_ray = "shared_cluster" in getattr(item, "fixturenames", ())
        groups[item] = "ray" if shares_ray else item.nodeid.partition("::")[0]
        rank = 0 if shares_ray else 1 if item.get_closest_marker("slow") else 2
        ranks[groups[item]] = min(rank, ranks.get(groups[item], rank))
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: ranks[groups[item]])
