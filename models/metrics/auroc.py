"""Area under the ROC curve: the share of pairs of a real image and a fake in which the fake scores higher."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import auc, roc_curve

from models.metrics import Answers, Metric, Weighted, register_metric
from models.metrics._weighted import running


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """Ties count one half. At 0, all pairs are in the wrong order."""
    rates = roc_curve(answers.labels, answers.scores, sample_weight=weights, drop_intermediate=False)
    return float(auc(rates[0], rates[1]))


def resample(answers: Answers, sources: np.ndarray) -> Weighted:
    """The same for many weights at once."""
    assert answers.scores is not None
    fake = answers.labels == 1
    order = np.argsort(answers.scores[~fake], kind="stable")
    reals, fakes = sources[~fake][order], sources[fake]
    real_scores, fake_scores = answers.scores[~fake][order], answers.scores[fake]
    lower, upper = (np.searchsorted(real_scores, fake_scores, side=side) for side in ("left", "right"))
    tied = bool((lower != upper).any())

    def compute(weights: np.ndarray) -> np.ndarray:
        below, fake_weights = running(weights[reals]), weights[fakes]
        won = np.einsum("fb,fb->b", below[lower], fake_weights)
        if tied:
            won = (won + np.einsum("fb,fb->b", below[upper], fake_weights)) / 2
        return np.asarray(won.astype(np.float64) / below[-1] / fake_weights.sum(axis=0))

    return compute


auroc = register_metric(
    Metric(
        "auroc",
        "AUROC",
        value,
        ranks=True,
        task="binary",
        chance=0.5,
        chance_is_fixed=True,
        position=20,
        resample=resample,
    )
)
