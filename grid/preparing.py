"""What Ray's preparing tasks do in their workers, which so import neither MLflow nor Ray Tune."""

from __future__ import annotations

import os
from typing import Any

from grid.plan import Inputs
from grid.runner import Survey, kept_warnings, prepare_shared, survey_shared
from grid.settings import RunSettings


class Board:
    """Where preparing tasks write how far they are, for the driver to show."""

    def __init__(self) -> None:
        self._done: dict[str, dict[int, int]] = {}

    def write(self, key: str, number: int, done: int) -> None:
        """So many images are done by this task of those that prepare an input."""
        self._done.setdefault(key, {})[number] = done

    def read(self) -> dict[str, int]:
        """Images done for each input; too many where a task has counted what another did."""
        return {key: sum(done.values()) for key, done in self._done.items()}


def _check_shared(inputs: Inputs, settings: RunSettings) -> None:
    """Raise `ValueError` on a node that does not see what the driver has written."""
    if not (settings.manifests / inputs.spec.data).is_dir():
        raise ValueError(
            f"the node {os.uname().nodename} does not see {settings.cache}: give --runs (and --cache, where it lies "
            "elsewhere) a folder that all nodes of the cluster share"
        )


def survey_input(inputs: dict[str, Any], settings: str, share: float) -> tuple[Survey, list[str]]:
    """What is missing of an input, and what was warned of on the way."""
    needed, told = Inputs.from_dict(inputs), RunSettings.from_json(settings)
    _check_shared(needed, told)
    with kept_warnings() as warnings:
        return survey_shared(needed, told, share), warnings


def prepare_input(
    inputs: dict[str, Any], settings: str, share: float, board: Any, key: str, number: int
) -> tuple[None, list[str]]:
    """Compute a part of what is missing of an input; gives what was warned of on the way."""
    needed, told = Inputs.from_dict(inputs), RunSettings.from_json(settings)
    _check_shared(needed, told)
    with kept_warnings() as warnings:
        prepare_shared(needed, told, share, lambda done, total: board.write.remote(key, number, done))
    return None, warnings
