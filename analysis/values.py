"""The test values of many runs as a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from grid import names
from grid.tasks import get_task

if TYPE_CHECKING:
    from mlflow.entities import Run


def cells_of(runs: Iterable[Run]) -> set[str]:
    """What these runs were tested on, by the names of their test metrics."""
    logged = {name for run in runs for name in run.data.metrics}
    return {parsed[1] for parsed in map(names.parse_metric, logged) if parsed is not None}


def values_of(table: pd.DataFrame, runs: Iterable[Run], binary_metrics: Collection[str] | None = None) -> pd.DataFrame:
    """One row per run and test value: the columns of a table of runs, then condition, tested_on, metric and value.

    Args:
        table: one row per run, with the columns run_id and task; its order is that of the rows.
        runs: their runs in MLflow; others do not count.
        binary_metrics: of binary tasks, these metrics alone; None: all.
    """
    run_of = {run.info.run_id: run for run in runs}
    parsed: list[tuple[str, str, str]] = []
    numbers: dict[str, dict[str, int]] = {}  # task -> name of a metric -> its number in `parsed`; -1: left out
    rows, metrics, values = list[int](), list[int](), list[float]()
    for row, (run_id, task) in enumerate(zip(table["run_id"], table["task"], strict=True)):
        of_task = numbers.setdefault(task, {})
        for name, value in run_of[run_id].data.metrics.items():
            if name not in of_task:
                found = names.parse_metric(name)
                if found and binary_metrics is not None and found[2] not in binary_metrics and get_task(task).is_binary:
                    found = None
                of_task[name] = -1 if found is None else len(parsed)
                parsed += [] if found is None else [found]
            if of_task[name] >= 0:
                rows.append(row)
                metrics.append(of_task[name])
                values.append(value)
    words = pd.DataFrame(parsed, columns=["condition", "tested_on", "metric"], dtype="str")
    of_runs = table.take(np.array(rows, dtype=np.intp)).reset_index(drop=True)
    of_values = words.take(np.array(metrics, dtype=np.intp)).reset_index(drop=True)
    return pd.concat([of_runs, of_values], axis=1).assign(value=np.array(values, dtype=float))
