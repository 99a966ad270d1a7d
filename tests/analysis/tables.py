"""Tidy results made by hand, as `Store.results` gives them, and a grid that they could be of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.store import RUN_COLUMNS
from data.conditions import CLEAN
from data.verdict import Verdict
from tests.analysis import published

COLUMNS = [*RUN_COLUMNS, "data", "condition", "tested_on", "metric", "value"]


def row(method: str, trained_on: str, tested_on: str, metric: str, value: float, **changes: Any) -> dict[str, Any]:
    shared = {
        "run_id": "r", "key": f"{method}{trained_on}", "task": "detection", "seed": 0, "data": "d", "weights": "",
        "variant": method, "condition": CLEAN, "train_condition": CLEAN, "config": "{}", "equal_size": "",
    }  # fmt: skip
    place = {"method": method, "trained_on": trained_on, "tested_on": tested_on}
    return shared | place | {"metric": metric, "value": value} | changes


def results(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def detection(
    cells: dict[tuple[str, str], float], metric: str = "accuracy", *, method: str = "m", **changes: Any
) -> list[dict[str, Any]]:
    """(trained on, tested on) -> value."""
    return [row(method, trained, tested, metric, value, **changes) for (trained, tested), value in cells.items()]


def published_results() -> pd.DataFrame:
    """Every published value; with an AUROC of each cell that is 0.01 lower, so that the two cannot be mixed up."""
    rows = []
    for method, table in published.DETECTION.items():
        for tested_on in table:
            for trained_on in published.GENERATORS:
                value = published.accuracy(method, tested_on=tested_on, trained_on=trained_on)
                rows.append(row(method, trained_on, tested_on, "accuracy", value))
                rows.append(row(method, trained_on, tested_on, "auroc", value - 0.01))
        classes = published.ATTRIBUTION[method]
        values = {f"accuracy/{name}": value for name, value in classes.items()}
        values |= {"accuracy": published.OVERALL[method], "balanced_accuracy": 0.123, "macro_f1": 0.321}
        everything = "+".join(sorted(published.GENERATORS))
        rows += [row(method, everything, "all", name, value, task="attribution") for name, value in values.items()]
    return results(rows)


class Planned:
    """Stands in for the `Store` of these results: what the terminal's tables ask of it.

    Args:
        table: the results.
        generators: in the order of tables.
        trained_on: training sets that detection by every variant is planned for; None: those that are in the results.
        verdict: of the audits; None: not known.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        generators: Iterable[str],
        trained_on: Iterable[str] | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        self.generators, self.verdict = list(generators), verdict
        runs = table[["task", "variant", "trained_on"]]
        if trained_on is not None:
            variants = dict.fromkeys(table["variant"])
            rows = [("detection", variant, name) for variant in variants for name in trained_on]
            runs = pd.DataFrame(rows, columns=["task", "variant", "trained_on"])
        self._runs = runs.drop_duplicates()

    def runs(self) -> pd.DataFrame:
        return self._runs
