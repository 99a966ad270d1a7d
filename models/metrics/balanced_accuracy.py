"""The mean, over the classes, of the share of a class's images that are answered with the class."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import recall_score

from models.metrics import Answers, Metric, Weighted, register_metric
from models.metrics._weighted import class_sums


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The mean of the classes' accuracies."""
    numbers = range(len(answers.classes))
    each = recall_score(answers.labels, answers.answered, labels=numbers, average=None, sample_weight=weights)
    return float(np.mean(each))


def resample(answers: Answers, sources: np.ndarray) -> Weighted:
    """The same for many weights at once."""
    counts = class_sums(answers, sources)

    def compute(weights: np.ndarray) -> np.ndarray:
        hits, actual, _ = counts(weights)
        return (hits / actual).mean(axis=0)

    return compute


balanced_accuracy = register_metric(
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        value,
        chance=0.5,
        chance_is_fixed=True,
        position=30,
        share_of=lambda answers: np.ones(len(answers.labels), dtype=bool),
        resample=resample,
    )
)
