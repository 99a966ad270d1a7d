"""Calibration of a detection run's scores."""

from __future__ import annotations

import pandas as pd

from grid.tasks import cell_rows, generators_of
from models.calibration import expected_calibration_error


def calibration_table(scores: pd.DataFrame) -> pd.DataFrame:
    """ECE of each cell.

    Args:
        scores: of one or more detection runs: generator, label, score, trained_on, seed.

    Returns:
        columns trained_on, tested_on, ece (mean over seeds).
    """
    rows = []
    for (trained_on, seed), of_run in scores.groupby(["trained_on", "seed"], sort=False):
        for generator in generators_of(of_run):
            cell = of_run[cell_rows(of_run, generator)]
            ece = expected_calibration_error(cell["label"].to_numpy(), cell["score"].to_numpy())
            rows.append((trained_on, generator, seed, ece))
    table = pd.DataFrame(rows, columns=["trained_on", "tested_on", "seed", "ece"])
    return table.groupby(["trained_on", "tested_on"], sort=False)["ece"].mean().reset_index()
