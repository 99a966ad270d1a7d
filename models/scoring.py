"""Labels and scores in, metrics out, after checking both; and how a threshold is chosen on the validation split.

Fake = 1, and a higher score means fake, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.detector import DETECTION_CLASSES, FAKE, REAL
from models.metrics import Answers, measure


def detection_metrics(labels: np.ndarray, scores: np.ndarray, *, threshold: float = 0.0) -> dict[str, float]:
    """Metrics of a detector, all in [0, 1]: every registered metric of real or fake.

    Args:
        labels: (N,), 0 = real, 1 = fake.
        scores: (N,), log-odds of "fake".
        threshold: in units of the scores; an image is called fake where its score is *above* it.

    Raises:
        ValueError: no real or no fake image, a label besides 0 and 1, a score or threshold that is not finite, or
            unequal lengths.
    """
    return measure(Answers.from_scores(*_checked(labels, scores), _finite(threshold)))


def cell_metrics(labels: np.ndarray, scores: np.ndarray, valid_threshold: float) -> dict[str, float]:
    """One cell of a cross-generator matrix: `detection_metrics` at 0, and again where validation put the threshold.

    Args:
        labels: (N,), 0 = real, 1 = fake.
        scores: (N,), log-odds of "fake".
        valid_threshold: from `choose_threshold` on the validation split of the *training* generator.

    Returns:
        `detection_metrics`, plus each threshold-dependent one at `valid_threshold` as `<name>_valid_threshold`.

    Raises:
        ValueError: as `detection_metrics`.
    """
    return measure(Answers.from_scores(*_checked(labels, scores)), _finite(valid_threshold))


def choose_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the best balanced accuracy, to be called with the *validation* split.

    Between two neighbouring scores every threshold does the same, so the candidates are the middles of the gaps. Of the
    gaps that are equally good the widest wins, then the lowest. When no gap beats calling everything real (balanced
    accuracy 0.5), the highest score is returned, which does that.

    Args:
        labels: (N,), 0 = real, 1 = fake.
        scores: (N,), log-odds of "fake".

    Raises:
        ValueError: as `detection_metrics`.
    """
    labels, scores = _checked(labels, scores)
    values, position = np.unique(scores, return_inverse=True)
    fakes = np.bincount(position, weights=labels == FAKE)
    reals = np.bincount(position, weights=labels == REAL)
    # Candidate i lies above values[0..i]. Counts stay integers (in float64), so that equal is exactly equal.
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

    The class with the highest logit is the answer; of equal ones the first.

    Args:
        labels: (N,), indices into `classes`.
        logits: (N, C).
        classes: C names.

    Returns:
        `accuracy`, `balanced_accuracy` (mean over the classes of the next), `accuracy/<class>` (the part of the class's
        images that get its name), `macro_f1` (mean over the classes of 2 TP / (2 TP + FP + FN)).

    Raises:
        ValueError: a class without images (its accuracy would be undefined), a label out of range, a logit that is not
            finite, or shapes that disagree.
    """
    answers = Answers(np.asarray(labels), attributed(labels, logits, len(classes)), tuple(classes))
    absent = [name for number, name in enumerate(classes) if number not in answers.labels]
    if absent:
        raise ValueError(f"no image of class {', '.join(absent)} among the {len(answers.labels)} scored ones")
    return measure(answers)


def attributed(labels: np.ndarray, logits: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (N,): the class of each image with the highest logit (of equal ones the first).

    Args:
        labels: (N,), the true classes, in [0, C).
        logits: (N, C).
        num_classes: C.

    Raises:
        ValueError: a label out of range, a logit that is not finite, or shapes that disagree.
    """
    labels, logits = np.asarray(labels), np.asarray(logits)
    if labels.ndim != 1 or logits.shape != (len(labels), num_classes):
        raise ValueError(f"labels have shape {labels.shape}, logits {logits.shape}; wanted (N,) and (N, {num_classes})")
    if not np.isfinite(logits).all():
        raise ValueError(f"{(~np.isfinite(logits)).any(axis=1).sum()} of {len(logits)} rows of logits are not finite")
    strange = sorted(set(labels.tolist()) - set(range(num_classes)))
    if strange:
        raise ValueError(f"labels {strange} are out of range: there are {num_classes} classes")
    return logits.argmax(axis=1)


def _finite(threshold: float) -> float:
    if not np.isfinite(threshold):
        raise ValueError(f"the threshold must be finite, got {threshold}")
    return threshold


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels have shape {labels.shape}, scores {scores.shape}; wanted (N,) for both")
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite")
    strange = sorted(set(labels.tolist()) - {REAL, FAKE})
    if strange:
        raise ValueError(f"labels must be 0 (real) or 1 (fake), got {strange} too")
    absent = [name for number, name in enumerate(DETECTION_CLASSES) if not (labels == number).any()]
    if absent:
        raise ValueError(f"no {' and no '.join(absent)} image among the {len(labels)} scored ones; both are needed")
    return labels, scores
