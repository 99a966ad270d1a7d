"""What a test needs of the machine besides the locked environment."""

from __future__ import annotations

import os
import shutil

import pytest

ALL_MUST_RUN = "GRID_TESTS_MUST_RUN"  # set where a gate relies on them: what is missing is then a failure


def need_program(name: str, package: str) -> str:
    """Path of a program; without it the test is skipped, or fails where everything has to run."""
    found = shutil.which(name)
    if found is None:
        without(f"{name} is not installed: apt-get install {package}")
    return str(found)


def without(reason: str) -> None:
    """Leave the test, for a reason."""
    if os.environ.get(ALL_MUST_RUN):
        pytest.fail(f"{ALL_MUST_RUN} is set, but {reason}")
    pytest.skip(reason)
