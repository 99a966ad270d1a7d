"""Which method carries best to generators that it never saw: the order of the methods, and the best of each cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.cells import CELL
from analysis.matrices import pivot
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.tasks import DETECTION
from grid.train_sets import TrainSet

METRIC = "auroc"
ALIKE = 1e-12  # values that differ by rounding errors alone are equal
NO_GENERATOR = str(TrainSet(()))


@dataclass(frozen=True)
class Mean:
    """A mean over the cells of a matrix, with its 95 % confidence interval; the interval may be NaN."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Standing:
    """One method in the order of the methods.

    Attributes:
        variant: variant of a method.
        unseen: the cross-generator mean; None: it has no such cell yet.
        own: the in-domain mean; None for a method that is trained without a generator, or without such a cell yet.
        matrix: its AUROCs, rows tested on and columns trained on; NaN if a cell is missing.
        learns: whether it learns from fakes.
        ranked: whether it has the cells that the methods of its kind share, so that its means can be compared.
    """

    variant: str
    unseen: Mean | None
    own: Mean | None
    matrix: pd.DataFrame
    learns: bool
    ranked: bool


def with_most_cells(cells: pd.DataFrame) -> list[str]:
    """The variants with the largest set of cells that they share: only their means can be ranked.

    A set that two variants share comes before a larger one of a single variant.

    Args:
        cells: columns variant, tested_on, trained_on.
    """
    cells_of = {
        str(variant): frozenset(zip(rows["tested_on"], rows["trained_on"], strict=True))
        for variant, rows in cells.groupby("variant", sort=False)
    }
    num_variants = Counter(cells_of.values())
    most = max(
        num_variants, key=lambda same: (num_variants[same] > 1, len(same), num_variants[same]), default=frozenset()
    )
    return [variant for variant, same in cells_of.items() if same == most]


def standings(cells: pd.DataFrame, generators: Sequence[str]) -> list[Standing]:
    """Every method with a finished cell of detection, the highest mean over unseen generators first.

    Methods whose means cannot be ranked come last. Equal means are in the order of the cells.

    Args:
        cells: from `analysis.cells.cell_table`, of one condition, with the metric `METRIC`.
        generators: the order of the rows.
    """
    cells = cells[(cells["task"] == DETECTION) & (cells["metric"] == METRIC)]
    single = cells[cells["kind"] == CELL]
    without = single["trained_on"] == NO_GENERATOR
    ranked = {*with_most_cells(single[~without]), *with_most_cells(single[without])}
    found = []
    for variant, own in single.groupby("variant", sort=False):
        means = cells[cells["variant"] == variant]
        found.append(
            Standing(
                variant=str(variant),
                unseen=_mean(means, CROSS_GENERATOR),
                own=_mean(means, IN_DOMAIN),
                matrix=pivot(own, "mean", generators=generators, planned=list(own["trained_on"])),
                learns=bool((own["trained_on"] != NO_GENERATOR).any()),
                ranked=variant in ranked,
            )
        )
    return sorted(found, key=lambda one: (not one.ranked, one.unseen is None, -(one.unseen.value if one.unseen else 0)))


def best_of(standing: Sequence[Standing], which: str = "unseen") -> list[Standing]:
    """Those with the highest mean; several where means are equal, none without a mean.

    Args:
        standing: methods whose means can be compared.
        which: "unseen" or "own".
    """
    means = [(getattr(one, which), one) for one in standing]
    highest = max((mean.value for mean, _ in means if mean is not None), default=None)
    return [one for mean, one in means if mean is not None and highest is not None and mean.value >= highest - ALIKE]


def best_of_cells(standing: Sequence[Standing], generators: Sequence[str]) -> pd.DataFrame:
    """The highest AUROC of each cell and whose it is.

    Args:
        standing: methods in the order in which equal ones are named.
        generators: the order of the rows.

    Returns:
        columns tested_on, trained_on, mean, and `variants`, a tuple of all with that value. Cells without a value are
        left out.
    """
    best: dict[tuple[str, str], tuple[float, list[str]]] = {}
    for one in standing:
        for (row, column), value in np.ndenumerate(one.matrix.to_numpy(float)):
            if np.isnan(value):
                continue
            where = str(one.matrix.index[row]), str(one.matrix.columns[column])
            highest, variants = best.get(where, (-1.0, []))
            if value > highest + ALIKE:
                best[where] = float(value), [one.variant]
            elif value >= highest - ALIKE:
                variants.append(one.variant)
    order = {name: number for number, name in enumerate(generators)}
    rows = [(*where, value, tuple(variants)) for where, (value, variants) in best.items()]
    table = pd.DataFrame(rows, columns=["tested_on", "trained_on", "mean", "variants"])
    return table.sort_values("tested_on", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _mean(rows: pd.DataFrame, kind: str) -> Mean | None:
    of_kind = rows[rows["kind"] == kind]
    return None if of_kind.empty else Mean(*of_kind[["mean", "low", "high"]].iloc[0].astype(float))
