"""Scores made by hand, and the intervals that the report gives for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.cells import CELL, cell_table, compare
from analysis.intervals import Sources
from analysis.soundness import CellRows
from data.conditions import CLEAN
from models.metrics import AT_VALIDATION, get_metric

COLUMNS = [
    "run_id",
    "task",
    "method",
    "config",
    "variant",
    "condition",
    "trained_on",
    "tested_on",
    "seed",
    "metric",
    "value",
]


class Scored:
    """Stands in for a `Store` of finished trials, whose scores are frames in memory.

    Args:
        variants: name -> one frame per seed; detection is trained and tested on lama, attribution on lama and ldm.
        metrics: that were logged.
        threshold: the runs' own, one per seed.
    """

    def __init__(
        self, variants: Mapping[str, Sequence[pd.DataFrame]], *metrics: str, threshold: Sequence[float] = ()
    ) -> None:
        self.cell_rows = CellRows()
        self._scores: dict[str, pd.DataFrame] = {}
        self._thresholds: dict[str, float] = {}
        rows = []
        for variant, frames in variants.items():
            for seed, frame in enumerate(frames):
                run_id = f"{variant}{seed}"
                self._scores[run_id] = frame
                self._thresholds[run_id] = threshold[seed] if threshold else 0.0
                detection = "score" in frame.columns
                rows += [
                    {
                        "run_id": run_id,
                        "task": "detection" if detection else "attribution",
                        "variant": variant,
                        "method": variant,
                        "config": "{}",
                        "condition": CLEAN,
                        "trained_on": "lama" if detection else "lama+ldm",
                        "tested_on": "lama" if detection else "all",
                        "seed": seed,
                        "metric": metric,
                        "value": self._value(run_id, metric),
                    }
                    for metric in metrics
                ]
        self._results = pd.DataFrame(rows, columns=COLUMNS)

    def _value(self, run_id: str, metric: str) -> float:
        threshold = self._thresholds[run_id] if metric.endswith(AT_VALIDATION) else 0.0
        cell = Sources([self._scores[run_id]]).cell(self._scores[run_id])
        return get_metric(metric).value(cell.at(threshold))

    def ordered(self, generators: Iterable[str]) -> list[str]:
        return sorted(generators)

    def results(self) -> pd.DataFrame:
        return self._results

    def scores(self, run_id: str, columns: Sequence[str], *, condition: str = CLEAN) -> pd.DataFrame:
        assert condition == CLEAN
        return self._scores[run_id][list(columns)]

    def threshold(self, run_id: str) -> float:
        return self._thresholds[run_id]


def interval(*seeds: pd.DataFrame, metric: str, threshold: Sequence[float] = ()) -> tuple[float, float]:
    """What the report gives for the cell of these scores, one frame per seed: (low, high)."""
    store: Any = Scored({"m": seeds}, metric, threshold=threshold)
    table = cell_table(store, metrics=[metric])
    (cell,) = table[table["kind"] == CELL].itertuples()
    return cell.low, cell.high


def difference(a: pd.DataFrame, b: pd.DataFrame, *, metric: str) -> Any:
    """What the report gives for a minus b in one cell: with the attributes difference, low, high, p."""
    store: Any = Scored({"a": [a], "b": [b]}, metric)
    table = compare(store, "a", "b", metric)
    (cell,) = table[table["kind"] == CELL].itertuples()
    return cell
