"""How well one number separates fakes from real images: AUROC, with an interval over photographs.

The same numbers as `analysis.intervals` gives for a detector's scores; `data` may not know that package, so the few
lines stand here again, and a test holds both equal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, stdtrit

_TAIL = 0.025
_FEWEST_DEGREES = 10  # as in `analysis.intervals`
_ROUNDING = 1e-24  # variances up to here are rounding errors of zero


class Separation(NamedTuple):
    """An AUROC and its 95 % interval [low, high]; above 0.5, fakes have the higher numbers."""

    auroc: float
    low: float
    high: float

    @property
    def directed(self) -> Separation:
        """The same for whichever direction separates better: an AUROC of at least 0.5."""
        return self if self.auroc >= 0.5 else Separation(1 - self.auroc, 1 - self.high, 1 - self.low)

    @property
    def numbers(self) -> dict[str, float]:
        """Name -> value of its three numbers."""
        return self._asdict()

    def __str__(self) -> str:
        return f"AUROC {self.auroc:.3f} [{self.low:.3f}, {self.high:.3f}]"


def separation(scores: np.ndarray, fake: np.ndarray, sources: np.ndarray) -> Separation:
    """AUROC of scores for fake against real, with DeLong's interval for photographs of several versions.

    An image's influence on the AUROC is its share of right pairs minus the mean share (DeLong et al. 1988, Biometrics
    44). The influences are summed per photograph (Obuchowski 1997, Biometrics 53, 567-578); a t interval on the logit
    scale follows. Where no photograph moves the value, as in a perfect ranking, up to 1 - 0.025^(1/n) of the n
    photographs could still behave otherwise.

    Args:
        scores: float (N,), finite; ties count one half.
        fake: bool (N,), at least one of each class.
        sources: (N,), the photograph of each image.

    Raises:
        ValueError: a class is missing.
    """
    fake = np.asarray(fake, dtype=bool)
    num_fakes, num_reals = int(fake.sum()), int((~fake).sum())
    if not num_fakes or not num_reals:
        raise ValueError("a separation needs both real images and fakes")
    scores = np.asarray(scores, dtype=np.float64)
    share = np.empty(len(scores))
    for images, sign in ((fake, 1), (~fake, -1)):
        others, own = np.sort(sign * scores[~images]), sign * scores[images]
        share[images] = (np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")) / (
            2 * len(others)
        )
    auroc = float(share[fake].mean())
    influence = (share - auroc) / np.where(fake, num_fakes, num_reals)
    _, numbers = np.unique(sources, return_inverse=True)
    squares = np.square(np.bincount(numbers, weights=influence))
    count = len(squares)
    variance = float(squares.sum()) * count / max(count - 1, 1)
    if variance <= _ROUNDING or not 0 < auroc < 1:
        unseen = 1 - _TAIL ** (1 / count)
        return Separation(auroc, (1 - unseen) * auroc, (1 - unseen) * auroc + unseen)
    most = max(count - 1, 1)
    relative = float(np.square(squares).sum() / squares.sum() ** 2) - 1 / count
    degrees = float(np.clip(2 / max(relative, 1e-12), min(_FEWEST_DEGREES, most), most))  # Satterthwaite 1946
    half = float(stdtrit(degrees, 1 - _TAIL)) * np.sqrt(variance) / (auroc * (1 - auroc))
    return Separation(auroc, float(expit(logit(auroc) - half)), float(expit(logit(auroc) + half)))
