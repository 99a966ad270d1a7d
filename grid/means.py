"""Means over the cells of a cross-generator matrix: the one definition that tables, pictures and MLflow share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from data.conditions import CLEAN
from grid import names
from grid.train_sets import TrainSet

IN_DOMAIN, CROSS_GENERATOR = "in-domain mean", "cross-generator mean"
SUMMARISED = ("accuracy", "auroc")  # the metrics whose means are in MLflow's list of runs

Cell = tuple[TrainSet, str]  # trained on, tested on


def mean_of(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN, exactly rounded, so that it does not depend on their order; else NaN."""
    finite = [float(value) for value in values if value == value]
    return math.fsum(finite) / len(finite) if finite else math.nan


def means_over_cells(cells: Mapping[Cell, float]) -> dict[str, float]:
    """`IN_DOMAIN` and `CROSS_GENERATOR` -> the mean over such cells, as far as there are any.

    A cell is in-domain if its test generator is in its training set.
    """
    kinds: dict[str, list[float]] = {IN_DOMAIN: [], CROSS_GENERATOR: []}
    for (train_set, tested_on), value in cells.items():
        kinds[IN_DOMAIN if tested_on in train_set else CROSS_GENERATOR].append(value)
    return {kind: mean_of(values) for kind, values in kinds.items() if values}


def summary_of_trial(train_set: TrainSet, metrics: Mapping[str, float]) -> dict[str, float]:
    """The summary metrics of one detection trial, from its test metrics on clean pictures, by their names in MLflow.

    Args:
        train_set: what it was trained on.
        metrics: by their names in `grid.names`; others than test metrics do not count.
    """
    found = dict[str, float]()
    for metric in SUMMARISED:
        cells = {(train_set, cell): metrics[name] for cell in _tested_on(metrics)
                 if (name := names.metric_name(cell, metric)) in metrics}  # fmt: skip
        found |= {names.summary_metric(kind, metric): value for kind, value in means_over_cells(cells).items()}
    return found


def summary_of_method(variant: str, trials: Iterable[tuple[TrainSet, Mapping[str, float]]]) -> dict[str, float]:
    """The summary metrics of a method in the grid's run: the mean over seeds of each cell, then over cells.

    Args:
        variant: name of the method's variant.
        trials: training set and test metrics of each finished detection trial.
    """
    trials, found = list(trials), dict[str, float]()
    for metric in SUMMARISED:
        values: dict[Cell, list[float]] = {}
        for train_set, metrics in trials:
            for cell in _tested_on(metrics):
                if (name := names.metric_name(cell, metric)) in metrics:
                    values.setdefault((train_set, cell), []).append(metrics[name])
        means = means_over_cells({cell: mean_of(of_seeds) for cell, of_seeds in values.items()})
        found |= {names.summary_metric(kind, metric, variant): value for kind, value in means.items()}
    return found


def _tested_on(metrics: Iterable[str]) -> list[str]:
    parsed = filter(None, map(names.parse_metric, metrics))
    return list(dict.fromkeys(tested_on for condition, tested_on, _ in parsed if condition == CLEAN))
