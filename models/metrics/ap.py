"""Average precision for fakes: the step-wise sum of precision over recall, not interpolated."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score

from models.metrics import Answers, Metric, Weighted, register_metric
from models.metrics._weighted import curve


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The mean precision at each fake, as the threshold falls."""
    return float(average_precision_score(answers.labels, answers.scores, sample_weight=weights))


def resample(answers: Answers, sources: np.ndarray) -> Weighted:
    """The same for many weights at once."""
    counts = curve(answers, sources)

    def compute(weights: np.ndarray) -> np.ndarray:
        true, false = counts(weights)
        precision = true[1:] / np.maximum(true[1:] + false[1:], 1e-9)
        return np.asarray((np.diff(true, axis=0) * precision).sum(axis=0) / true[-1])

    return compute


ap = register_metric(
    Metric("ap", "average precision", value, ranks=True, task="binary", chance=0.5, position=50, resample=resample)
)
