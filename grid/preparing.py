"""What Ray's preparing tasks do in their workers, which so import neither MLflow nor Ray Tune."""

from __future__ import annotations

import os
from typing import Any

from grid.runner import Survey, kept_warnings, prepare_shared, survey_shared
from grid.settings import RunSettings
from grid.spec import TrialSpec


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


def _check_shared(spec: dict[str, Any], settings: str) -> None:
    """Raise `ValueError` on a node that does not see what the driver has written."""
    told = RunSettings.from_json(settings)
    if not (told.manifests / spec["data"]).is_dir():
        raise ValueError(
            f"the node {os.uname().nodename} does not see {told.cache}: give --runs (and --cache, where it lies "
            "elsewhere) a folder that all nodes of the cluster share"
        )


def survey_input(spec: dict[str, Any], settings: str, share: float) -> tuple[Survey, list[str]]:
    """What is missing for a method, and what was warned of on the way."""
    _check_shared(spec, settings)
    with kept_warnings() as warnings:
        return survey_shared(TrialSpec.from_dict(spec), RunSettings.from_json(settings), share), warnings


def prepare_input(spec: dict[str, Any], settings: str, share: float, board: Any, number: int) -> tuple[None, list[str]]:
    """Compute a part of what is missing for a method; gives what was warned of on the way."""
    _check_shared(spec, settings)
    trial = TrialSpec.from_dict(spec)
    with kept_warnings() as warnings:
        prepare_shared(
            trial,
            RunSettings.from_json(settings),
            share,
            lambda done, total: board.write.remote(trial.key, number, done),
        )
    return None, warnings
