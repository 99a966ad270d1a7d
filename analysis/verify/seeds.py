"""What another training seed would change, written out from `docs/numbers.md`, section "Seeds"."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from analysis.verify.estimates import Spread

BySeed = Mapping[int, float]
Cells = Mapping[Any, BySeed]  # cell of one training set -> seed -> value
NO_SPREAD = Spread(0.0, math.inf)


@dataclass(frozen=True)
class Seeds:
    """What the seeds do to a value: to the mean of the seeds that ran, and to one more run."""

    of_mean: Spread
    one_more: Spread


FIXED = Seeds(NO_SPREAD, NO_SPREAD)  # of a method that does not depend on the seed


def _common(cells: Cells) -> list[int]:
    """The seeds that all cells have."""
    return sorted(set.intersection(*(set(by_seed) for by_seed in cells.values())))


def of_cell(value: float, num_seeds: int, train_sets: Iterable[Cells]) -> Seeds | None:
    """Of one cell: the variance is v (1 - v) times a factor, pooled over the cells of all training sets.

    Args:
        value: the mean over the cell's seeds.
        num_seeds: of the cell.
        train_sets: all cells of the same metric, per training set.
    """
    squares, weights, degrees = 0.0, 0.0, 0
    for cells in train_sets:
        seeds = _common(cells)
        if len(seeds) < 2:
            continue
        of_cells = [[by_seed[seed] for seed in seeds] for by_seed in cells.values()]
        squares += sum(sum((v - sum(row) / len(row)) ** 2 for v in row) for row in of_cells) / len(of_cells)
        centres = [sum(row) / len(row) for row in of_cells]
        weights += (len(seeds) - 1) * sum(v * (1 - v) for v in centres) / len(centres)
        degrees += len(seeds) - 1
    if not degrees or num_seeds < 2:
        return None
    variance = squares / weights * value * (1 - value) if weights else 0.0
    return Seeds(Spread(variance / num_seeds, degrees), Spread(variance * (1 + 1 / num_seeds), degrees))


def of_sum(train_sets: Sequence[tuple[Cells, Mapping[Any, float]]]) -> Seeds | None:
    """Of a sum over cells, per training set: its cells, and how often each counts."""
    means, others = [], []
    for cells, weights in train_sets:
        seeds = _common(cells)
        if len(seeds) < 2:
            return None
        sums = [sum(weight * cells[cell][seed] for cell, weight in weights.items()) for seed in seeds]
        variance = float(np.var(sums, ddof=1))
        means.append(Spread(variance / len(seeds), len(seeds) - 1))
        others.append(Spread(variance * (1 + 1 / len(seeds)), len(seeds) - 1))
    return Seeds(added(means), added(others))


def added(spreads: Sequence[Spread]) -> Spread:
    """Variances of independent values add up (Satterthwaite 1946)."""
    total = sum(spread.variance for spread in spreads)
    if total == 0:
        return NO_SPREAD
    return Spread(total, total**2 / sum(s.variance**2 / s.degrees for s in spreads if s.variance > 0))


def joined(value: float, low: float, high: float, spread: Spread, least: float) -> tuple[float, float]:
    """The interval over photographs, joined with the t interval of the seeds by the squares of their halves."""
    half = float(stats.t.isf(0.025, spread.degrees)) * math.sqrt(spread.variance) if spread.variance else 0.0
    below, above = math.sqrt((value - low) ** 2 + half**2), math.sqrt((high - value) ** 2 + half**2)
    return max(value - below, min(least, low)), min(value + above, max(1.0, high))
