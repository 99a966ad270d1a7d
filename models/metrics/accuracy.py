"""The share of images that are answered with their class."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score

from models.metrics import Answers, Metric, Weighted, register_metric
from models.metrics._weighted import class_sums


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """Right answers over all answers."""
    return float(accuracy_score(answers.labels, answers.answered, sample_weight=weights))


def resample(answers: Answers, sources: np.ndarray) -> Weighted:
    """The same for many weights at once."""
    counts = class_sums(answers, sources)

    def compute(weights: np.ndarray) -> np.ndarray:
        hits, actual, _ = counts(weights)
        return hits.sum(axis=0) / actual.sum(axis=0)

    return compute


accuracy = register_metric(
    Metric(
        "accuracy",
        "accuracy",
        value,
        chance=0.5,
        position=10,
        position_at_validation=40,
        share_of=lambda answers: np.ones(len(answers.labels), dtype=bool),
        resample=resample,
    )
)
