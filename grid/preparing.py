"""Preparing tasks, as they run in Ray's workers. Imports neither MLflow nor Ray Tune, so that workers start fast."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from grid.plan import Inputs
from grid.runner import Survey, kept_warnings, prepare_shared, survey_shared
from grid.settings import RunSettings


class Board:
    """An actor that collects the progress of preparing tasks for the driver."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, int], int] = {}

    def write(self, key: str, number: int, done: int) -> None:
        """Set the number of images that a task has done: task `number` of the input `key`."""
        self._done[key, number] = done

    def read(self, key: str) -> int:
        """Images done for an input; more than there are if two tasks counted the same image."""
        return sum(done for (name, _), done in self._done.items() if name == key)


@contextmanager
def _task(inputs: Inputs, settings: RunSettings) -> Iterator[io.StringIO]:
    """Collect warnings. Raises `ValueError` on a node that does not see the driver's cache."""
    if not (settings.manifests / inputs.spec.data).is_dir():
        raise ValueError(
            f"the node {os.uname().nodename} does not see {settings.cache}: give --runs (and --cache, where it lies "
            "elsewhere) a folder that all nodes of the cluster share"
        )
    with kept_warnings() as warnings:
        yield warnings


def survey_input(inputs: Inputs, settings: RunSettings, share: float) -> tuple[Survey, str]:
    """What an input still needs, and the warnings."""
    with _task(inputs, settings) as warnings:
        return survey_shared(inputs, settings, share), warnings.getvalue()


def prepare_input(
    inputs: Inputs, settings: RunSettings, share: float, board: Any, key: str, number: int
) -> tuple[None, str]:
    """Compute a part of what is missing of an input; returns the warnings."""
    with _task(inputs, settings) as warnings:
        prepare_shared(inputs, settings, share, lambda done, total: board.write.remote(key, number, done))
        return None, warnings.getvalue()
