"""Calibration of a detection run's scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit

from grid.tasks import cell_rows, generators_of

NUM_BINS = 15


def reliability(labels: np.ndarray, scores: np.ndarray, *, num_bins: int = NUM_BINS) -> pd.DataFrame:
    """Images binned by their predicted probability of fake, and the share of fakes in each bin.

    Bins are equally wide and closed on the right, I_m = ((m - 1) / M, m / M], as in Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017 (arXiv 1706.04599); a probability of 0 falls into the first bin.

    Args:
        labels: (N,), 0 = real, 1 = fake.
        scores: (N,), log-odds of fake.
        num_bins: M, the number of bins.

    Returns:
        M rows: low, high, num_images, probability (mean, of fake) and fake (share of fakes); NaN in empty bins.
    """
    labels, given = np.asarray(labels), np.asarray(expit(np.asarray(scores, dtype=np.float64)))
    if labels.shape != given.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels have shape {labels.shape}, scores {given.shape}; expected (N,) for both, N > 0")
    if not np.isfinite(given).all():
        raise ValueError("some scores are not numbers")
    edges = np.arange(num_bins + 1) / num_bins
    bins = np.clip(np.searchsorted(edges, given, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        means = np.bincount(bins, weights=given, minlength=num_bins) / counts
        fakes = np.bincount(bins, weights=labels == 1, minlength=num_bins) / counts
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "num_images": counts, "probability": means, "fake": fakes}
    )


def expected_calibration_error(labels: np.ndarray, scores: np.ndarray, *, num_bins: int = NUM_BINS) -> float:
    """ECE, equation 3 of Guo et al. 2017: sum over bins of |B_m| / N * |share of fakes - mean probability of fake|.

    The paper bins the confidence in the predicted class; binning the probability of fake shows both sides of 0.5
    separately. Arguments as `reliability`.
    """
    bins = reliability(labels, scores, num_bins=num_bins)
    filled = bins[bins["num_images"] > 0]
    gaps = (filled["fake"] - filled["probability"]).abs()
    return float((filled["num_images"] * gaps).sum() / filled["num_images"].sum())


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
