"""How much of a method's result rests on traces outside the edited region: raw fakes against pasted ones."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from analysis.cells import CELL, cell_estimates
from analysis.intervals import Difference, Estimate, difference, mean
from analysis.matrices import decimals
from analysis.robustness import scored_under
from analysis.store import Store
from data.conditions import PASTE_BACK
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.tasks import DETECTION, get_task
from grid.train_sets import TrainSet
from models.detector import DETECTION_CLASSES

COLUMNS = [
    "kind", "trained_on", "tested_on", "metric", "raw", "pasted", "difference", "low", "high", "p", "pasted_low",
    "pasted_high", "unchanged",
]  # fmt: skip
ALL_CELLS = "mean"
CHANCE = 0.5


def paste_back_table(store: Store, run_ids: Collection[str], metric: str) -> pd.DataFrame:
    """Pasted minus raw, cell by cell and as means, paired by source photograph (`analysis.intervals.difference`).

    Where every image of a cell has the same score raw and pasted, as on fakes that are pasted already, the difference
    is 0 with the interval [0, 0].

    Args:
        store: the grid.
        run_ids: finished detection runs of one variant; those that were scored under "paste-back" count.
        metric: as logged, with an interval.

    Returns:
        columns `COLUMNS`; `kind` is "cell", or "mean" (over all cells), "in-domain mean" or "cross-generator mean".
        `pasted_low` and `pasted_high` are the interval of `pasted`; `unchanged` says whether every score is the same.
        Without runs that were scored so, no row.

    Raises:
        StoreError: scores are missing or cannot be read.
    """
    runs = scored_under(store, run_ids, [PASTE_BACK])
    raw = cell_estimates(store, runs, metric)
    pasted = cell_estimates(store, runs, metric, condition=PASTE_BACK)
    same = _unchanged_cells(store, runs)
    groups: list[tuple[str, list[tuple[str, str]]]] = [(CELL, [where]) for where in raw if where in pasted]
    shared = [where for _, (where,) in groups]
    in_domain = [where for where in shared if where[1] in TrainSet.parse(where[0])]
    kinds = {ALL_CELLS: shared, IN_DOMAIN: in_domain, CROSS_GENERATOR: [c for c in shared if c not in in_domain]}
    groups += [(kind, cells) for kind, cells in kinds.items() if cells]
    rows = []
    for kind, cells in groups:
        before, after = mean([raw[where] for where in cells]), mean([pasted[where] for where in cells])
        unchanged = all(where in same for where in cells)
        found = Difference(0.0, 0.0, 0.0, 1.0) if unchanged else difference(after, before)
        trained_on, tested_on = cells[0] if kind == CELL else ("", "")
        rows.append([kind, trained_on, tested_on, metric, *_row(before, after, found), unchanged])
    return pd.DataFrame(rows, columns=COLUMNS)


def sentence(variant: str, table: pd.DataFrame) -> str:
    """What the difference means, in plain words.

    Args:
        variant: the method.
        table: from `paste_back_table` with the metric "auroc", with at least one row.
    """
    row = table[table["kind"] == ALL_CELLS].iloc[0]
    if row["unchanged"]:
        return (
            f"{variant}: every score stays the same, so the difference is exactly 0. Outside their masks these fakes "
            "are their originals already."
        )
    values = f"{decimals(float(row['raw']))} raw, {decimals(float(row['pasted']))} pasted"
    spread = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    words = f"{variant}: mean AUROC {values}; difference {spread}. "
    if row["high"] < 0:
        words += "That part of its result rested on what the generators changed outside the edited region."
        if row["pasted_low"] <= CHANCE <= row["pasted_high"]:
            words += " What is left cannot be told from chance."
    elif row["low"] > 0:
        words += "It does better where only the edited region differs: what lies outside it misled the detector."
    else:
        words += (
            "These test images do not show that it makes a difference whether the fakes keep their traces outside the "
            "edited region."
        )
    return words


def _row(before: Estimate, after: Estimate, found: Difference) -> list[float]:
    return [before.value, after.value, *found, *after.interval]


def _unchanged_cells(store: Store, run_ids: Collection[str]) -> set[tuple[str, str]]:
    """(trained on, tested on) of the cells in which every image of every run has the same score raw and pasted."""
    task = get_task(DETECTION)
    trained = store.runs().set_index("run_id")["trained_on"]
    same: dict[tuple[str, str], bool] = {}
    columns = ["path", "generator", "label", "score"]
    for run_id in run_ids:
        raw = store.scores(run_id, columns=columns)
        pasted = store.scores(run_id, columns=columns, condition=PASTE_BACK).set_index("path")["score"]
        equal = raw["score"].to_numpy() == pasted.reindex(raw["path"]).to_numpy()
        for tested_on, cell in task.cells(raw, DETECTION_CLASSES).items():
            where = (str(trained[run_id]), tested_on)
            same[where] = same.get(where, True) and bool(np.all(equal[cell]))
    return {where for where, is_same in same.items() if is_same}
