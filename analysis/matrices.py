"""Cross-generator matrices and attribution tables from tidy results. Pure: data frames in, data frames out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

# The order of the published tables; generators that are not in it follow in alphabetical order.
PUBLISHED_ORDER = ("lama", "ldm", "repaint", "pluralistic")
ORIENTATION = "rows: tested on, columns: trained on"


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


def ordered(generators: set[str]) -> list[str]:
    """Generators in the order of the tables."""
    known = [name for name in PUBLISHED_ORDER if name in generators]
    return known + sorted(generators - set(known))


def cross_generator_matrix(results: pd.DataFrame, method: str, metric: str = "accuracy") -> pd.DataFrame:
    """One method's matrix: rows tested on, columns trained on, the mean over seeds in each cell; NaN where missing.

    Args:
        results: from `analysis.store.load_results`.
        method: name of a method.
        metric: name of a metric.
    """
    wanted = (results["task"] == "detection") & (results["method"] == method) & (results["metric"] == metric)
    cells = results[wanted]
    matrix = cells.pivot_table(index="tested_on", columns="trained_on", values="value", aggfunc="mean")
    rows = ordered(set(cells["tested_on"]))
    matrix = matrix.reindex(index=rows, columns=ordered(set(cells["trained_on"]) | set(rows)))
    return matrix.rename_axis(index="tested on", columns="trained on")


def matrix_means(matrix: pd.DataFrame) -> MatrixMeans:
    """In-domain and cross-generator means of a matrix as `cross_generator_matrix` makes it."""
    known = [[row in str(column).split("+") for column in matrix.columns] for row in matrix.index]
    in_domain = np.array(known, dtype=bool).reshape(matrix.shape)
    values = matrix.to_numpy(float)

    def mean(cells: np.ndarray) -> float:
        return float(np.nanmean(cells)) if np.isfinite(cells).any() else float("nan")

    return MatrixMeans(mean(values[in_domain]), mean(values[~in_domain]))


def attribution_table(results: pd.DataFrame) -> pd.DataFrame:
    """Attribution accuracy: one row a method, columns overall, real, then one a generator; means over seeds."""
    rows = results[(results["task"] == "attribution") & results["metric"].str.match("accuracy(/|$)")]
    table = rows.pivot_table(index="method", columns="metric", values="value", aggfunc="mean")
    table = table.reindex([method for method in dict.fromkeys(results["method"]) if method in table.index])
    table = table.rename(columns=lambda name: name.partition("/")[2] or "overall")
    generators = ordered(set(table.columns) - {"overall", "real"})
    return table.reindex(columns=["overall", "real", *generators]).rename_axis(index="method", columns="accuracy on")
