"""How well a detector's probabilities are calibrated, and the temperature that calibrates them on the validation split.

Everywhere, fake = 1, a score is the log-odds of fake, and its calibrated log-odds are the score over the temperature.
A temperature moves no image across p = 0.5 and changes no order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from models.detector import FAKE, REAL

NUM_BINS = 15
_LARGEST = np.exp(9.9)  # scikit-learn looks for the inverse temperature between exp(-10) and exp(10)


@dataclass(frozen=True)
class Temperature:
    """A temperature from the validation split.

    Attributes:
        value: above 0; 1 changes nothing.
        ece_before: expected calibration error on the validation images, in [0, 1].
        ece_after: with the temperature; never above `ece_before`.
        num_images: distinct images of the validation split that it rests on.
        note: why the temperature stays 1 where a fit was not taken; else "".
    """

    value: float
    ece_before: float
    ece_after: float
    num_images: int
    note: str = ""

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """Log-odds of fake (N,) -> calibrated log-odds of fake (N,)."""
        return np.asarray(scores, dtype=np.float64) / self.value


def fit_temperature(labels: np.ndarray, scores: np.ndarray, *, num_images: int | None = None) -> Temperature:
    """The temperature with the lowest cross-entropy (Guo et al. 2017, arXiv 1706.04599). Call it with the *validation*.

    Fitted by scikit-learn's `CalibratedClassifierCV(method="temperature")`. The temperature stays 1, and `note` says
    so, where the fit has no optimum (no validation image is on the wrong side of p = 0.5, or all are) and where its
    expected calibration error would be above that of the detector itself.

    Args:
        labels: int (N,), 0 = real, 1 = fake, both present.
        scores: (N,), log-odds of fake.
        num_images: distinct images; None: N. Fewer than N where each image is scored under several conditions.

    Raises:
        ValueError: a class is missing, unequal lengths, or a score that is not finite.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1 or set(np.unique(labels).tolist()) != {REAL, FAKE}:
        raise ValueError("a temperature needs one score per image, and both real (0) and fake (1) images")
    if not np.isfinite(scores).all():
        raise ValueError("some scores are not finite")
    num_images = len(labels) if num_images is None else num_images
    before = expected_calibration_error(labels, scores)
    wrong = ((scores > 0) != (labels == FAKE)) & (scores != 0)
    if not wrong.any():
        note = "no validation image is on the wrong side of p = 0.5, so no temperature is the best one"
        return Temperature(1.0, before, before, num_images, note)
    value = _fitted(labels, scores)
    if not 1 / _LARGEST < value < _LARGEST:
        note = "the scores say nothing about the validation images, so the best temperature would be infinite"
        return Temperature(1.0, before, before, num_images, note)
    after = expected_calibration_error(labels, scores / value)
    if after > before:
        note = f"a temperature of {value:.3g} fits best, and would raise the calibration error to {after:.3f}"
        return Temperature(1.0, before, before, num_images, note)
    return Temperature(value, before, after, num_images)


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
    return error_of_bins(reliability(labels, scores, num_bins=num_bins))


def error_of_bins(bins: pd.DataFrame) -> float:
    """The expected calibration error of bins from `reliability`."""
    filled = bins[bins["num_images"] > 0]
    gaps = (filled["fake"] - filled["probability"]).abs()
    return float((filled["num_images"] * gaps).sum() / filled["num_images"].sum())


def _fitted(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    halved = LogisticRegression()  # of one input, the score: scikit-learn gives the classes the logits -x and x
    halved.classes_, halved.coef_, halved.intercept_ = np.array([REAL, FAKE]), np.array([[0.5]]), np.array([0.0])
    everything = np.arange(len(labels))  # nothing is fitted to a part, so that there is nothing to leave out
    model = CalibratedClassifierCV(FrozenEstimator(halved), method="temperature", cv=[(everything, everything)])
    model.fit(scores[:, None], labels)
    return float(1 / model.calibrated_classifiers_[0].calibrators[0].beta_)
