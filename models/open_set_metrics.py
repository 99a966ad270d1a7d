"""What a classifier of generators is worth that meets images of a generator that it does not know.

These metrics stand beside the register of `models.metrics`. The register gives every metric to every task with the same
classes, and only here are there images of no class. They are of the same type, so that they have intervals as all
others, and two of the three are made of registered metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.metrics import Answers, Metric
from models.metrics.auroc import auroc
from models.metrics.tpr_at_fpr_5 import tpr_at_fpr_5
from models.scoring import attributed, attribution_metrics

UNKNOWN = -1  # class number of an image that is of no known class
LANDING = "lands_on"  # metric `lands_on/<class>`: share of the unknown images that are answered with the class


def oscr_value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The area under the curve of the correct classification rate over the false positive rate.

    Both follow from a threshold of the score: the correct classification rate is the share of known images that are
    below it and answered with their class, the false positive rate the share of unknown images that are below it
    (Dhamija et al. 2018, arXiv 1811.04110). The area is the share of pairs of a known and an unknown image in which the
    known one is answered with its class and has the lower score; equal scores count one half.

    Args:
        answers: class numbers, `UNKNOWN` for images of no class; answered classes; scores of "unknown".
        weights: how often each image counts; None: once.
    """
    weights = np.ones(len(answers.labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    unknown = answers.labels == UNKNOWN
    return float(np.average(_pairs_won(answers, weights)[~unknown], weights=weights[~unknown]))


def oscr_influence(answers: Answers) -> np.ndarray:
    """Each image's share of won pairs minus the mean share, as for AUROC (DeLong et al. 1988, Biometrics 44)."""
    unknown = answers.labels == UNKNOWN
    shares = _pairs_won(answers, np.ones(len(unknown)))
    total = np.empty(len(unknown))
    for images in (unknown, ~unknown):
        total[images] = (shares[images] - shares[images].mean()) / images.sum()
    return total


def _pairs_won(answers: Answers, weights: np.ndarray) -> np.ndarray:
    """Each image's share of pairs in which a known image is right and below an unknown one, float64 (N,)."""
    assert answers.scores is not None, "an open-set answer has a score"
    unknown = answers.labels == UNKNOWN
    counts = weights * (unknown | (answers.answered == answers.labels))  # a known image that is wrong wins no pair
    shares = np.empty(len(unknown))
    for images, others, sign in ((unknown, ~unknown, 1), (~unknown, unknown, -1)):
        order = np.argsort(sign * answers.scores[others], kind="stable")
        against = (sign * answers.scores[others])[order]
        below = np.concatenate([[0.0], np.cumsum(counts[others][order])])
        scores = sign * answers.scores[images]
        sides = [below[np.searchsorted(against, scores, side)] for side in ("left", "right")]
        shares[images] = (sides[0] + sides[1]) / 2 / weights[others].sum()
    known_and_wrong = ~unknown & (answers.answered != answers.labels)
    shares[known_and_wrong] = 0.0
    return shares


OSCR = Metric("oscr", "OSCR", oscr_value, ranks=True, task="several", influence=oscr_influence)


def _fpr_value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The share of unknown images that pass as known where 95 % of the known images pass."""
    return 1.0 - tpr_at_fpr_5.value(answers, weights)


def _fpr_influence(answers: Answers) -> np.ndarray:
    assert tpr_at_fpr_5.influence is not None
    return -tpr_at_fpr_5.influence(answers)


FPR_95 = Metric(
    "unknown_fpr95", "FPR at 95 % TPR", _fpr_value, ranks=True, higher_is_better=False, influence=_fpr_influence
)
UNKNOWN_AUROC = Metric("unknown_auroc", "AUROC", auroc.value, ranks=True, chance=0.5, influence=auroc.influence)
OPEN_SET_METRICS = (UNKNOWN_AUROC, OSCR, FPR_95)


def open_set_answers(
    metric: Metric, numbers: np.ndarray, logits: np.ndarray, classes: Sequence[str], scores: np.ndarray
) -> Answers:
    """What one of `OPEN_SET_METRICS` is measured on.

    OSCR needs class numbers; the others hold unknown images (1) against known ones (0), as fakes against reals.

    Args:
        metric: one of `OPEN_SET_METRICS`.
        numbers: int (N,), class numbers; `UNKNOWN` for images of no class.
        logits: (N, C).
        classes: C names.
        scores: (N,), of "unknown".
    """
    if metric is not OSCR:
        return Answers.from_scores((numbers == UNKNOWN).astype(np.int64), scores)
    return Answers(numbers, np.asarray(logits).argmax(axis=1), tuple(classes), np.asarray(scores, dtype=np.float64))


def open_set_metrics(
    numbers: np.ndarray, logits: np.ndarray, classes: Sequence[str], scores: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Metrics of a classifier that meets images of an unknown generator, all in [0, 1].

    Args:
        numbers: int (N,), class numbers; `UNKNOWN` for images of no class.
        logits: (N, C).
        classes: C names, "real" first.
        scores: name of a score -> (N,), higher: more likely unknown.

    Returns:
        the metrics of `attribution_metrics` on the known images; `unknown_auroc/<score>`, `oscr/<score>` and
        `unknown_fpr95/<score>`; and `lands_on/<class>`.

    Raises:
        ValueError: as `attribution_metrics`; no unknown image; or a score that is not finite.
    """
    numbers, logits = np.asarray(numbers), np.asarray(logits)
    unknown = numbers == UNKNOWN
    if not unknown.any():
        raise ValueError(f"no image of an unknown generator among the {len(numbers)} scored ones")
    metrics = attribution_metrics(numbers[~unknown], logits[~unknown], classes)
    for name, values in scores.items():
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{bad} of {len(values)} scores {name} are not finite")
        for metric in OPEN_SET_METRICS:
            metrics[f"{metric.name}/{name}"] = metric.value(open_set_answers(metric, numbers, logits, classes, values))
    answered = attributed(np.zeros(int(unknown.sum()), dtype=np.int64), logits[unknown], len(classes))
    shares = np.bincount(answered, minlength=len(classes)) / unknown.sum()
    return metrics | {f"{LANDING}/{name}": float(share) for name, share in zip(classes, shares, strict=True)}
