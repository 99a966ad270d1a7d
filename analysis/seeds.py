"""What another training seed would change: one variance, two intervals.

A **confidence interval of the mean** says where the mean over all seeds and all photographs of the kind lies. A
**prediction interval of one more run** says where the value of one more run, with another seed, would lie. Both are
95 % intervals. Both join the interval over photographs (`analysis.intervals`) with a t interval of the seeds by the
squares of their halves, below and above the value (MOVER; Zou and Donner 2008, Statistics in Medicine 27, 1693-1702).
So an interval near 1 keeps its skewed shape.

The seed variance of a single cell is pooled over the cells of a method, task and metric. A pool assumes that the
variance of a share or an AUROC v is proportional to v (1 - v): values near 0 or 1 move less. The degrees of freedom are
those of the runs, not of the cells: the cells of one run are values of one detector, and move together.

A mean over cells, or a gap, has a variance of its own: that of the same sum over each run's cells. Runs on different
training sets are independent, so their variances add up (Satterthwaite 1946).

With one seed neither variance is known. A method that does not depend on the seed has the variance 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from analysis.intervals import NO_INTERVAL, NO_SPREAD, UNKNOWN, Interval, Spread


@dataclass(frozen=True)
class SeedSpread:
    """What the seeds do to a value.

    Attributes:
        of_mean: to its mean over the seeds that ran.
        of_one_more: to one more run, as far from that mean as it may be.
    """

    of_mean: Spread
    of_one_more: Spread


NONE, ONE_SEED = SeedSpread(NO_SPREAD, NO_SPREAD), SeedSpread(UNKNOWN, UNKNOWN)
Runs = Mapping[int, Mapping[Hashable, float]]  # seed -> cell -> value, of one training set


class Pool(NamedTuple):
    """The seed variance that the cells of a method, task and metric share.

    Attributes:
        factor: the variance of a value v is `factor` times v (1 - v), see `scale`.
        degrees_of_freedom: seeds minus one, summed over training sets; 0: no training set has two seeds.
    """

    factor: float
    degrees_of_freedom: int

    def of(self, value: float, num_seeds: int) -> SeedSpread:
        """For a cell with this mean over so many seeds."""
        if not self.degrees_of_freedom or num_seeds < 2:
            return ONE_SEED
        variance = self.factor * scale(value)
        spreads = (Spread(variance * share, self.degrees_of_freedom) for share in (1 / num_seeds, 1 + 1 / num_seeds))
        return SeedSpread(*spreads)


def scale(value: float) -> float:
    """The seed variance of a share or an AUROC v is taken to be proportional to v (1 - v)."""
    return value * (1 - value)


def pooled(train_sets: Iterable[Runs]) -> Pool:
    """The pool of all cells of these training sets.

    Args:
        train_sets: the runs of each; every run has the same cells.
    """
    total, weights, degrees = 0.0, 0.0, 0
    for runs in train_sets:
        if len(runs) < 2:
            continue
        values = _table(runs)  # (seeds, cells)
        means = values.mean(axis=0)
        total += float(((values - means) ** 2).sum()) / values.shape[1]
        weights += (len(runs) - 1) * float(np.mean([scale(mean) for mean in means]))
        degrees += len(runs) - 1
    return Pool(total / weights if weights else 0.0, degrees)


def of_sum(train_sets: Iterable[tuple[Runs, Mapping[Hashable, float]]]) -> SeedSpread:
    """Of a sum over cells.

    Args:
        train_sets: the runs of each, and cell -> how often it counts in the sum.
    """
    of_mean, of_one_more = [], []
    for runs, coefficients in train_sets:
        sums = [sum(c * cells[cell] for cell, c in coefficients.items()) for cells in runs.values()]
        if len(sums) < 2:
            return ONE_SEED
        variance, degrees = float(np.var(sums, ddof=1)), len(sums) - 1
        of_mean.append(Spread(variance / len(sums), degrees))
        of_one_more.append(Spread(variance * (1 + 1 / len(sums)), degrees))
    return SeedSpread(added(of_mean), added(of_one_more))


def added(spreads: Sequence[Spread]) -> Spread:
    """Of a sum of independent values (Satterthwaite 1946)."""
    if not all(spread.is_known for spread in spreads):
        return UNKNOWN
    variance = sum(spread.variance for spread in spreads)
    if not variance:
        return NO_SPREAD
    return Spread(variance, variance**2 / sum(s.variance**2 / s.degrees_of_freedom for s in spreads if s.variance))


def joined(value: float, photographs: Interval, spread: Spread, *, least: float = 0.0) -> Interval:
    """The interval of a value over photographs and seeds, within [least, 1]; NaN if one of the two is unknown.

    Args:
        value: the value.
        photographs: its interval over photographs.
        spread: of the seeds.
        least: the lowest possible value: 0, or -1 for a gap.
    """
    if not spread.is_known or any(map(math.isnan, photographs)):
        return NO_INTERVAL
    low = value - math.hypot(value - photographs.low, spread.half)
    high = value + math.hypot(photographs.high - value, spread.half)
    return Interval(max(low, min(least, photographs.low)), min(high, max(1.0, photographs.high)))


def _table(runs: Runs) -> np.ndarray:
    cells = list(next(iter(runs.values())))
    return np.array([[values[cell] for cell in cells] for values in runs.values()])


def by_train_set(cells: Mapping[tuple[Hashable, Hashable], Mapping[int, float]]) -> dict[Hashable, Runs]:
    """Training set -> its runs, from (training set, cell) -> seed -> value; of the seeds that all its cells have."""
    sorted_cells: dict[Hashable, dict[Hashable, Mapping[int, float]]] = defaultdict(dict)
    for (train_set, cell), values in cells.items():
        sorted_cells[train_set][cell] = values
    runs: dict[Hashable, Runs] = {}
    for train_set, of_cell in sorted_cells.items():
        seeds = sorted(set.intersection(*(set(values) for values in of_cell.values())))
        runs[train_set] = {seed: {cell: values[seed] for cell, values in of_cell.items()} for seed in seeds}
    return runs
