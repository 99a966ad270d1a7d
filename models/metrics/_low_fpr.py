"""The true positive rate at a low false positive rate: how many fakes are found where few reals may be accused."""

from __future__ import annotations

from functools import partial

import numpy as np

from models.metrics import Answers, Metric

_ROUNDING = 1e-9  # of the total weight: weights that should add up to a limit may miss it by so much


def highest_score_of_reals_kept(answers: Answers, rate: float, weights: np.ndarray | None = None) -> float:
    """The lowest threshold at which at most a share `rate` of the reals scores above it.

    It is the score of a real image. Images of one score are called alike, so that where reals tie, fewer than `rate`
    may be called fake, never more. With fewer than 1 / rate reals it is the highest score of all reals.

    Args:
        answers: real or fake, with scores.
        rate: in (0, 1).
        weights: how often each image counts; None: once.
    """
    assert answers.scores is not None
    weights = np.ones(len(answers.labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    reals = (answers.labels == 0) & (weights > 0)
    values, group = np.unique(answers.scores[reals], return_inverse=True)
    per_value = np.bincount(group, weights[reals])
    above = per_value.sum() - np.cumsum(per_value)  # the weight of reals above each value
    allowed = (rate + _ROUNDING) * per_value.sum()
    return float(values[np.flatnonzero(above <= allowed)[0]])


def _value(rate: float, answers: Answers, weights: np.ndarray | None = None) -> float:
    threshold = highest_score_of_reals_kept(answers, rate, weights)
    fake = answers.labels == 1
    found = answers.scores[fake] > threshold  # type: ignore[index]
    return float(np.average(found, weights=None if weights is None else weights[fake]))


def _influence(rate: float, answers: Answers) -> np.ndarray:
    """Derivative of the smooth rate: an image changes its own rate, and a real image the threshold too.

    The threshold moves so that the false positive rate stays, and the true positive rate follows along the ROC curve.
    The curve's slope is taken over one standard error of the false positive rate on either side.
    """
    assert answers.scores is not None
    fake = answers.labels == 1
    called = answers.scores > highest_score_of_reals_kept(answers, rate)
    error = np.sqrt(rate * (1 - rate) / (~fake).sum())
    fewer, more = (
        answers.scores > highest_score_of_reals_kept(answers, limit) for limit in (max(rate - error, 0.0), rate + error)
    )
    gained = more & ~fewer
    slope = gained[fake].mean() / gained[~fake].mean() if gained[~fake].any() else 0.0
    total = np.empty(len(fake))
    for images, factor in ((fake, 1.0), (~fake, -slope)):
        total[images] = factor * (called[images] - called[images].mean()) / images.sum()
    return total


def tpr_at(percent: int) -> Metric:
    """The metric at a false positive rate of so many percent."""
    rate = percent / 100
    return Metric(
        f"tpr_at_fpr_{percent}",
        f"TPR at {percent} % FPR",
        partial(_value, rate),
        ranks=True,
        task="binary",
        chance=rate,
        chance_is_fixed=True,
        position=None,
        influence=partial(_influence, rate),
    )
