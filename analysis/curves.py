"""What a detection run's scores say besides one accuracy: ROC, precision and recall, calibration, distributions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from grid.tasks import cell_rows, generators_of

NUM_BINS = 15


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Log-odds of fake -> probability of fake, float64 in [0, 1]."""
    from scipy.special import expit

    return np.asarray(expit(np.asarray(scores, dtype=np.float64)))


def reliability(labels: np.ndarray, scores: np.ndarray, *, num_bins: int = NUM_BINS) -> pd.DataFrame:
    """Images by the probability that they were given, and how many of them were fake.

    Bins are equally wide and closed on the right, I_m = ((m - 1) / M, m / M], as in Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017 (arXiv 1706.04599); a probability of 0 counts to the first one.

    Args:
        labels: (N,), 0 = real, 1 = fake.
        scores: (N,), log-odds of fake.
        num_bins: M.

    Returns:
        M rows: low, high, num_images, probability (mean, of fake) and fake (share of fakes); NaN in empty bins.
    """
    labels, given = np.asarray(labels), probabilities(scores)
    if labels.shape != given.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels have shape {labels.shape}, scores {given.shape}; wanted (N,) for both, N > 0")
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

    The paper bins the confidence in the predicted class; with two classes and the probability of fake the bins show
    both sides of 0.5 apart. Arguments as `reliability`.
    """
    bins = reliability(labels, scores, num_bins=num_bins)
    filled = bins[bins["num_images"] > 0]
    gaps = (filled["fake"] - filled["probability"]).abs()
    return float((filled["num_images"] * gaps).sum() / filled["num_images"].sum())


def roc_points(cell: pd.DataFrame) -> pd.DataFrame:
    """Columns false_positive_rate and true_positive_rate ("positive" = called fake), along the thresholds."""
    from sklearn.metrics import roc_curve

    false_positives, true_positives, _ = roc_curve(cell["label"], cell["score"])
    return pd.DataFrame({"false_positive_rate": false_positives, "true_positive_rate": true_positives})


def precision_recall_points(cell: pd.DataFrame) -> pd.DataFrame:
    """Columns recall and precision for "fake", along the thresholds."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(cell["label"], cell["score"])
    return pd.DataFrame({"recall": recall, "precision": precision})


def calibration_table(scores: pd.DataFrame, *, num_bins: int = NUM_BINS) -> pd.DataFrame:
    """ECE of each cell.

    Args:
        scores: of one or more detection runs: generator, label, score, and trained_on and seed for whose they are.
        num_bins: of `expected_calibration_error`.

    Returns:
        columns trained_on, tested_on, ece (mean over seeds).
    """
    rows = [
        (trained_on, generator, seed, _ece_of(of_run[cell_rows(of_run, generator)], num_bins))
        for (trained_on, seed), of_run in scores.groupby(["trained_on", "seed"], sort=False)
        for generator in generators_of(of_run)
    ]
    table = pd.DataFrame(rows, columns=["trained_on", "tested_on", "seed", "ece"])
    return table.groupby(["trained_on", "tested_on"], sort=False)["ece"].mean().reset_index()


def _ece_of(cell: pd.DataFrame, num_bins: int) -> float:
    return expected_calibration_error(cell["label"].to_numpy(), cell["score"].to_numpy(), num_bins=num_bins)
