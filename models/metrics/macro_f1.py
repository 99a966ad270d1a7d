"""The mean, over the classes, of F1 = 2 TP / (2 TP + FP + FN)."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import f1_score

from models.metrics import Answers, Metric, Weighted, register_metric
from models.metrics._weighted import class_sums


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The mean of the F1 of the classes."""
    return float(f1_score(answers.labels, answers.answered, average="macro", sample_weight=weights))


def resample(answers: Answers, sources: np.ndarray) -> Weighted:
    """The same for many weights at once."""
    counts = class_sums(answers, sources)

    def compute(weights: np.ndarray) -> np.ndarray:
        hits, actual, predicted = counts(weights)
        return (2 * hits / (actual + predicted)).mean(axis=0)

    return compute


macro_f1 = register_metric(Metric("macro_f1", "macro F1", value, task="several", resample=resample))
