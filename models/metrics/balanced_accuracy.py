"""The mean, over the classes, of the share of a class's images that are answered with the class."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import recall_score

from models.metrics import Answers, Metric, register_metric


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The mean of the classes' accuracies."""
    numbers = range(len(answers.classes))
    each = recall_score(answers.labels, answers.answered, labels=numbers, average=None, sample_weight=weights)
    return float(np.mean(each))


def shares(answers: Answers) -> list[tuple[float, np.ndarray]]:
    """The accuracy of each class, all alike."""
    count = len(answers.classes)
    return [(1 / count, answers.labels == number) for number in range(count)]


balanced_accuracy = register_metric(
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        value,
        chance=0.5,
        chance_is_fixed=True,
        position=30,
        shares=shares,
    )
)
