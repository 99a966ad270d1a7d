"""Equal error rate: where the ROC curve, interpolated linearly, crosses false positive rate = false negative rate."""

from __future__ import annotations

import numpy as np

from models.metrics import Answers, Metric, register_metric


def value(answers: Answers, weights: np.ndarray | None = None) -> float:
    """The false positive rate at the threshold where it equals the false negative rate."""
    rates = answers.roc if weights is None else answers.weighted_roc(weights)
    false_positives, true_positives = rates[0], rates[1]
    # along the curve, false positive rate minus false negative rate rises strictly from -1 to 1
    return float(np.interp(0.0, false_positives + true_positives - 1.0, false_positives))


def influence(answers: Answers) -> np.ndarray:
    """Derivative of the smooth equal error rate: both error rates move, and the threshold moves so that they meet.

    With the densities f of fakes and r of reals at the threshold, it is f / (f + r) times the false positive rate's
    plus r / (f + r) times the false negative rate's. The densities are estimated with a Gaussian kernel of Silverman's
    width (1986, Density Estimation, equation 3.31). The step-wise value itself has a derivative of zero or infinity.
    """
    assert answers.scores is not None
    fake = answers.labels == 1
    rates = answers.roc
    finite = np.concatenate([[answers.scores.max()], rates[2][1:]])
    threshold = np.interp(0.0, rates[0] + rates[1] - 1.0, finite)
    called = answers.scores >= threshold
    fakes, reals = (_density(answers.scores[images], threshold) for images in (fake, ~fake))
    weight = fakes / (fakes + reals) if fakes + reals > 0 else 0.5
    total = np.empty(len(fake))
    for images, wrong, share in ((~fake, called, weight), (fake, ~called, 1 - weight)):
        total[images] = share * (wrong[images] - wrong[images].mean()) / images.sum()
    return total


def _density(scores: np.ndarray, place: float) -> float:
    quartiles = np.subtract(*np.percentile(scores, [75, 25])) / 1.34
    width = 0.9 * min(scores.std(), quartiles or np.inf) * len(scores) ** -0.2
    if width == 0:
        return float((scores == place).any())
    return float(np.exp(-0.5 * ((place - scores) / width) ** 2).mean() / width)


eer = register_metric(
    Metric(
        "eer",
        "equal error rate",
        value,
        ranks=True,
        task="binary",
        chance=0.5,
        chance_is_fixed=True,
        higher_is_better=False,
        position=60,
        influence=influence,
    )
)
