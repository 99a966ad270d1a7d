"""The runs of a local MLflow store, read with one query per table.

MLflow's own search makes an object per value, which takes half a minute for 10,000 runs with their metrics; a query per
table takes two seconds. What comes back is the same; tests/grid/test_local_runs.py holds one against the other.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from sys import intern
from typing import Any

from mlflow.entities import LifecycleStage, Run, RunData, RunInfo

from grid.garbage import no_search_for_garbage
from grid.local_store import LOCK_SECONDS

_RUNS = """
    SELECT runs.run_uuid, runs.name, runs.experiment_id, runs.user_id, runs.status, runs.start_time, runs.end_time,
        runs.lifecycle_stage, runs.artifact_uri
    FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = ? AND tags.value = ?
    WHERE runs.experiment_id = ? AND runs.lifecycle_stage = ?
    ORDER BY runs.start_time, runs.run_uuid
"""
_TAGS = "SELECT run_uuid, tags.key, tags.value FROM tags JOIN runs USING (run_uuid) WHERE experiment_id = ?"
_PARAMS = "SELECT run_uuid, params.key, params.value FROM params JOIN runs USING (run_uuid) WHERE experiment_id = ?"
_METRICS = """
    SELECT run_uuid, m.key, m.value, m.is_nan
    FROM latest_metrics m JOIN runs USING (run_uuid) WHERE experiment_id = ?
        AND EXISTS (SELECT 1 FROM json_each(?) WHERE m.key GLOB json_each.value)
"""
_POINTS = """
    SELECT run_uuid, key, step, value, is_nan FROM metrics WHERE key IN (SELECT value FROM json_each(?))
    ORDER BY timestamp, step, value
"""


def read_runs(
    file: Path, experiment_id: str, tag: str, value: str, *, params: bool = True, metrics: Sequence[str] = ("*",)
) -> list[Run]:
    """The runs of an experiment that have a tag, the oldest first, without their inputs.

    Args:
        file: of the store; its tables have the version of this MLflow (see `grid.local_store.check_file`).
        experiment_id: id of the experiment.
        tag: name of the tag.
        value: of the tag.
        params: whether to read parameters, too.
        metrics: patterns (`*`, `?`) of the names of the metrics to read; the default reads all.

    Raises:
        sqlite3.Error: the file cannot be read.
    """
    number = int(experiment_id)
    with no_search_for_garbage(), closing(_opened(file)) as connection:
        connection.execute("BEGIN")  # all tables as they were at one moment
        rows = connection.execute(_RUNS, (tag, value, number, LifecycleStage.ACTIVE)).fetchall()
        found = {row[0]: _Values({}, {}, {}) for row in rows}
        for run_id, key, text in connection.execute(_TAGS, (number,)):
            if run_id in found:
                found[run_id].tags[intern(key)] = text
        for run_id, key, text in connection.execute(_PARAMS, (number,)) if params else ():
            if run_id in found:
                found[run_id].params[intern(key)] = text
        patterns = (number, json.dumps(list(metrics)))
        for run_id, key, point, is_nan in connection.execute(_METRICS, patterns) if metrics else ():
            if run_id in found:
                found[run_id].metrics[intern(key)] = math.nan if is_nan else point
        return [Run(_info(row), found[row[0]]) for row in rows]


class _Values(RunData):
    """What a run has, by its names. MLflow's own class takes an object per value and makes the same of them."""

    def __init__(self, metrics: dict[str, float], params: dict[str, str], tags: dict[str, str]) -> None:
        super().__init__()
        self._of_metrics, self._of_params, self._of_tags = metrics, params, tags

    @property
    def metrics(self) -> dict[str, float]:
        """Name -> newest value."""
        return self._of_metrics

    @property
    def params(self) -> dict[str, str]:
        """Name -> value."""
        return self._of_params

    @property
    def tags(self) -> dict[str, str]:
        """Name -> value."""
        return self._of_tags


def read_histories(
    file: Path, metrics: Mapping[str, Collection[str]]
) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(run id, metric) -> (step, value) of each logged point, in the order in which they were logged.

    Args:
        file: of the store.
        metrics: run id -> names of its metrics.

    Raises:
        sqlite3.Error: the file cannot be read.
    """
    wanted = {(run_id, metric) for run_id, chosen in metrics.items() for metric in chosen}
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    names = json.dumps(sorted({metric for _, metric in wanted}))
    with closing(_opened(file)) as connection:
        for run_id, metric, step, value, is_nan in connection.execute(_POINTS, (names,)):
            if (run_id, metric) in wanted:
                found.setdefault((run_id, metric), []).append((step, math.nan if is_nan else value))
    return found


def _opened(file: Path) -> sqlite3.Connection:
    target = f"{file.resolve().as_uri()}?mode=rw"  # makes no file, and mends one whose writer was killed
    return sqlite3.connect(target, uri=True, timeout=LOCK_SECONDS)


def _info(row: tuple[Any, ...]) -> RunInfo:
    run_id, name, experiment_id, user, status, start, end, stage, uri = row
    return RunInfo(
        run_id=run_id, run_name=name, experiment_id=str(experiment_id), user_id=user, status=status, start_time=start,
        end_time=end, lifecycle_stage=stage, artifact_uri=uri,
    )  # fmt: skip
