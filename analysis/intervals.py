"""Intervals over source images by the bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).

Resampling draws source photographs, not images: a real photograph and its fakes are drawn together, because their
scores are not independent (the cluster bootstrap). Intervals are percentile intervals (chapter 13); p values invert
them (chapters 15 and 16). They hold for the trained detectors as they are: variation over training seeds is reported
separately, as a standard deviation.

A resample is one weight per source: how often it was drawn. The metrics (`models.metrics`) take such weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from grid.tasks import ATTRIBUTION, DETECTION, get_task
from models.metrics import AT_VALIDATION, Answers, Metric, Weighted, metrics_for

LEVEL = 0.95
NUM_RESAMPLES = 2000
RARE = 5  # right or wrong images; with fewer, a percentile interval of a proportion is too narrow

_SMALL_STRATUM = 10
_BLOCK = 100_000  # weights per block, 4 bytes each: fits a processor's cache
_KEPT = 25_000_000  # up to so many weights stay in memory between cells


class Interval(NamedTuple):
    """A 95 % interval [low, high]; NaN if nothing could be computed."""

    low: float
    high: float


class Difference(NamedTuple):
    """One value minus another on the same images.

    Attributes:
        difference: the difference.
        low, high: its 95 % interval.
        p: two-sided p value.
    """

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Cell:
    """The scored images of one cell.

    Attributes:
        answers: the detector's answers.
        sources: int (N,), each image's index among a `Resampler`'s sources.
    """

    answers: Answers
    sources: np.ndarray

    def at(self, threshold: float) -> Answers:
        """The answers at a threshold for real or fake; attribution has no threshold."""
        return self.answers if self.answers.scores is None else self.answers.at(threshold)

    def weighted(self, metric: str, threshold: float = 0.0) -> Weighted:
        """A metric of the cell as a function of the sources' weights; weights of one give the plain metric.

        Args:
            metric: name, without the suffix for the validation threshold.
            threshold: for real or fake, in units of the scores; a higher score means fake.

        Returns:
            float32 weights (S, b) -> float64 (b,); NaN if the weights leave out a class that the metric needs.

        Raises:
            ValueError: no such metric of these classes; lists what exists.
        """
        return _metric(self.answers, metric).weighted(self.at(threshold), self.sources)


class Resampler:
    """Resamples of the source images, the same for every cell and method, so that values can be compared pairwise.

    The numbers of real and fake images in a test set are fixed by design. To keep them when real images and fakes do
    not share sources, sampling is stratified: sources that contribute the same kinds of images form a stratum; strata
    with fewer than ten sources are pooled.

    Args:
        frames: with the columns source_id, generator, label; their union is the test set.
        num_resamples: B, the number of resamples.
        seed: seed of the draws.
    """

    def __init__(self, frames: Iterable[pd.DataFrame], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> None:
        if num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
        self.num_resamples, self._seed = num_resamples, seed
        images = pd.concat([frame[["source_id", "generator", "label"]] for frame in frames]).drop_duplicates()
        if images.empty:
            raise ValueError("there are no images to resample")
        self._index = pd.Index(images["source_id"].unique()).sort_values()
        sources = self.indices(images)
        kinds = images.groupby(["generator", "label"], sort=True).ngroup().to_numpy()
        contributes = np.zeros((len(self._index), kinds.max() + 1), dtype=bool)
        contributes[sources, kinds] = True
        _, pattern, sizes = np.unique(contributes, axis=0, return_inverse=True, return_counts=True)
        pattern = np.where(sizes[pattern.ravel()] < _SMALL_STRATUM, -1, pattern.ravel())
        self._strata = [np.flatnonzero(pattern == stratum) for stratum in np.unique(pattern)]
        self._block = min(num_resamples, max(64, _BLOCK // len(self._index)))
        self._kept: list[np.ndarray] = []

    @property
    def num_sources(self) -> int:
        """S, the number of source images."""
        return len(self._index)

    def indices(self, frame: pd.DataFrame) -> np.ndarray:
        """Int (N,): each row's source. Raises `ValueError` for a source that is not in the test set."""
        indices = self._index.get_indexer(frame["source_id"])
        if (indices < 0).any():
            unknown = frame["source_id"].to_numpy()[indices < 0]
            raise ValueError(f"{len(unknown)} images have sources that are not in the test set, such as {unknown[0]!r}")
        return indices

    def cell(self, frame: pd.DataFrame, numbers: np.ndarray | None = None) -> Cell:
        """The images of a frame: real or fake if it has a column `score`, else classes by its logits.

        Args:
            frame: columns source_id, generator, label, and `score` or `logit_<class>`.
            numbers: int (N,), each image's class; images with -1 are left out. None: the label if there is a column
                `score`, else the class named like the image's generator, or "real".
        """
        binary = "score" in frame.columns
        classes = tuple(str(name).removeprefix("logit_") for name in frame.columns if str(name).startswith("logit_"))
        if not binary and not classes:
            raise ValueError("the scores have neither a column `score` nor any `logit_<class>`")
        if numbers is None:
            numbers = get_task(DETECTION if binary else ATTRIBUTION).class_numbers(frame, classes)
        frame, numbers = frame[numbers >= 0], numbers[numbers >= 0]
        if binary:
            answers = Answers.from_scores(numbers, frame["score"].to_numpy())
        else:
            answers = Answers.from_logits(numbers, frame[[f"logit_{name}" for name in classes]].to_numpy(), classes)
        return Cell(answers, self.indices(frame))

    def distribution(self, cell: Cell, metric: str, threshold: float = 0.0) -> np.ndarray:
        """The metric in each resample: float64 (B,); NaN if a class that it needs was not drawn.

        Rank metrics are biased in resamples by about 1 / S, because an image that is drawn twice is compared with its
        own copies. The bias is estimated (Efron and Tibshirani 1993, chapter 10) and subtracted.
        """
        compute = cell.weighted(metric, threshold)
        values = np.concatenate([compute(weights) for weights in self._weights()])
        if _metric(cell.answers, metric).ranks and np.isfinite(values).any():
            bias = np.nanmean(values) - self.value(cell, metric)
            values = np.clip(values - bias, 0.0, 1.0)
        return values

    def value(self, cell: Cell, metric: str, threshold: float = 0.0) -> float:
        """The metric itself."""
        weights = np.ones((self.num_sources, 1), dtype=np.float32)
        return float(cell.weighted(metric, threshold)(weights)[0])

    def _weights(self) -> Iterator[np.ndarray]:
        """Float32 (S, b): how often each source is drawn, in blocks of b resamples."""
        if self._kept:
            yield from self._kept
            return
        made = []
        for number, first in enumerate(range(0, self.num_resamples, self._block)):
            rng = np.random.default_rng([self._seed, number])
            size = min(self._block, self.num_resamples - first)
            weights = np.empty((self.num_sources, size), dtype=np.float32)
            for members in self._strata:
                drawn = rng.integers(0, len(members), (size, len(members)))
                drawn += np.arange(size)[:, None] * len(members)
                counts = np.bincount(drawn.ravel(), minlength=size * len(members)).reshape(size, len(members))
                weights[members] = counts.T
            if self.num_sources * self.num_resamples <= _KEPT:
                made.append(weights)
            yield weights
        self._kept = made


def has_interval(classes: Sequence[str], metric: str) -> bool:
    """Whether a metric of these classes can be computed from scores, and so be resampled."""
    plain = metric.removesuffix(AT_VALIDATION)
    return any(registered.name == plain for registered in metrics_for(classes))


def interval_of(distribution: np.ndarray) -> Interval:
    """Percentile interval of resampled values (B,); NaN values are left out."""
    finite = distribution[np.isfinite(distribution)]
    if not len(finite):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def proportion_interval(distribution: np.ndarray, cell: Cell, metric: str, value: float) -> Interval:
    """`interval_of`, widened for proportions near 0 or 1, for which it is too narrow.

    Resamples of a test set with hardly any wrong answer contain none, and the percentile interval shrinks to a point.
    If fewer than five images are wrong or fewer than five right, or the interval is a point, it is joined with the
    exact binomial interval (Clopper and Pearson 1934) of the same proportion among the cell's sources: sources, because
    images of one source are not independent. There is no such formula for other metrics, which are not widened.

    Args:
        distribution: resampled values (B,).
        cell: the images.
        metric: name, without the suffix for the validation threshold.
        value: the metric on the images themselves.
    """
    interval = interval_of(distribution)
    share_of = _metric(cell.answers, metric).share_of
    counted = None if share_of is None else share_of(cell.answers)
    if counted is None or not counted.any() or not np.isfinite(interval.low):
        return interval
    num_images, num_sources = int(counted.sum()), len(np.unique(cell.sources[counted]))
    fewest = num_images * min(value, 1 - value)
    if fewest > RARE - 0.5 and interval.high > interval.low:
        return interval
    from scipy.stats import beta

    right, wrong, tail = value * num_sources, (1 - value) * num_sources, (1 - LEVEL) / 2
    low = float(beta.ppf(tail, right, wrong + 1)) if right > 0 else 0.0
    high = float(beta.ppf(1 - tail, right + 1, wrong)) if wrong > 0 else 1.0
    return Interval(min(interval.low, low), max(interval.high, high))


def difference_of(value: float, differences: np.ndarray) -> Difference:
    """Interval and p value of resampled differences (B,).

    p is twice the smaller proportion of resamples at or beyond zero on either side, at most 1; one is added to both
    counts, so that it is never 0.
    """
    finite = differences[np.isfinite(differences)]
    smaller = min((finite <= 0).sum(), (finite >= 0).sum())
    p = min(1.0, 2 * (smaller + 1) / (len(finite) + 1)) if len(finite) else float("nan")
    return Difference(value, *interval_of(finite), float(p))


def _metric(answers: Answers, name: str) -> Metric:
    metrics = {metric.name: metric for metric in metrics_for(answers.classes)}
    if name not in metrics:
        raise ValueError(f"no interval for {name!r}; there are: {', '.join(metrics)}")
    return metrics[name]
