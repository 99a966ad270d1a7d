"""Average precision for fakes: the step-wise sum of precision over recall, not interpolated."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score

from models.metrics import Answers, Metric, register_metric


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The mean precision at each fake, as the threshold falls."""
    return float(average_precision_score(answers.labels, answers.scores, sample_weight=weights))


def influence(answers: Answers) -> np.ndarray:
    """A fake adds its own precision; and an image changes the precision at all lower thresholds."""
    assert answers.scores is not None
    fake = answers.labels == 1
    _, group = np.unique(-answers.scores, return_inverse=True)  # 0 is the highest score
    fakes, reals = np.bincount(group, fake), np.bincount(group, ~fake)
    true, false = np.cumsum(fakes), np.cumsum(reals)
    called = true + false
    precision, total = true / called, fakes.sum()
    mean = (fakes * precision).sum() / total

    def from_here_on(change: np.ndarray) -> np.ndarray:
        return np.asarray(np.cumsum((fakes * change)[::-1])[::-1])

    of_fakes = precision - mean + from_here_on(false / called**2)
    of_reals = -from_here_on(true / called**2)
    return np.where(fake, of_fakes[group], of_reals[group]) / total


ap = register_metric(
    Metric("ap", "average precision", value, ranks=True, task="binary", chance=0.5, position=50, influence=influence)
)
