"""Cross-generator matrices and tables of results; the order, labels and means of matrices."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.conditions import CLEAN
from grid import train_sets
from grid.means import mean_of
from grid.tasks import DETECTION, REAL
from grid.train_sets import TrainSet

ORIENTATION = "rows: tested on, columns: trained on"
OVERALL = "overall"


@dataclass(frozen=True)
class MatrixMeans:
    """Means over the cells of a cross-generator matrix; NaN if there is no such cell.

    Attributes:
        in_domain: mean over cells whose test generator is in the training set.
        cross_generator: mean over the other cells.
    """

    in_domain: float
    cross_generator: float

    @property
    def gap(self) -> float:
        """In-domain mean minus cross-generator mean."""
        return self.in_domain - self.cross_generator

    def named(self, matrix: pd.DataFrame) -> dict[str, float]:
        """Name -> mean or gap, as far as the matrix has such cells, finished or not.

        A method that is trained without fakes has no in-domain cells.
        """
        in_domain, means = in_domain_cells(matrix), dict[str, float]()
        if in_domain.any():
            means["in-domain mean"] = self.in_domain
        if not in_domain.all():
            means["cross-generator mean"] = self.cross_generator
        return means | ({"gap": self.gap} if len(means) == 2 else {})


def column_order(trained_on: Iterable[str], generators: Sequence[str]) -> list[str]:
    """Training sets, as text, in column order: none, single generators in the order of the rows, then unions."""
    return [str(train) for train in train_sets.ordered(map(TrainSet.parse, trained_on), generators)]


def trained_on_label(trained_on: str, generators: Collection[str]) -> str:
    """A short column heading (see `TrainSet.label`)."""
    return TrainSet.parse(trained_on).label(generators)


def cross_generator_matrix(
    results: pd.DataFrame,
    variant: str,
    metric: str = "accuracy",
    *,
    generators: Sequence[str] | None = None,
    planned: Iterable[str] | None = None,
    condition: str = CLEAN,
    task: str = DETECTION,
) -> pd.DataFrame:
    """One variant's matrix: rows tested on, columns trained on, means over seeds; NaN if a cell is missing.

    Args:
        results: from `Store.results`.
        variant: variant of a method.
        metric: name of a metric.
        generators: the rows, in order; None: the generators in the results, in alphabetical order.
        planned: columns to add to those in the results; None: one per row.
        condition: condition of the test pictures.
        task: name in `grid.tasks` of a binary task.
    """
    cells = results[
        (results["task"] == task)
        & (results["variant"] == variant)
        & (results["metric"] == metric)
        & (results["condition"] == condition)
    ]
    return pivot(cells, "value", generators=generators, planned=planned)


def pivot(
    cells: pd.DataFrame,
    values: str,
    *,
    generators: Sequence[str] | None = None,
    planned: Iterable[str] | None = None,
) -> pd.DataFrame:
    """A column of a long table as a matrix; `generators` and `planned` as in `cross_generator_matrix`."""
    return pivots(cells, [values], generators=generators, planned=planned)[values]


def pivots(
    cells: pd.DataFrame,
    values: Sequence[str],
    *,
    generators: Sequence[str] | None = None,
    planned: Iterable[str] | None = None,
) -> dict[str, pd.DataFrame]:
    """Several columns of a long table, each as a matrix: its name -> rows tested on, columns trained on.

    A cell is the mean of its rows, NaN where there are none. Places are found once for all columns: `pivot_table` would
    take 15 ms for each matrix, and a report has hundreds.

    Args:
        cells: tested_on, trained_on and the columns of `values`, which are numbers.
        values: names of columns.
        generators: as in `cross_generator_matrix`.
        planned: as there.
    """
    rows = sorted(cells["tested_on"].unique()) if generators is None else list(generators)
    trained = column_order({*cells["trained_on"].unique(), *(rows if planned is None else planned)}, rows)
    index, columns = pd.Index(rows, dtype=str, name="tested on"), pd.Index(trained, dtype=str, name="trained on")
    means = cells[["tested_on", "trained_on", *values]].groupby(["tested_on", "trained_on"])[list(values)].mean()
    row = index.get_indexer(means.index.get_level_values("tested_on"))
    column = columns.get_indexer(means.index.get_level_values("trained_on"))
    is_shown = (row >= 0) & (column >= 0)
    matrices = {}
    for name in values:
        matrix = np.full((len(index), len(columns)), np.nan)
        matrix[row[is_shown], column[is_shown]] = means[name].to_numpy(float)[is_shown]
        matrices[name] = pd.DataFrame(matrix, index, columns)
    return matrices


def matrix_means(matrix: pd.DataFrame) -> MatrixMeans:
    """In-domain and cross-generator mean of a matrix from `cross_generator_matrix`."""
    in_domain = in_domain_cells(matrix)
    values = matrix.to_numpy(float)

    return MatrixMeans(mean_of(values[in_domain]), mean_of(values[~in_domain]))


def decimals(value: float) -> str:
    """Three decimals; values that differ by rounding errors alone give the same text."""
    return f"{round(value, 12):.3f}"


def in_domain_cells(matrix: pd.DataFrame) -> np.ndarray:
    """Bool, in the shape of the matrix: whether the row's generator is in the column's training set."""
    cells = [[str(row) in TrainSet.parse(str(column)) for column in matrix.columns] for row in matrix.index]
    return np.array(cells, dtype=bool).reshape(matrix.shape)


def class_table(
    results: pd.DataFrame, task: str, generators: Sequence[str] | None = None, *, condition: str = CLEAN
) -> pd.DataFrame:
    """Accuracy of a task with several classes: a row per variant; columns overall, real, then the other classes.

    Args:
        results: from `Store.results`; values are averaged over seeds.
        task: name in `grid.tasks`, such as "attribution".
        generators: order of the columns; None: alphabetical.
        condition: condition of the test pictures.
    """
    rows = results[
        (results["task"] == task) & (results["condition"] == condition) & results["metric"].str.match("accuracy(/|$)")
    ]
    table = rows.pivot_table(index="variant", columns="metric", values="value", aggfunc="mean", sort=False)
    table = table.rename(columns=class_of)
    others = sorted(set(table.columns) - {OVERALL, REAL})
    order = [name for name in generators or others if name in others]
    return table.reindex(columns=[OVERALL, REAL, *order]).rename_axis(index="method", columns="accuracy on")


def value_table(results: pd.DataFrame, task: str, *, condition: str = CLEAN) -> pd.DataFrame:
    """Every value of a task: one row per variant, training set and test generator, one column per metric.

    Args:
        results: from `Store.results`; values are averaged over seeds.
        task: name in `grid.tasks`.
        condition: condition of the test pictures.
    """
    rows = results[(results["task"] == task) & (results["condition"] == condition)]
    by = ["variant", "trained_on", "tested_on", "metric"]
    values = rows.groupby(by, sort=False)["value"].mean().unstack("metric", sort=False).reset_index()
    return values.rename(columns={"variant": "method", "trained_on": "trained on", "tested_on": "tested on"})


def class_of(metric: str) -> str:
    """The class of an accuracy: "lama" for "accuracy/lama", "overall" for "accuracy"."""
    return metric.partition("/")[2] or OVERALL
