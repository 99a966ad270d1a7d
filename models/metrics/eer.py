"""Equal error rate: where the ROC curve, interpolated linearly, crosses false positive rate = false negative rate."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_curve

from models.metrics import Answers, Metric, Weighted, register_metric
from models.metrics._weighted import curve


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The false positive rate at the threshold where it equals the false negative rate."""
    rates = roc_curve(answers.labels, answers.scores, sample_weight=weights, drop_intermediate=False)
    false_positives, true_positives = rates[0], rates[1]
    # along the curve, false positive rate minus false negative rate rises strictly from -1 to 1
    return float(np.interp(0.0, false_positives + true_positives - 1.0, false_positives))


def resample(answers: Answers, sources: np.ndarray) -> Weighted:
    """The same for many weights at once."""
    counts = curve(answers, sources)

    def compute(weights: np.ndarray) -> np.ndarray:
        true, false = counts(weights)
        false_rate, balance = false / false[-1], false / false[-1] + true / true[-1] - 1.0
        after = np.argmax(balance >= 0, axis=0)[None]
        before = np.maximum(after - 1, 0)

        def at(values: np.ndarray, row: np.ndarray) -> np.ndarray:
            return np.asarray(np.take_along_axis(values, row, axis=0)[0])

        low, high = at(balance, before), at(balance, after)
        part = -low / (high - low)
        return at(false_rate, before) + part * (at(false_rate, after) - at(false_rate, before))

    return compute


eer = register_metric(
    Metric(
        "eer",
        "equal error rate",
        value,
        ranks=True,
        task="binary",
        chance=0.5,
        chance_is_fixed=True,
        higher_is_better=False,
        position=60,
        resample=resample,
    )
)
