"""Area under the ROC curve: the share of pairs of a real image and a fake in which the fake scores higher."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import auc

from models.metrics import Answers, Metric, register_metric


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """Ties count one half. At 0, all pairs are in the wrong order."""
    rates = answers.roc if weights is None else answers.weighted_roc(weights)
    return float(auc(rates[0], rates[1]))


def influence(answers: Answers) -> np.ndarray:
    """Each image's share of right pairs minus the mean share: the components of DeLong et al. 1988, Biometrics 44."""
    assert answers.scores is not None
    fake = answers.labels == 1
    total = np.empty(len(fake))
    for images, others, sign in ((fake, ~fake, 1), (~fake, fake, -1)):
        against, scores = np.sort(sign * answers.scores[others]), sign * answers.scores[images]
        right = np.searchsorted(against, scores, "left") + np.searchsorted(against, scores, "right")
        share = right / (2 * len(against))
        total[images] = (share - share.mean()) / len(share)
    return total


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
        influence=influence,
    )
)
