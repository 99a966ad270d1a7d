"""Tidy results made by hand, as `analysis.store.load_results` gives them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.store import COLUMNS
from tests.analysis import published


def row(method: str, trained_on: str, tested_on: str, metric: str, value: float, **changes: Any) -> dict[str, Any]:
    shared = {
        "run_id": "r", "key": f"{method}{trained_on}", "task": "detection", "seed": 0, "data": "d", "weights": "",
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
    """Every published figure; with an AUROC of each cell that is 0.01 lower, so that the two cannot be mixed up."""
    rows = []
    for method, table in published.DETECTION.items():
        for tested_on in table:
            for trained_on in published.GENERATORS:
                value = published.accuracy(method, tested_on=tested_on, trained_on=trained_on)
                rows.append(row(method, trained_on, tested_on, "accuracy", value))
                rows.append(row(method, trained_on, tested_on, "auroc", value - 0.01))
        classes = published.ATTRIBUTION[method]
        figures = {f"accuracy/{name}": value for name, value in classes.items()}
        figures |= {"accuracy": published.OVERALL[method], "balanced_accuracy": 0.123, "macro_f1": 0.321}
        everything = "+".join(sorted(published.GENERATORS))
        rows += [row(method, everything, "all", name, value, task="attribution") for name, value in figures.items()]
    return results(rows)
