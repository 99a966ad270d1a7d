"""The mean, over the classes, of F1 = 2 TP / (2 TP + FP + FN)."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import f1_score

from models.metrics import Answers, Metric, register_metric


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The mean of the F1 of the classes."""
    return float(f1_score(answers.labels, answers.answered, average="macro", sample_weight=weights))


def influence(answers: Answers) -> np.ndarray:
    """Derivative of the mean of 2 TP / (images of the class + answers with the class)."""
    total = np.zeros(len(answers.labels))
    for number in range(len(answers.classes)):
        actual, predicted = answers.labels == number, answers.answered == number
        count = actual.sum() + predicted.sum()
        if count:
            f1 = 2 * (actual & predicted).sum() / count
            total += (2 * (actual & predicted) - f1 * (actual.astype(int) + predicted)) / count
    return total / len(answers.classes)


macro_f1 = register_metric(Metric("macro_f1", "macro F1", value, task="several", influence=influence))
