"""Calibration of a detection run's scores."""

from __future__ import annotations

import pandas as pd

from grid.tasks import cell_rows, generators_of
from models.calibration import expected_calibration_error


def calibration_table(scores: pd.DataFrame) -> pd.DataFrame:
    """ECE of each cell, as the detectors give their probabilities, and with their temperatures.

    Args:
        scores: of one or more detection runs: generator, label, score, trained_on, seed, and maybe `calibrated`, the
            score over the run's temperature (NaN where that is not known).

    Returns:
        columns trained_on, tested_on, ece, and with `calibrated` ece_calibrated (means over seeds; NaN for no seed).
    """
    columns = {"ece": "score"} | ({"ece_calibrated": "calibrated"} if "calibrated" in scores.columns else {})
    rows = []
    for (trained_on, seed), of_run in scores.groupby(["trained_on", "seed"], sort=False):
        for generator in generators_of(of_run):
            cell = of_run[cell_rows(of_run, generator)]
            row = {"trained_on": trained_on, "tested_on": generator, "seed": seed}
            for name, column in columns.items():
                known = bool(cell[column].notna().all())
                labels, values = cell["label"].to_numpy(), cell[column].to_numpy()
                row[name] = expected_calibration_error(labels, values) if known else float("nan")
            rows.append(row)
    table = pd.DataFrame(rows)
    return table.groupby(["trained_on", "tested_on"], sort=False)[list(columns)].mean().reset_index()
