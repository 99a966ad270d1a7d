"""The grid as it is now, as plain types for the page: matrices that fill up while trials run."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.controls import methods_alone
from analysis.explore.refusals import unknown
from analysis.matrices import class_table, cross_generator_matrix, matrix_means, trained_on_label
from analysis.store import Store, StoreError
from analysis.variants import label_of
from data.conditions import CLEAN
from grid.plan import FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING
from grid.tasks import ATTRIBUTION, DETECTION
from grid.train_sets import TrainSet
from models.detector import DETECTION_CLASSES
from models.metrics import AT_VALIDATION, get_metric, in_words, is_at_half, metrics_for, reported
from models.registry import gives_log_odds

log = logging.getLogger(__name__)

# The least pause between two readings of the store: in seconds, and as a multiple of how long the last one took.
PAUSE, TIMES = 2.0, 5.0
DEFAULT_METRIC = "auroc"
UNFINISHED = (RUNNING, FAILED, INTERRUPTED, PENDING)  # of several in a cell, the first is said
NO_LOG_ODDS = "The score of this method is no log-odds, so it has no value at p = 0.5."


@dataclass(frozen=True)
class Snapshot:
    """One reading of the store.

    Attributes:
        store: the grid without controls and references.
        runs: from `Store.runs`.
        results: from `Store.results`.
        version: another number for another state of the trials.
        problem: why a later reading failed, so that this one is shown; else "".
    """

    store: Store
    runs: pd.DataFrame
    results: pd.DataFrame
    version: int
    problem: str = ""

    @cached_property
    def generators(self) -> list[str]:
        """Every generator that a trial was trained or tested on, in the order of tables."""
        return self.store.generators

    @cached_property
    def labels(self) -> dict[str, str]:
        """Variant -> the variant with its backbone and weights, as any of its runs, of whatever task, logged them."""
        groups = self.runs.groupby("variant", sort=False)
        return {str(variant): label_of(str(variant), rows) for variant, rows in groups}

    def label(self, run: Mapping[Any, Any]) -> str:
        """The name of a run's method, with its backbone and weights."""
        return self.labels[str(run["variant"])]

    def trained_on(self, run: Mapping[Any, Any]) -> str:
        """A run's training set for a person, such as "all but lama"."""
        return trained_on_label(str(run["trained_on"]), self.generators)

    def finished(self, run_id: str, *tasks: str) -> dict[str, Any]:
        """A finished run of these tasks, as a row of `Store.runs`. Raises `Refused` for any other id."""
        rows = self.runs[(self.runs["run_id"] == run_id) & (self.runs["state"] == FINISHED)]
        rows = rows[rows["task"].isin(tasks)]
        if not run_id or rows.empty:
            raise unknown("finished run", repr(run_id))
        return {str(name): value for name, value in rows.iloc[0].to_dict().items()}


class Live:
    """A grid that is read again while its trials run.

    Args:
        open_again: opens the store, and may raise `StoreError`.

    Raises:
        StoreError: the first opening failed.
    """

    def __init__(self, open_again: Callable[[], Store]) -> None:
        self._open, self._lock = open_again, threading.Lock()
        began = time.monotonic()
        self._snapshot = self._read()
        self._next = time.monotonic() + self._pause(began)

    def now(self) -> Snapshot:
        """The newest reading."""
        return self._snapshot

    def refresh(self) -> None:
        """Read the store again in the background, if the last reading is old and no other one is in progress."""
        if time.monotonic() >= self._next and self._lock.acquire(blocking=False):
            threading.Thread(target=self._read_again, name="grid", daemon=True).start()

    def _read_again(self) -> None:
        began = time.monotonic()
        try:
            self._snapshot = self._read(self._snapshot)
        except Exception as error:  # the page shows the last values, and why they are not new
            log.exception("the grid could not be read again")
            before = self._snapshot
            self._snapshot = Snapshot(before.store, before.runs, before.results, before.version, str(error))
        finally:
            self._next = time.monotonic() + self._pause(began)
            self._lock.release()

    def _pause(self, began: float) -> float:
        return max(PAUSE, TIMES * (time.monotonic() - began))

    def _read(self, before: Snapshot | None = None) -> Snapshot:
        try:
            store = methods_alone(self._open())
        except StoreError as error:
            if before is None:
                raise
            return Snapshot(before.store, before.runs, before.results, before.version, str(error))
        runs = store.runs()
        if before is not None and runs[["key", "run_id", "state"]].equals(before.runs[["key", "run_id", "state"]]):
            results = store.results()
            same = len(results) == len(before.results)
            return Snapshot(store, runs, results, before.version + (not same))
        return Snapshot(store, runs, store.results(), 0 if before is None else before.version + 1)


def overview(snapshot: Snapshot, metric: str | None, condition: str | None) -> dict[str, Any]:
    """Everything that the page shows before a click.

    Args:
        snapshot: the grid.
        metric: as logged; None: AUROC, or the first metric that was logged.
        condition: of the test pictures; None: clean.

    Raises:
        Refused: no such metric or condition.
    """
    store, runs = snapshot.store, snapshot.runs
    metrics = metrics_of(snapshot.results)
    conditions = [CLEAN, *(name for name in dict.fromkeys(snapshot.results["condition"]) if name != CLEAN)]
    if metric is None:
        metric = DEFAULT_METRIC if DEFAULT_METRIC in metrics or not metrics else metrics[0]
    elif metric not in metrics:
        raise unknown("metric", repr(metric))
    condition = CLEAN if condition is None else condition
    if condition not in conditions:
        raise unknown("condition", repr(condition))
    generators = snapshot.generators
    return {
        "experiment": store.experiment,
        "corpus": store.corpus,
        "data": store.data,
        "version": snapshot.version,
        "trials": _trials(runs),
        "metrics": [_metric_words(name) for name in metrics],
        "metric": metric,
        "conditions": conditions,
        "condition": condition,
        "generators": generators,
        "methods": [_method(snapshot, variant, metric, condition) for variant in _variants(runs, DETECTION)],
        "attribution": _attribution(snapshot, condition),
    }


def metrics_of(results: pd.DataFrame) -> list[str]:
    """The metrics of real and fake that finished trials logged, in the report's order."""
    names = [metric.name for metric in metrics_for(DETECTION_CLASSES)]
    logged = set(results.loc[results["task"] == DETECTION, "metric"])
    return reported(logged & {*names, *(name + AT_VALIDATION for name in names)})


def _metric_words(name: str) -> dict[str, Any]:
    metric = get_metric(name)
    return {
        "name": name, "words": in_words(name), "chance": metric.chance, "higher_is_better": metric.higher_is_better,
    }  # fmt: skip


def seeds_of(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The finished runs among rows of `Store.runs`, by their seeds."""
    done = runs[runs["state"] == FINISHED].sort_values("seed", kind="stable")
    return [{"id": str(run["run_id"]), "seed": int(run["seed"])} for run in done.to_dict("records")]


def plain(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None


def _trials(runs: pd.DataFrame) -> dict[str, int]:
    states = Counter(runs["state"])
    return {"total": len(runs), "finished": states[FINISHED]} | {name: states[name] for name in UNFINISHED}


def _variants(runs: pd.DataFrame, task: str) -> list[str]:
    return list(dict.fromkeys(runs.loc[runs["task"] == task, "variant"]))


def _method(snapshot: Snapshot, variant: str, metric: str, condition: str) -> dict[str, Any]:
    generators = snapshot.generators
    own = snapshot.runs[(snapshot.runs["task"] == DETECTION) & (snapshot.runs["variant"] == variant)]
    matrix = cross_generator_matrix(
        snapshot.results, variant, metric, generators=generators, planned=set(own["trained_on"]), condition=condition
    )
    has_value = gives_log_odds(str(own["method"].iloc[0])) or not is_at_half(metric)
    columns = []
    for trained_on in map(str, matrix.columns):
        runs = own[own["trained_on"] == trained_on]
        columns.append(
            {
                "trained_on": trained_on,
                "label": trained_on_label(trained_on, generators),
                "planned": len(runs),
                "state": _state(runs),
                "runs": seeds_of(runs),
                "own": [name for name in generators if name in TrainSet.parse(trained_on)],
            }
        )
    values = matrix.to_numpy(float) if has_value else matrix.to_numpy(float) * math.nan
    means = matrix_means(matrix).named(matrix) if has_value else {}
    return {
        "variant": variant,
        "label": snapshot.labels[variant],
        "columns": columns,
        "values": [[plain(value) for value in row] for row in values],
        "means": [{"name": name, "value": plain(value)} for name, value in means.items()],
        "note": "" if has_value else NO_LOG_ODDS,
        "trials": _trials(own),
    }


def _state(runs: pd.DataFrame) -> str:
    """What to say of the trials of a cell without a value."""
    for state in UNFINISHED:
        if (runs["state"] == state).any():
            return state
    return ""


def _attribution(snapshot: Snapshot, condition: str) -> list[dict[str, Any]]:
    """Each method's accuracy per class, and its finished runs."""
    table = class_table(snapshot.results, ATTRIBUTION, snapshot.generators, condition=condition)
    found = []
    for variant in _variants(snapshot.runs, ATTRIBUTION):
        own = snapshot.runs[(snapshot.runs["task"] == ATTRIBUTION) & (snapshot.runs["variant"] == variant)]
        values: dict[Any, Any] = table.loc[[variant]].to_dict("records")[0] if variant in table.index else {}
        found.append(
            {
                "variant": variant,
                "label": snapshot.labels[variant],
                "runs": seeds_of(own),
                "classes": [{"name": str(name), "value": plain(value)} for name, value in values.items()],
                "state": _state(own),
            }
        )
    return found
