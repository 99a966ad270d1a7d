"""From the cells of a map to the score of a picture, for methods that learn from masks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize

from models.checks import softmax_loss

TOP_SHARE = 0.1  # of the cells, whose mean is a picture's score
_PENALTY = 1e-3  # on the scale's logarithm and the offsets; it keeps them finite where validation is separable


def top_count(cells: int, share: float = TOP_SHARE) -> int:
    """How many of a picture's cells are its highest share; at least one."""
    return max(1, round(share * cells))


def top_mean(values: np.ndarray, share: float = TOP_SHARE) -> np.ndarray:
    """(N, C, rows, columns) -> (N, C): the mean of the highest share of the cells, of at least one."""
    flat = values.reshape(*values.shape[:2], -1)
    count = top_count(flat.shape[2], share)
    return np.asarray(np.partition(flat, -count, axis=2)[..., -count:].mean(axis=2))


@dataclass
class PictureScale:
    """A scale and an offset per fake class, which make a log-odds of the mean of a picture's highest cells.

    The highest cells of any picture lie above 0, those of a real one too. Call `fit` with *validation* images: training
    has seen its own.

    Attributes:
        num_fakes: fake classes.
        scale: above 0.
        offsets: float64 (num_fakes,).
    """

    num_fakes: int
    scale: float = 1.0
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not len(self.offsets):
            self.offsets = np.zeros(self.num_fakes)

    def logits(self, pooled: np.ndarray) -> np.ndarray:
        """Means of the highest cells (N, C - 1) -> logits of the classes (N, C); that of "real" is 0."""
        return _with_real(self.scale * pooled + self.offsets)

    def fit(self, pooled: np.ndarray, labels: np.ndarray) -> None:
        """Fit the scale and the offsets by cross-entropy.

        Args:
            pooled: float (N, C - 1), means of the highest cells of the validation images.
            labels: int (N,), their class numbers.
        """
        middle, spread = pooled.mean(axis=0), max(float(pooled.std()), 1e-6)
        centred = (pooled - middle) / spread

        def loss(parameters: np.ndarray) -> float:
            logits = _with_real(np.exp(parameters[0]) * centred + parameters[1:])
            return softmax_loss(logits, labels) + _PENALTY * float(np.square(parameters).sum())

        best = minimize(loss, np.zeros(1 + self.num_fakes), method="L-BFGS-B").x
        self.scale = float(np.exp(best[0])) / spread
        self.offsets = best[1:] - self.scale * middle


def _with_real(log_odds: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((len(log_odds), 1)), log_odds], axis=1)
