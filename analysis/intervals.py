"""95 % intervals over source photographs: one function for every value of the report.

The unit is the photograph, not the image: a real photograph and its fakes are not independent. Each metric says how
much each image moves it (`models.metrics.Metric.influence`: the derivative by the image's weight, as in the
infinitesimal jackknife; Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6). An image's
influences are summed per photograph, and the variance of a value is n / (n - 1) times the sum of their squares. For
AUROC that is DeLong's variance for clustered data (Obuchowski 1997, Biometrics 53, 567-578). Influences add up:
those of a mean over seeds or cells, of a gap, of a difference on the same photographs, are the same sum of influences.

An interval of this module holds for the trained detectors as they are. A `Level` is one source of variation on the same
photographs; the photographs are the only level. `analysis.seeds` joins the intervals with the variance over training
seeds, a `Spread`.

`benchmarks/coverage.py` measures how often these intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import beta, t

from grid.tasks import ATTRIBUTION, DETECTION, get_task
from models.metrics import AT_VALIDATION, Answers, Metric, metrics_for

LEVEL = 0.95
_TAIL = (1 - LEVEL) / 2
# With fewer degrees of freedom, intervals of an AUROC of .9977 from 100 photographs hold the truth too often (.985),
# with more, those of .9998 from 900 not often enough (.93 at 12). Found by simulation, see `benchmarks/coverage.py`.
_FEWEST_DEGREES = 10
_ROUNDING = 1e-24  # variances up to here are rounding errors of zero


class Interval(NamedTuple):
    """A 95 % interval [low, high]; NaN if nothing could be computed."""

    low: float
    high: float


NO_INTERVAL = Interval(math.nan, math.nan)


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


class Spread(NamedTuple):
    """A variance of a value, beside that by the photographs.

    Attributes:
        variance: NaN: unknown.
        degrees_of_freedom: of the variance; infinite where it is known to be 0.
    """

    variance: float
    degrees_of_freedom: float

    @property
    def is_known(self) -> bool:
        """Whether there is a variance."""
        return not math.isnan(self.variance)

    @property
    def half(self) -> float:
        """Half the width of its t interval."""
        return float(t.ppf(1 - _TAIL, self.degrees_of_freedom) * math.sqrt(self.variance)) if self.variance else 0.0


NO_SPREAD, UNKNOWN = Spread(0.0, math.inf), Spread(math.nan, 0.0)


class Level(NamedTuple):
    """One source of variation.

    Attributes:
        deviations: float64 (U,), how much each unit moves the value; they sum to 0. Of a mean of n values,
            (x - mean) / n.
        num_units: n, the units with at least one image; U counts all units of the test set.
    """

    deviations: np.ndarray
    num_units: int

    @property
    def variance(self) -> float:
        """Of the value, by this level."""
        return float(np.square(self.deviations).sum()) * self.num_units / max(self.num_units - 1, 1)

    @property
    def degrees_of_freedom(self) -> float:
        """Of the variance, by its own variance (Satterthwaite 1946): few if few units make most of it."""
        squares = np.square(self.deviations)
        relative = float(np.square(squares).sum() / max(squares.sum() ** 2, np.finfo(float).tiny)) - 1 / self.num_units
        most = max(self.num_units - 1, 1)
        return float(np.clip(2 / max(relative, 1e-12), min(_FEWEST_DEGREES, most), most))


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value with its interval.

    Attributes:
        value: the value.
        interval: its interval.
        levels: what it varies with; the first level is the photographs.
    """

    value: float
    interval: Interval
    levels: tuple[Level, ...]

    @property
    def variance(self) -> float:
        """Sum over the levels."""
        return sum(level.variance for level in self.levels)


@dataclass(frozen=True, eq=False)
class Part:
    """A quantity in [0, 1] of a cell with an interval of its own: a share of right answers, or a whole metric.

    Attributes:
        coefficient: how often it counts in the metric.
        value: the quantity.
        influence: float64 (S,), how much each source moves it; sums to 0.
        num_sources: how many sources have images of it.
        num_images: of a share, the number of images; None if it is no share.
    """

    coefficient: float
    value: float
    influence: np.ndarray
    num_sources: int
    num_images: int | None

    def estimate(self, level: float = LEVEL) -> Estimate:
        """With its interval, which holds the truth with a probability of `level`."""
        levels = (Level(self.influence, self.num_sources),)
        found = interval(self.value, levels, num_images=self.num_images, level=level)
        return Estimate(self.value, found, levels)


@dataclass(frozen=True)
class Cell:
    """The scored images of one cell.

    Attributes:
        answers: the detector's answers; for real or fake, at the threshold 0.
        sources: int (N,), each image's index among the `Sources`.
        num_sources: S, the sources of the whole test set.
    """

    answers: Answers
    sources: np.ndarray
    num_sources: int

    def at(self, threshold: float) -> Answers:
        """The answers at a threshold for real or fake; attribution has no threshold."""
        return self.answers if self.answers.scores is None or threshold == 0 else self.answers.at(threshold)

    @cached_property
    def _num_sources(self) -> int:
        """How many sources have images of it."""
        return len(np.unique(self.sources))

    def parts(self, metric: str, threshold: float = 0.0) -> list[Part]:
        """What a metric of the cell is the sum of.

        Args:
            metric: name, without the suffix for the validation threshold.
            threshold: for real or fake, in units of the scores; a higher score means fake.

        Raises:
            ValueError: no such metric of these classes; lists what exists.
        """
        registered = _metric(self.answers, metric)
        answers = self.answers if registered.ranks else self.at(threshold)
        if registered.shares is None:
            influence = self._summed(registered.influences(answers, self.sources))
            return [Part(1.0, registered.value(answers), influence, self._num_sources, None)]
        right, parts = answers.answered == answers.labels, []
        for coefficient, images in registered.shares(answers):
            share, count = float(right[images].mean()), int(images.sum())
            influence = self._summed(np.where(images, right - share, 0.0) / count)
            parts.append(Part(coefficient, share, influence, len(np.unique(self.sources[images])), count))
        return parts

    def _summed(self, influence: np.ndarray) -> np.ndarray:
        return np.bincount(self.sources, weights=influence, minlength=self.num_sources)


class Sources:
    """The source photographs of a test set, numbered alike for every cell and method, so that values can be paired.

    Args:
        frames: with the column source_id; their union is the test set.
    """

    def __init__(self, frames: Iterable[pd.DataFrame]) -> None:
        self._index = pd.Index(pd.concat([frame["source_id"] for frame in frames]).unique()).sort_values()
        if self._index.empty:
            raise ValueError("there are no images")

    def __len__(self) -> int:
        return len(self._index)

    def indices(self, frame: pd.DataFrame) -> np.ndarray:
        """Int (N,): each row's source. Raises `ValueError` for a source that is not in the test set."""
        indices = self._index.get_indexer(frame["source_id"])
        if (indices < 0).any():
            unknown = frame["source_id"].to_numpy()[indices < 0]
            raise ValueError(f"{len(unknown)} images have sources that are not in the test set, such as {unknown[0]!r}")
        return indices

    def cells(self, frame: pd.DataFrame, numbers: np.ndarray, rows: Mapping[str, np.ndarray]) -> dict[str, Cell]:
        """Several cells of one frame; see `cell`.

        Args:
            frame: as in `cell`.
            numbers: as in `cell`.
            rows: name of a cell -> bool (N,), its rows of the frame.
        """
        answers, indices, known = _answers(frame, numbers), self.indices(frame), numbers >= 0
        return {name: Cell(answers.of(own & known), indices[own & known], len(self)) for name, own in rows.items()}

    def cell(self, frame: pd.DataFrame, numbers: np.ndarray | None = None) -> Cell:
        """The images of a frame: real or fake if it has a column `score`, else classes by its logits.

        Args:
            frame: columns source_id, generator, label, and `score` or `logit_<class>`.
            numbers: int (N,), each image's class; images with -1 are left out. None: the label if there is a column
                `score`, else the class named like the image's generator, or "real".
        """
        if numbers is None:
            task = get_task(DETECTION if "score" in frame.columns else ATTRIBUTION)
            numbers = task.class_numbers(frame, _classes(frame))
        frame, numbers = frame[numbers >= 0], numbers[numbers >= 0]
        return Cell(_answers(frame, numbers), self.indices(frame), len(self))


def _classes(frame: pd.DataFrame) -> tuple[str, ...]:
    return tuple(str(name).removeprefix("logit_") for name in frame.columns if str(name).startswith("logit_"))


def _answers(frame: pd.DataFrame, numbers: np.ndarray) -> Answers:
    if "score" in frame.columns:
        return Answers.from_scores(numbers, frame["score"].to_numpy())
    classes = _classes(frame)
    if not classes:
        raise ValueError("the scores have neither a column `score` nor any `logit_<class>`")
    return Answers.from_logits(numbers, frame[[f"logit_{name}" for name in classes]].to_numpy(), classes)


def has_interval(classes: Sequence[str], metric: str) -> bool:
    """Whether a metric of these classes can be computed from scores, and so has an interval."""
    plain = metric.removesuffix(AT_VALIDATION)
    return any(registered.name == plain for registered in metrics_for(classes))


def interval(value: float, levels: Sequence[Level], *, num_images: int | None = None, level: float = LEVEL) -> Interval:
    """The interval of a value in [0, 1].

    A share of right answers has the exact binomial interval (Clopper and Pearson 1934) of as many independent images as
    give the same variance, at most as many as there are (Korn and Graubard 1998, Survey Methodology 24, 193-201).
    Any other value has a t interval on the logit scale.

    Where no photograph moves the value, such as for a perfect ranking or the same answer to all images, the variance
    says nothing. Then up to 1 - 0.025^(1/n) (at 95 %) of all photographs could still behave otherwise, in either
    direction.

    Args:
        value: in [0, 1], or NaN.
        levels: what it varies with.
        num_images: of a share of right answers, how many images there are; None if it is no share.
        level: the probability with which it holds the truth.
    """
    tail = (1 - level) / 2
    variance = sum(each.variance for each in levels)
    if not np.isfinite(value) or not np.isfinite(variance):
        return Interval(float("nan"), float("nan"))
    if num_images is not None and 0 < value < 1:
        # of n independent images, the variance is value (1 - value) / (n - 1)
        count = min(1 + value * (1 - value) / variance, num_images) if variance > 0 else num_images
        right, wrong = value * count, (1 - value) * count
        return Interval(float(beta.ppf(tail, right, wrong + 1)), float(beta.ppf(1 - tail, right + 1, wrong)))
    if variance <= _ROUNDING or not 0 < value < 1:
        return _unseen(value, levels, tail)
    half = _quantile(levels, tail) * np.sqrt(variance) / (value * (1 - value))
    return Interval(float(expit(logit(value) - half)), float(expit(logit(value) + half)))


def average(cells: Sequence[Sequence[Part]], *, level: float = LEVEL) -> Estimate:
    """The mean over seeds of one cell's metric, from `Cell.parts` of each seed's answers to the same images.

    `level`: the probability with which its interval holds the truth.
    """
    parts = []
    for of_seeds in zip(*cells, strict=True):
        influence = np.mean([part.influence for part in of_seeds], axis=0)
        value = float(np.mean([part.value for part in of_seeds]))
        parts.append(replace(of_seeds[0], value=value, influence=influence))
    estimate = combine([part.coefficient for part in parts], [part.estimate(level) for part in parts], level=level)
    if len(parts) == 1:
        return estimate
    # A detector that answers a photograph and its fake alike is right once per photograph: hardly any photograph moves
    # the value, and few that do are seen.
    unseen = _unseen(estimate.value, estimate.levels, (1 - level) / 2)
    return replace(estimate, interval=_hull(estimate.interval, unseen))


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of values on the same photographs, such as over the cells of a matrix."""
    return combine([1 / len(estimates)] * len(estimates), estimates)


def combine(coefficients: Sequence[float], estimates: Sequence[Estimate], *, level: float = LEVEL) -> Estimate:
    """A weighted sum, with positive coefficients, of values on the same photographs.

    Its interval follows from theirs and the correlations of their influences (MOVER; Zou and Donner 2008, Statistics in
    Medicine 27, 1693-1702), so that a value near 1 keeps its skewed interval, and one without variance its width.
    Values without variance count as fully correlated with each other. Where its own t interval is wider, that counts.
    `level` is that of their intervals.
    """
    if len(estimates) == 1 and coefficients[0] == 1:
        return estimates[0]
    value = float(sum(c * estimate.value for c, estimate in zip(coefficients, estimates, strict=True)))
    levels = _summed(coefficients, estimates)
    scaled = [np.array([each.deviations for each in row]) for row in zip(*(e.levels for e in estimates), strict=True)]
    covariance = sum(rows @ rows.T for rows in scaled)
    root = np.sqrt(np.diag(covariance))
    without = root <= np.sqrt(_ROUNDING)
    correlation = covariance / np.outer(np.where(without, 1, root), np.where(without, 1, root))
    correlation[np.ix_(without, without)] = 1.0
    below, above = (
        np.array([c * abs(e.value - e.interval[side]) for c, e in zip(coefficients, estimates, strict=True)])
        for side in (0, 1)
    )
    low, high = (float(np.sqrt(max(side @ correlation @ side, 0.0))) for side in (below, above))
    return Estimate(value, _hull(Interval(value - low, value + high), interval(value, levels, level=level)), levels)


def difference(a: Estimate, b: Estimate, seeds: Spread = NO_SPREAD) -> Difference:
    """One value minus another on the same photographs: a paired t interval, and the p value of the same t.

    A side without variance adds the variance that its interval stands for.

    Args:
        a: the first value.
        b: the value that is subtracted.
        seeds: variance of the difference by training seeds, which are not paired; without it, the difference is that of
            these trained detectors.
    """
    levels: list[Level | Spread] = [*_summed([1.0, -1.0], [a, b]), seeds]
    variance, quantile = sum((level.variance for level in levels), 0.0), _quantile(levels)
    for side in (a, b):
        if side.variance <= _ROUNDING:
            variance += ((side.interval.high - side.interval.low) / (2 * quantile)) ** 2
    value, error = a.value - b.value, float(np.sqrt(variance))
    if error <= np.sqrt(_ROUNDING):  # the same answers
        return Difference(value, value, value, 1.0)
    p = 2 * float(t.sf(abs(value) / error, _degrees_of_freedom(levels)))
    return Difference(value, value - quantile * error, value + quantile * error, p)


def _unseen(value: float, levels: Sequence[Level], tail: float = _TAIL) -> Interval:
    """What a value could be with photographs of a kind that none of the n is: up to 1 - tail^(1/n) of all."""
    unseen = 1 - tail ** (1 / levels[0].num_units)
    return Interval((1 - unseen) * value, (1 - unseen) * value + unseen)


def _hull(a: Interval, b: Interval) -> Interval:
    return Interval(min(a.low, b.low), max(a.high, b.high))


def _summed(coefficients: Sequence[float], estimates: Sequence[Estimate]) -> tuple[Level, ...]:
    return tuple(
        Level(
            sum((c * level.deviations for c, level in zip(coefficients, of_level, strict=True)), np.zeros(1)),
            max(level.num_units for level in of_level),
        )
        for of_level in zip(*(estimate.levels for estimate in estimates), strict=True)
    )


def _degrees_of_freedom(levels: Sequence[Level | Spread]) -> float:
    """Of the sum of the levels' variances (Satterthwaite 1946)."""
    variances = np.array([level.variance for level in levels])
    if variances.sum() <= _ROUNDING:
        return float(levels[0].degrees_of_freedom)
    degrees = np.array([level.degrees_of_freedom for level in levels])
    return float(variances.sum() ** 2 / (variances**2 / degrees).sum())


def _quantile(levels: Sequence[Level | Spread], tail: float = _TAIL) -> float:
    return float(t.ppf(1 - tail, _degrees_of_freedom(levels)))


def _metric(answers: Answers, name: str) -> Metric:
    metrics = {metric.name: metric for metric in metrics_for(answers.classes)}
    if name not in metrics:
        raise ValueError(f"no interval for {name!r}; there are: {', '.join(metrics)}")
    return metrics[name]
