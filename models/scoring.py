"""Metrics of labels and scores, which are checked first; and the choice of a threshold on the validation split.

Everywhere, fake = 1, and a higher score means fake.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.detector import DETECTION_CLASSES, FAKE, REAL
from models.metrics import Answers, measure


def cell_metrics(labels: np.ndarray, scores: np.ndarray, valid_threshold: float | None = None) -> dict[str, float]:
    """Metrics of one cell of a cross-generator matrix, all in [0, 1]: every registered metric of real or fake.

    Args:
        labels: (N,), 0 = real, 1 = fake.
        scores: (N,), log-odds of "fake". An image counts as called fake if its score is *above* the threshold.
        valid_threshold: from `choose_threshold` on the validation split of the *training* generator, or None.

    Returns:
        the metrics at threshold 0, and each threshold-dependent metric at `valid_threshold` as
        `<name>_valid_threshold`.

    Raises:
        ValueError: no real or no fake image, a label besides 0 and 1, a score or threshold that is not finite, or
            unequal lengths.
    """
    if valid_threshold is not None and not np.isfinite(valid_threshold):
        raise ValueError(f"the threshold must be finite, got {valid_threshold}")
    return measure(Answers.from_scores(*_checked(labels, scores)), valid_threshold)


def choose_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the best balanced accuracy. Call it with the *validation* split.

    All thresholds between two neighbouring scores give the same answers, so the candidates are the middles of the gaps.
    Of equally good gaps, the widest wins, then the lowest. If no gap is better than calling everything real (balanced
    accuracy 0.5), the result is the highest score, at which everything is called real.

    Args:
        labels: (N,), 0 = real, 1 = fake.
        scores: (N,), log-odds of "fake".

    Raises:
        ValueError: as `cell_metrics`.
    """
    labels, scores = _checked(labels, scores)
    values, position = np.unique(scores, return_inverse=True)
    fakes = np.bincount(position, weights=labels == FAKE)
    reals = np.bincount(position, weights=labels == REAL)
    # Candidate i is above values[0..i]. Counts are integers (in float64), so that equal rates are exactly equal.
    rate = np.cumsum(reals) * fakes.sum() + (fakes.sum() - np.cumsum(fakes)) * reals.sum()
    best = np.flatnonzero(rate == rate.max())
    if best[-1] == len(values) - 1:  # as good as calling everything real
        return float(values[-1])
    chosen = best[np.argmax(values[best + 1] - values[best])]
    low, high = values[chosen], values[chosen + 1]
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)


def attribution_metrics(labels: np.ndarray, logits: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Metrics of a classifier of generators, all in [0, 1]: every registered metric of several classes.

    The answer is the class with the highest logit; of equal logits, the first.

    Args:
        labels: (N,), indices into `classes`.
        logits: (N, C).
        classes: C names.

    Returns:
        `accuracy`, `accuracy/<class>` (share of the class's images that are answered with it), `balanced_accuracy`
        (mean of these over the classes), `macro_f1` (mean over the classes of 2 TP / (2 TP + FP + FN)).

    Raises:
        ValueError: a class without images (its accuracy would be undefined), a label out of range, a logit that is not
            finite, or shapes that do not fit together.
    """
    answers = Answers(np.asarray(labels), attributed(labels, logits, len(classes)), tuple(classes))
    absent = [name for number, name in enumerate(classes) if number not in answers.labels]
    if absent:
        raise ValueError(f"no image of class {', '.join(absent)} among the {len(answers.labels)} scored ones")
    return measure(answers)


def attributed(labels: np.ndarray, logits: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (N,): the class of each image with the highest logit (of equal logits, the first).

    Args:
        labels: (N,), the true classes, in [0, C).
        logits: (N, C).
        num_classes: C.

    Raises:
        ValueError: a label out of range, a logit that is not finite, or shapes that do not fit together.
    """
    labels, logits = np.asarray(labels), np.asarray(logits)
    if labels.ndim != 1 or logits.shape != (len(labels), num_classes):
        raise ValueError(f"labels have shape {labels.shape}, logits {logits.shape}; need (N,) and (N, {num_classes})")
    if not np.isfinite(logits).all():
        raise ValueError(f"{(~np.isfinite(logits)).any(axis=1).sum()} of {len(logits)} rows of logits are not finite")
    if unknown := sorted(set(labels.tolist()) - set(range(num_classes))):
        raise ValueError(f"labels {unknown} are out of range: there are {num_classes} classes")
    return logits.argmax(axis=1)


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels have shape {labels.shape}, scores {scores.shape}; need (N,) for both")
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite")
    if unknown := sorted(set(labels.tolist()) - {REAL, FAKE}):
        raise ValueError(f"labels must be 0 (real) or 1 (fake), got {unknown} too")
    absent = [name for number, name in enumerate(DETECTION_CLASSES) if not (labels == number).any()]
    if absent:
        raise ValueError(f"no {' and no '.join(absent)} image among the {len(labels)} scored ones; both are needed")
    return labels, scores
