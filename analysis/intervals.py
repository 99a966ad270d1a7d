"""Intervals over source images by the bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).

What is drawn again, with replacement, is the source photograph and not the image: a real photograph and its fakes are
one draw, because their scores are not independent (the cluster bootstrap). Intervals are the percentile ones of
chapter 13; p values invert them, as chapter 15 ("achieved significance level") and 16 describe. They hold for the
trained detectors as they are: what another seed would have given is not in them, its spread stands beside them.

A resample is one weight for each source, how often it was drawn. Accuracies are then quotients of weighted sums, a
matrix product for all resamples at once; AUROC, average precision and EER are weighted sums along the sorted scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

LEVEL = 0.95
NUM_RESAMPLES = 2000
THRESHOLD_METRICS = ("accuracy", "balanced_accuracy", "real_accuracy", "fake_accuracy")
RARE = 5  # images on one side; below, a percentile interval of a share is too narrow
RANK_METRICS = ("auroc", "ap", "eer")
DETECTION_METRICS = (*THRESHOLD_METRICS, *RANK_METRICS)
ATTRIBUTION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")  # and accuracy/<class>

_SMALL_STRATUM = 10
_BLOCK = 100_000  # weights at a time, 4 bytes each: what fits a processor's cache
_KEPT = 25_000_000  # as many stay in memory between cells

WeightedMetric = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A 95 % interval [low, high]; NaN where nothing could be computed."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One figure minus another on the same images.

    Attributes:
        value: the difference.
        low, high: its 95 % interval.
        p: two-sided; how often resampling puts the difference on the other side of zero, doubled.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Answers:
    """The scored images of one cell.

    Attributes:
        sources: int (N,), places among a `Resampler`'s sources.
        labels: int (N,): 0 = real, 1 = fake; for attribution, the class.
        scores: float (N,), log-odds of fake; for attribution, the class that was answered.
        classes: names of attribution's classes; empty for detection.
    """

    sources: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...] = ()


class Resampler:
    """Draws of the source images, the same for every cell and method, so that figures can be compared pairwise.

    The numbers of real and fake images in a test set are chosen, not found. So that resamples keep them where real
    images and fakes do not share sources, sources are drawn among those that contribute the same kinds of images; kinds
    of sources with fewer than ten members are drawn together.

    Args:
        frames: with the columns source_id, generator, label; their union is the test set.
        num_resamples: B.
        seed: of the draws.
    """

    def __init__(self, frames: Iterable[pd.DataFrame], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> None:
        if num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
        self.num_resamples, self._seed = num_resamples, seed
        images = pd.concat([frame[["source_id", "generator", "label"]] for frame in frames]).drop_duplicates()
        if images.empty:
            raise ValueError("there are no images to resample")
        self._index = pd.Index(images["source_id"].unique()).sort_values()
        sources = self.places(images)
        kinds = images.groupby(["generator", "label"], sort=True).ngroup().to_numpy()
        contributes = np.zeros((len(self._index), kinds.max() + 1), dtype=bool)
        contributes[sources, kinds] = True
        _, pattern, sizes = np.unique(contributes, axis=0, return_inverse=True, return_counts=True)
        pattern = np.where(sizes[pattern.ravel()] < _SMALL_STRATUM, -1, pattern.ravel())
        self._strata = [np.flatnonzero(pattern == one) for one in np.unique(pattern)]
        self._block = min(num_resamples, max(64, _BLOCK // len(self._index)))
        self._kept: list[np.ndarray] = []

    @property
    def num_sources(self) -> int:
        """S: how many source images there are."""
        return len(self._index)

    def places(self, frame: pd.DataFrame) -> np.ndarray:
        """Int (N,): each row's source. Raises `ValueError` for a source that is not in the test set."""
        places = self._index.get_indexer(frame["source_id"])
        if (places < 0).any():
            strange = frame["source_id"].to_numpy()[places < 0]
            raise ValueError(f"{len(strange)} images have sources that are not in the test set, such as {strange[0]!r}")
        return places

    def answers(self, frame: pd.DataFrame) -> Answers:
        """A cell as arrays: detection where the frame has a column `score`, else attribution by its logits."""
        if "score" in frame.columns:
            return Answers(self.places(frame), frame["label"].to_numpy(), frame["score"].to_numpy())
        classes = tuple(name.removeprefix("logit_") for name in frame.columns if name.startswith("logit_"))
        if not classes:
            raise ValueError("the scores have neither a column `score` nor any `logit_<class>`")
        truth = true_classes(frame, classes)
        answered = frame[[f"logit_{name}" for name in classes]].to_numpy().argmax(axis=1)
        return Answers(self.places(frame), truth, answered, classes)

    def distribution(self, answers: Answers, metric: str, threshold: float = 0.0) -> np.ndarray:
        """The metric in each resample: float64 (B,); NaN where a class that it needs was not drawn at all.

        Metrics of ranks are biased in resamples, because an image that is drawn twice is compared with its own copies:
        by about 1 / S, which shows in small test sets. The bias is estimated (Efron and Tibshirani 1993, chapter 10)
        and taken off.
        """
        compute = weighted_metric(answers, metric, threshold)
        found = np.concatenate([compute(weights) for weights in self._weights()])
        if metric in RANK_METRICS and np.isfinite(found).any():
            bias = np.nanmean(found) - self.value(answers, metric)
            found = np.clip(found - bias, 0.0, 1.0)
        return found

    def value(self, answers: Answers, metric: str, threshold: float = 0.0) -> float:
        """The metric itself."""
        ones = np.ones((self.num_sources, 1), dtype=np.float32)
        return float(weighted_metric(answers, metric, threshold)(ones)[0])

    def _weights(self) -> Iterator[np.ndarray]:
        """Float32 (S, b): how often each source is drawn, b resamples at a time."""
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


def cell_scores(scores: pd.DataFrame, generator: str) -> pd.DataFrame:
    """The rows of one cell of a detection run: the generator's fakes, and the real images shared or its own.

    Args:
        scores: of the whole test set, columns generator and label.
        generator: that is tested on.
    """
    of_generator = scores["generator"] == generator
    return scores[of_generator | ((scores["label"] == 0) & (scores["generator"] == "real"))]


def true_classes(scores: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Int (N,): each image's place in `classes`; "real" for every real image.

    Raises:
        ValueError: a generator that is no class.
    """
    called = np.where(scores["label"] == 0, "real", scores["generator"])
    truth = pd.Index(classes).get_indexer(pd.Index(called))
    if (truth < 0).any():
        raise ValueError(f"images of {called[truth < 0][0]!r}, but the classes are {', '.join(classes)}")
    return truth


def weighted_metric(answers: Answers, metric: str, threshold: float = 0.0) -> WeightedMetric:
    """A metric of one cell as a function of its sources' weights; with weights of one, the plain metric.

    Args:
        answers: the cell.
        metric: one of `DETECTION_METRICS`; for attribution, of `ATTRIBUTION_METRICS` or accuracy/<class>.
        threshold: for detection, in units of the scores; a score above it means fake.

    Returns:
        float32 weights (S, b) -> float64 (b,); NaN where the weights leave out a class that it needs.

    Raises:
        ValueError: no such metric.
    """
    if answers.classes:
        compute = _attribution(answers, metric)
    elif metric in THRESHOLD_METRICS:
        compute = _at_threshold(answers, metric, threshold)
    elif metric in RANK_METRICS:
        compute = {"auroc": _auroc, "ap": _average_precision, "eer": _equal_error}[metric](answers)
    else:
        raise ValueError(f"no interval for {metric!r}; there are: {', '.join(DETECTION_METRICS)}")

    def quietly(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return compute(weights)

    return quietly


def interval_of(distribution: np.ndarray) -> Interval:
    """Percentile interval of resampled figures (B,); those that are NaN are left out."""
    finite = distribution[np.isfinite(distribution)]
    if not len(finite):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def proportion_interval(distribution: np.ndarray, answers: Answers, metric: str, value: float) -> Interval:
    """`interval_of`, widened where it is known to be too narrow: shares of images that are nearly all or none.

    Resamples of a test set with hardly any wrong answer hold none themselves, and the percentile interval shrinks to a
    point. Where fewer than five images are wrong or fewer than five right, or the interval is a point, it is joined
    with the exact binomial interval (Clopper and Pearson 1934) of the same share among the cell's sources: sources and
    not images, because images of one source are not independent. Other metrics have no such formula and stay as they
    are.

    Args:
        distribution: resampled figures (B,).
        answers: of the cell.
        metric: see `weighted_metric`.
        value: the figure itself.
    """
    interval = interval_of(distribution)
    counted = _counted(answers, metric)
    if counted is None or not counted.any() or not np.isfinite(interval.low):
        return interval
    num_images, num_sources = int(counted.sum()), len(np.unique(answers.sources[counted]))
    fewest = num_images * min(value, 1 - value)
    if fewest > RARE - 0.5 and interval.high > interval.low:
        return interval
    from scipy.stats import beta

    right, wrong, tail = value * num_sources, (1 - value) * num_sources, (1 - LEVEL) / 2
    low = float(beta.ppf(tail, right, wrong + 1)) if right > 0 else 0.0
    high = float(beta.ppf(1 - tail, right + 1, wrong)) if wrong > 0 else 1.0
    return Interval(min(interval.low, low), max(interval.high, high))


def _counted(answers: Answers, metric: str) -> np.ndarray | None:
    """Bool (N,): the images of which the metric is a share; None for a metric that is no share."""
    if metric in ("accuracy", "balanced_accuracy"):
        return np.ones(len(answers.labels), dtype=bool)
    if metric in ("real_accuracy", "fake_accuracy"):
        return np.asarray(answers.labels == int(metric == "fake_accuracy"))
    if metric.startswith("accuracy/"):
        return np.asarray(answers.labels == answers.classes.index(metric.partition("/")[2]))
    return None


def difference_of(value: float, differences: np.ndarray) -> Difference:
    """Interval and p value of resampled differences (B,).

    p is twice the smaller share of resamples at or beyond zero on either side, at most 1; one is added to both counts,
    so that it is never 0.
    """
    finite = differences[np.isfinite(differences)]
    interval = interval_of(finite)
    if not len(finite):
        return Difference(value, interval.low, interval.high, float("nan"))
    smaller = min((finite <= 0).sum(), (finite >= 0).sum())
    p = min(1.0, 2 * (smaller + 1) / (len(finite) + 1))
    return Difference(value, interval.low, interval.high, float(p))


def _sums(answers: Answers, columns: Iterable[np.ndarray]) -> WeightedMetric:
    """Weights (S, b) -> the weighted sum of each of k columns (N,): float64 (k, b)."""
    size = int(answers.sources.max()) + 1
    totals = np.array([np.bincount(answers.sources, weights=column, minlength=size) for column in columns], np.float32)
    return lambda weights: (totals @ weights[:size]).astype(np.float64)


def _at_threshold(answers: Answers, metric: str, threshold: float) -> WeightedMetric:
    fake = answers.labels == 1
    right = (answers.scores > threshold) == fake
    sums = _sums(answers, (right & fake, fake, right & ~fake, ~fake))

    def compute(weights: np.ndarray) -> np.ndarray:
        fakes_right, fakes, reals_right, reals = sums(weights)
        if metric == "accuracy":
            return (fakes_right + reals_right) / (fakes + reals)
        if metric == "real_accuracy":
            return reals_right / reals
        if metric == "fake_accuracy":
            return fakes_right / fakes
        return (fakes_right / fakes + reals_right / reals) / 2

    return compute


def _attribution(answers: Answers, metric: str) -> WeightedMetric:
    truth, answered = answers.labels, answers.scores
    count = len(answers.classes)
    name, _, of_class = metric.partition("/")
    if metric not in ATTRIBUTION_METRICS and not (name == "accuracy" and of_class in answers.classes):
        raise ValueError(f"no interval for {metric!r}; there are: {', '.join(ATTRIBUTION_METRICS)}, accuracy/<class>")
    sums = _sums(
        answers,
        [
            *((truth == one) & (answered == one) for one in range(count)),
            *(truth == one for one in range(count)),
            *(answered == one for one in range(count)),
        ],
    )

    def compute(weights: np.ndarray) -> np.ndarray:
        hits, actual, predicted = sums(weights).reshape(3, count, -1)
        if of_class:
            place = answers.classes.index(of_class)
            return hits[place] / actual[place]
        if metric == "accuracy":
            return hits.sum(axis=0) / actual.sum(axis=0)
        if metric == "balanced_accuracy":
            return (hits / actual).mean(axis=0)
        return (2 * hits / (actual + predicted)).mean(axis=0)

    return compute


def _auroc(answers: Answers) -> WeightedMetric:
    """Weighted share of (real, fake) pairs in which the fake scores higher; ties count one half."""
    fake = answers.labels == 1
    order = np.argsort(answers.scores[~fake], kind="stable")
    reals, fakes = answers.sources[~fake][order], answers.sources[fake]
    real_scores, fake_scores = answers.scores[~fake][order], answers.scores[fake]
    lower, upper = (np.searchsorted(real_scores, fake_scores, side=side) for side in ("left", "right"))
    tied = bool((lower != upper).any())

    def compute(weights: np.ndarray) -> np.ndarray:
        below, fake_weights = _running(weights[reals]), weights[fakes]
        won = np.einsum("fb,fb->b", below[lower], fake_weights)
        if tied:
            won = (won + np.einsum("fb,fb->b", below[upper], fake_weights)) / 2
        return won.astype(np.float64) / below[-1] / fake_weights.sum(axis=0)

    return compute


def _curve(answers: Answers) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Weights (S, b) -> counts of fakes and of reals called fake, (T + 1, b) each, as the threshold falls."""
    order = np.argsort(-answers.scores, kind="stable")
    scores, sources = answers.scores[order], answers.sources[order]
    fake = (answers.labels[order] == 1)[:, None]
    ends = np.concatenate([[0], np.flatnonzero(np.diff(scores)) + 1, [len(scores)]])

    def compute(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = weights[sources]
        return _running(rows * fake)[ends].astype(np.float64), _running(rows * ~fake)[ends].astype(np.float64)

    return compute


def _average_precision(answers: Answers) -> WeightedMetric:
    curve = _curve(answers)

    def compute(weights: np.ndarray) -> np.ndarray:
        found, false = curve(weights)
        precision = found[1:] / np.maximum(found[1:] + false[1:], 1e-9)
        return (np.diff(found, axis=0) * precision).sum(axis=0) / found[-1]

    return compute


def _equal_error(answers: Answers) -> WeightedMetric:
    curve = _curve(answers)

    def compute(weights: np.ndarray) -> np.ndarray:
        found, false = curve(weights)
        false_rate, balance = false / false[-1], false / false[-1] + found / found[-1] - 1.0
        after = np.argmax(balance >= 0, axis=0)[None]
        before = np.maximum(after - 1, 0)

        def at(values: np.ndarray, place: np.ndarray) -> np.ndarray:
            return np.take_along_axis(values, place, axis=0)[0]

        low, high = at(balance, before), at(balance, after)
        part = -low / (high - low)
        return at(false_rate, before) + part * (at(false_rate, after) - at(false_rate, before))

    return compute


def _running(rows: np.ndarray) -> np.ndarray:
    """Running sums along the first axis, with a row of zeros before: (N, b) -> (N + 1, b).

    First within groups of about sqrt(N) rows, all groups at once, then over the groups: `np.cumsum` adds along this
    axis one number at a time.
    """
    size = math.isqrt(len(rows)) + 1
    sums = np.zeros((size, size, rows.shape[1]), dtype=np.float32)
    flat = sums.reshape(size * size, -1)
    flat[1 : len(rows) + 1] = rows
    for place in range(1, size):
        sums[:, place] += sums[:, place - 1]
    for group in range(1, size):
        sums[group] += sums[group - 1, -1]
    return flat[: len(rows) + 1]
