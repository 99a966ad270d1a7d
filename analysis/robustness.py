"""What conditions of the test pictures do to a method: means over conditions, and the shift of its scores."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from analysis.cells import cell_estimates
from analysis.intervals import Estimate, mean
from analysis.store import Store
from data.conditions import CLEAN, PASTE_BACK
from grid.train_sets import TrainSet

_HARDER_UPWARDS = ("blur", "noise")  # of all other families that ship, a higher level changes less
SHIFT_COLUMNS = ["condition", "real", "fake"]


def changed(conditions: Sequence[str]) -> list[str]:
    """Those of the conditions that change real and fake pictures alike: all but "clean" and "paste-back"."""
    return [name for name in conditions if name not in (CLEAN, PASTE_BACK)]


def ordered(conditions: Sequence[str]) -> list[str]:
    """Conditions in the order of tables: "clean", then families in alphabetical order, each from mild to hard."""

    def key(name: str) -> tuple[bool, str, int, int]:
        family, _, level = name.rpartition("-")
        if not level.isdigit():
            return name != CLEAN, name, 0, 0
        return True, family, 1, int(level) if family in _HARDER_UPWARDS else -int(level)

    return sorted(conditions, key=key)


def scored_under(store: Store, run_ids: Collection[str], conditions: Sequence[str]) -> list[str]:
    """Those of the runs that were scored under each of the conditions."""
    return [run_id for run_id in run_ids if set(conditions) <= set(store.scored(run_id))]


def score_shifts(store: Store, run_ids: Collection[str], conditions: Sequence[str]) -> pd.DataFrame:
    """How far a condition moves the scores of real and of fake images: the median change in log-odds of fake.

    The change is that of the same image and run against the clean picture. The median is taken over the images of all
    runs that were scored under the condition.

    Args:
        store: the grid.
        run_ids: finished runs of one variant of a method, of a binary task.
        conditions: conditions of the test pictures.

    Returns:
        columns `SHIFT_COLUMNS`, one row per condition under which a run was scored; real and fake are log-odds.

    Raises:
        StoreError: scores are missing or cannot be read.
    """
    rows = []
    columns = ["path", "label", "score"]
    clean = {run_id: store.scores(run_id, columns=columns).set_index("path") for run_id in run_ids}
    for condition in conditions:
        changes: dict[int, list[np.ndarray]] = {0: [], 1: []}
        for run_id in scored_under(store, run_ids, [condition]):
            scores = store.scores(run_id, columns=columns, condition=condition).set_index("path")
            moved = (scores["score"] - clean[run_id]["score"].reindex(scores.index)).to_numpy(float)
            for label, of_label in changes.items():
                of_label.append(moved[scores["label"].to_numpy() == label])
        if changes[0]:
            medians = [float(np.median(np.concatenate(changes[label]))) for label in (0, 1)]
            rows.append([condition, *medians])
    return pd.DataFrame(rows, columns=SHIFT_COLUMNS)


def mean_over_conditions(
    store: Store, run_ids: Collection[str], metric: str, conditions: Sequence[str]
) -> tuple[Estimate | None, Estimate | None]:
    """A metric's in-domain and cross-generator mean over conditions, each condition with the same weight.

    Args:
        store: the grid.
        run_ids: runs of one variant and task that were all scored under all the conditions.
        metric: as logged, with an interval.
        conditions: at least one.

    Returns:
        the two means with intervals over source photographs; None where there is no such cell.
    """
    in_domain: list[Estimate] = []
    others: list[Estimate] = []
    for condition in conditions:
        for (trained_on, tested_on), estimate in cell_estimates(store, run_ids, metric, condition=condition).items():
            (in_domain if tested_on in TrainSet.parse(trained_on) else others).append(estimate)
    return tuple(mean(found) if found else None for found in (in_domain, others))  # type: ignore[return-value]
