"""The true positive rate at a low false positive rate: how many fakes are caught when 1 in 10 real images may be."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_curve

from models.metrics import Answers, Metric, register_metric

FALSE_POSITIVE_RATE = 0.1


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The ROC curve, interpolated linearly, at that false positive rate."""
    false_positives, true_positives, _ = roc_curve(
        answers.labels, answers.scores, sample_weight=weights, drop_intermediate=False
    )
    return float(np.interp(FALSE_POSITIVE_RATE, false_positives, true_positives))


tpr = register_metric(
    Metric(
        "tpr",
        "true positive rate at 10 % false positives",
        value,
        ranks=True,
        task="binary",
        chance=0.1,
        chance_is_fixed=True,
        position=55,
    )
)
