"""Oracle accuracy: at the threshold that is best in hindsight, on the test images themselves. It chooses nothing.

No detector has that threshold: the value is the upper bound that a threshold from elsewhere is held against.
"""

from __future__ import annotations

import numpy as np

from models.metrics import Answers, Metric, register_metric


def best_threshold(answers: Answers, weights: np.ndarray | None = None) -> tuple[float, float]:
    """(accuracy, threshold) of the best threshold; of equally good thresholds, the lowest.

    Candidates are "everything is fake" (-infinity) and each score, above which an image is called fake; images of one
    score are called alike.
    """
    assert answers.scores is not None
    weights = np.ones(len(answers.labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    values, group = np.unique(answers.scores, return_inverse=True)
    reals = np.cumsum(np.bincount(group, weights * (answers.labels == 0)))
    fakes = np.cumsum(np.bincount(group, weights * (answers.labels == 1)))
    right = np.concatenate([[fakes[-1]], reals + fakes[-1] - fakes])  # reals at or below, fakes above
    best = int(right.argmax())
    return float(right[best] / (reals[-1] + fakes[-1])), float(np.concatenate([[-np.inf], values])[best])


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The highest accuracy that any threshold gives on these images."""
    return best_threshold(answers, weights)[0]


def influence(answers: Answers) -> np.ndarray:
    """Of the accuracy at the best threshold: where that is the only best one, it does not move with a weight."""
    right = answers.at(best_threshold(answers)[1]).answered == answers.labels
    return np.asarray((right - right.mean()) / len(right))


oracle_accuracy = register_metric(
    Metric(
        "oracle_accuracy",
        "oracle accuracy, best threshold in hindsight",
        value,
        ranks=True,
        task="binary",
        position=None,
        influence=influence,
    )
)
