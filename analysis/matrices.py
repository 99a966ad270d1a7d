"""Cross-generator matrices and attribution tables of plain results, and their order, labels and means."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.conditions import CLEAN
from grid import train_sets
from grid.tasks import ATTRIBUTION, DETECTION, REAL
from grid.train_sets import TrainSet

ORIENTATION = "rows: tested on, columns: trained on"
OVERALL = "overall"


@dataclass(frozen=True)
class MatrixMeans:
    """Means over a cross-generator matrix; NaN where no such cell is there.

    Attributes:
        in_domain: over the cells whose test generator was trained on.
        cross_generator: over the other cells.
    """

    in_domain: float
    cross_generator: float

    @property
    def gap(self) -> float:
        """What is lost from in-domain to cross-generator."""
        return self.in_domain - self.cross_generator

    def named(self, matrix: pd.DataFrame) -> dict[str, float]:
        """Name -> mean, and the gap; without those that the matrix has no cells for, finished or not.

        Nothing is in-domain for a method that is trained without fakes.
        """
        in_domain, means = in_domain_cells(matrix), dict[str, float]()
        if in_domain.any():
            means["in-domain mean"] = self.in_domain
        if not in_domain.all():
            means["cross-generator mean"] = self.cross_generator
        return means | ({"gap": self.gap} if len(means) == 2 else {})


def column_order(trained_on: Iterable[str], generators: Sequence[str]) -> list[str]:
    """Training sets, as text, in the order of the columns: none, single generators as in the rows, then unions."""
    return [str(train) for train in train_sets.ordered(map(TrainSet.parse, trained_on), generators)]


def trained_on_label(trained_on: str, generators: Collection[str]) -> str:
    """A short heading for a column (see `TrainSet.label`)."""
    return TrainSet.parse(trained_on).label(generators)


def cross_generator_matrix(
    results: pd.DataFrame,
    method: str,
    metric: str = "accuracy",
    *,
    generators: Sequence[str] | None = None,
    planned: Iterable[str] | None = None,
    condition: str = CLEAN,
) -> pd.DataFrame:
    """One method's matrix: rows tested on, columns trained on, the mean over seeds in each cell; NaN where missing.

    Args:
        results: from `Store.results`.
        method: name of a variant where the results have a column of that name, else of a method.
        metric: name of a metric.
        generators: the rows, in order; None: those that were tested on, in alphabetical order.
        planned: the columns besides those that are there; None: one per row.
        condition: of the test pictures.
    """
    own = (results["task"] == DETECTION) & (results[_grouping(results)] == method) & (results["metric"] == metric)
    return pivot(of_condition(results[own], condition), "value", generators=generators, planned=planned)


def of_condition(results: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows of one condition; results without such a column are clean."""
    return results[results["condition"] == condition] if "condition" in results.columns else results


def pivot(
    cells: pd.DataFrame,
    values: str,
    *,
    generators: Sequence[str] | None = None,
    planned: Iterable[str] | None = None,
) -> pd.DataFrame:
    """A column of a long table as a matrix; arguments as of `cross_generator_matrix`."""
    matrix = cells.pivot_table(index="tested_on", columns="trained_on", values=values, aggfunc="mean", dropna=False)
    rows = sorted(set(cells["tested_on"])) if generators is None else list(generators)
    columns = column_order({*cells["trained_on"], *(rows if planned is None else planned)}, rows)
    matrix = matrix.reindex(index=rows, columns=columns)
    return matrix.astype(float).rename_axis(index="tested on", columns="trained on")


def matrix_means(matrix: pd.DataFrame) -> MatrixMeans:
    """In-domain and cross-generator means of a matrix as `cross_generator_matrix` makes it."""
    in_domain = in_domain_cells(matrix)
    values = matrix.to_numpy(float)

    def mean(cells: np.ndarray) -> float:
        return float(np.nanmean(cells)) if np.isfinite(cells).any() else float("nan")

    return MatrixMeans(mean(values[in_domain]), mean(values[~in_domain]))


def in_domain_cells(matrix: pd.DataFrame) -> np.ndarray:
    """Bool, in the shape of the matrix: whether the row's generator is among those that the column was trained on."""
    cells = [[str(row) in TrainSet.parse(str(column)) for column in matrix.columns] for row in matrix.index]
    return np.array(cells, dtype=bool).reshape(matrix.shape)


def attribution_table(results: pd.DataFrame, generators: Sequence[str] | None = None) -> pd.DataFrame:
    """Attribution accuracy: one row per method, columns overall, real, then the generators; means over seeds.

    Args:
        results: from `Store.results`.
        generators: in the order of the columns; None: in alphabetical order.
    """
    return class_table(results, ATTRIBUTION, generators)


def class_table(results: pd.DataFrame, task: str, generators: Sequence[str] | None = None) -> pd.DataFrame:
    """Accuracy over all classes of a task and of each; see `attribution_table`."""
    rows = results[(results["task"] == task) & results["metric"].str.match("accuracy(/|$)")]
    by = _grouping(results)
    table = of_condition(rows, CLEAN).pivot_table(index=by, columns="metric", values="value", aggfunc="mean")
    table = table.reindex([method for method in dict.fromkeys(results[by]) if method in table.index])
    table = table.rename(columns=class_of)
    others = sorted(set(table.columns) - {OVERALL, REAL})
    order = [name for name in generators or others if name in others]
    return table.reindex(columns=[OVERALL, REAL, *order]).rename_axis(index="method", columns="accuracy on")


def value_table(results: pd.DataFrame, task: str) -> pd.DataFrame:
    """Every value of a task: one row per method, training set and what is tested on, one column per metric.

    Args:
        results: from `Store.results`; values are means over seeds.
        task: name in `grid.tasks`.
    """
    rows = results[results["task"] == task]
    keys = [_grouping(results), "trained_on", "tested_on"]
    values = rows.groupby([*keys, "metric"], sort=False)["value"].mean().unstack("metric", sort=False).reset_index()
    return values.rename(columns={keys[0]: "method", "trained_on": "trained on", "tested_on": "tested on"})


def class_of(metric: str) -> str:
    """The class that an accuracy is of: "lama" of "accuracy/lama", "overall" of "accuracy"."""
    return metric.partition("/")[2] or OVERALL


def _grouping(results: pd.DataFrame) -> str:
    return "variant" if "variant" in results.columns else "method"
