"""Sums over images weighted by their sources, for all resamples at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from models.metrics import Answers, Weighted


def sums(sources: np.ndarray, columns: Iterable[np.ndarray]) -> Weighted:
    """Weights (S, b) -> the weighted sum of each of k columns (N,): float64 (k, b)."""
    size = int(sources.max()) + 1
    totals = np.array([np.bincount(sources, weights=column, minlength=size) for column in columns], np.float32)
    return lambda weights: (totals @ weights[:size]).astype(np.float64)


def class_sums(answers: Answers, sources: np.ndarray) -> Weighted:
    """Weights (S, b) -> float64 (3, C, b): per class, right answers, images of the class, answers with the class."""
    count = len(answers.classes)
    truth, answered = answers.labels, answers.answered
    compute = sums(
        sources,
        [
            *((truth == number) & (answered == number) for number in range(count)),
            *(truth == number for number in range(count)),
            *(answered == number for number in range(count)),
        ],
    )
    return lambda weights: compute(weights).reshape(3, count, -1)


def curve(answers: Answers, sources: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Weights (S, b) -> counts of fakes and of reals called fake, (T + 1, b) each, as the threshold falls."""
    assert answers.scores is not None
    order = np.argsort(-answers.scores, kind="stable")
    scores, ordered = answers.scores[order], sources[order]
    fake = (answers.labels[order] == 1)[:, None]
    ends = np.concatenate([[0], np.flatnonzero(np.diff(scores)) + 1, [len(scores)]])

    def compute(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = weights[ordered]
        return running(rows * fake)[ends].astype(np.float64), running(rows * ~fake)[ends].astype(np.float64)

    return compute


def running(rows: np.ndarray) -> np.ndarray:
    """Running sums along the first axis, after a row of zeros: (N, b) -> float32 (N + 1, b).

    It sums first within groups of about sqrt(N) rows, all groups at once, then over the groups. `np.cumsum` would add
    one number at a time along this axis.
    """
    size = math.isqrt(len(rows)) + 1
    total = np.zeros((size, size, rows.shape[1]), dtype=np.float32)
    flat = total.reshape(size * size, -1)
    flat[1 : len(rows) + 1] = rows
    for row in range(1, size):
        total[:, row] += total[:, row - 1]
    for group in range(1, size):
        total[group] += total[group - 1, -1]
    return flat[: len(rows) + 1]
