"""Metrics, one file per metric. Everywhere, real = 0, fake = 1, and a higher score means fake.

Scoring, intervals, the report and its pictures all read their metrics from this register.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from models.detector import DETECTION_CLASSES
from models.register import Register

AT_VALIDATION = "_valid_threshold"  # suffix of the name of a metric at the threshold from the validation split


Rates = tuple[np.ndarray, np.ndarray, np.ndarray]  # false positive rates, true positive rates, thresholds


@dataclass(frozen=True)
class Answers:
    """A detector's answers for the images of one cell.

    Attributes:
        labels: int (N,), true class numbers.
        answered: int (N,), answered class numbers.
        classes: C names, "real" first.
        scores: float64 (N,), log-odds of fake; None unless the classes are real and fake.
    """

    labels: np.ndarray
    answered: np.ndarray
    classes: tuple[str, ...] = DETECTION_CLASSES
    scores: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def from_scores(cls, labels: np.ndarray, scores: np.ndarray, threshold: float = 0.0) -> Answers:
        """Call an image fake if its score is *above* the threshold. A tie is real, as with argmax over logits."""
        scores = np.asarray(scores, dtype=np.float64)
        return cls(np.asarray(labels), (scores > threshold).astype(np.int64), DETECTION_CLASSES, scores)

    @classmethod
    def from_logits(cls, labels: np.ndarray, logits: np.ndarray, classes: Sequence[str]) -> Answers:
        """Answer with the class that has the highest of the logits (N, C); of equal logits, the first."""
        return cls(np.asarray(labels), np.asarray(logits).argmax(axis=1), tuple(classes))

    @cached_property
    def roc(self) -> Rates:
        """False and true positive rates and thresholds, at every score; real or fake only."""
        return self.weighted_roc(None)

    def weighted_roc(self, weights: np.ndarray | None) -> Rates:
        """The same where images count as often as their weights (N,) say; None: once."""
        from sklearn.metrics import roc_curve

        rates: Rates = roc_curve(self.labels, self.scores, sample_weight=weights, drop_intermediate=False)
        return rates

    def of(self, images: np.ndarray) -> Answers:
        """The answers for some of the images, bool (N,)."""
        scores = None if self.scores is None else self.scores[images]
        return Answers(self.labels[images], self.answered[images], self.classes, scores)

    def at(self, threshold: float) -> Answers:
        """The same images with another threshold."""
        assert self.scores is not None, "only real and fake have a threshold"
        return Answers.from_scores(self.labels, self.scores, threshold)


Value = Callable[..., float]  # (answers, weights of the images (N,) or None) -> value
Shares = Callable[[Answers], list[tuple[float, np.ndarray]]]  # answers -> (coefficient, bool (N,)) of each share
Influence = Callable[[Answers], np.ndarray]  # answers -> float64 (N,)


@dataclass(frozen=True)
class Metric:
    """One metric of a cell.

    Attributes:
        name: as in MLflow and in tables; `accuracy/<class>` for a metric of one class.
        words: its name in headings.
        value: (answers, weights) -> the metric, in [0, 1]. Weights (N,) say how often each image counts; None: once.
        ranks: whether it depends on the order of the scores, not on a threshold. Such a metric needs scores; any other
            metric depends on the answered classes.
        task: "binary": only for real and fake, like every metric of ranks; "several": only for more than two classes;
            "any".
        chance: expected value for random guesses with as many fakes as real images; None: it depends.
        chance_is_fixed: whether `chance` holds for any number of fakes.
        higher_is_better: whether higher values are better.
        position: order among the metrics that a report shows, the smallest first; None: not shown.
        position_at_validation: likewise, for the metric at the threshold from validation.
        shares: if the metric is a sum of coefficients times shares of right answers, such as the accuracies of the
            classes: the coefficients, and which images each share is of. None: it is no such sum.
        influence: answers -> float64 (N,), how much each image moves the metric: its derivative by the image's weight,
            where all weights are 1; sums to 0. Intervals are made of it. None: it is found by leaving out one source
            after the other, which calls `value` as often as there are sources. Not needed with `shares`.
    """

    name: str
    words: str
    value: Value
    ranks: bool = False
    task: Literal["any", "binary", "several"] = "any"
    chance: float | None = None
    chance_is_fixed: bool = False
    higher_is_better: bool = True
    position: int | None = 100
    position_at_validation: int | None = None
    shares: Shares | None = None
    influence: Influence | None = None

    def influences(self, answers: Answers, sources: np.ndarray) -> np.ndarray:
        """Float64 (N,): how much each image moves the metric; NaN where a class that it needs is missing.

        Only the sum over the images of one source has a meaning.

        Args:
            answers: the cell.
            sources: int (N,), each image's source.
        """
        if self.influence is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                return self.influence(answers)
        return self._leaving_out(answers, sources)

    def _leaving_out(self, answers: Answers, sources: np.ndarray) -> np.ndarray:
        """By the jackknife over sources; a source's influence stands at its first image."""
        _, first, source_numbers = np.unique(sources, return_index=True, return_inverse=True)
        needed = [answers.labels == number for number in np.unique(answers.labels)]
        values = np.full(len(first), np.nan)
        for number in range(len(first)):
            weights = (source_numbers != number).astype(np.float64)
            if all(weights[images].any() for images in needed):
                values[number] = self.value(answers, weights)
        influence = np.zeros(len(sources))
        influence[first] = (values.mean() - values) * (len(first) - 1) / len(first)
        return influence


OfClass = Callable[[str], Metric]
_metrics: Register[Metric | OfClass] = Register("metric", __name__)


def register_metric(metric: Metric) -> Metric:
    """Register a metric under its name.

    Raises:
        ValueError: the name is taken, or has other characters than small letters, digits and "_".
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", metric.name):
        raise ValueError(f"a metric's name has small letters, digits and _; got {metric.name!r}")
    _metrics.add(metric.name, metric)
    return metric


def register_class_metric(name: str, of_class: OfClass) -> OfClass:
    """Register one metric per class, for more than two classes, as `<name>/<class>`. Errors as in `register_metric`."""
    _metrics.add(f"{name}/<class>", of_class)
    return of_class


list_metrics = _metrics.names


def metrics_for(classes: Sequence[str]) -> list[Metric]:
    """Every metric that applies to these classes, in the order of their positions."""
    return list(_metrics_for(tuple(classes), tuple(_metrics.names())))


@lru_cache(maxsize=64)
def _metrics_for(classes: tuple[str, ...], names: tuple[str, ...]) -> tuple[Metric, ...]:
    """Of the register with these names; every interval asks for them."""
    binary = classes == DETECTION_CLASSES
    metrics: list[Metric] = []
    for entry in map(_metrics.get, names):
        if not isinstance(entry, Metric):
            metrics += [] if binary else map(entry, classes)
        elif entry.task in ("any", "binary" if binary else "several"):
            metrics.append(entry)
    metrics.sort(key=lambda metric: (metric.position is None, metric.position or 0, metric.name))
    return tuple(metrics)


def get_metric(name: str) -> Metric:
    """Look a metric up by the logged name, such as "accuracy/lama" or "accuracy_valid_threshold".

    Raises:
        KeyError: no such metric; the message lists all metrics.
    """
    plain, of_class, label = name.removesuffix(AT_VALIDATION).partition("/")
    entry = _metrics.get(f"{plain}/<class>" if of_class else plain)
    return entry if isinstance(entry, Metric) else entry(label)


def measure(answers: Answers, threshold: float | None = None) -> dict[str, float]:
    """Every metric of a cell by its name.

    Args:
        answers: the cell.
        threshold: from the validation split. Metrics that depend on a threshold are also computed at this one. None:
            there is none.
    """
    metrics = metrics_for(answers.classes)
    values = {metric.name: metric.value(answers) for metric in metrics}
    if threshold is not None:
        chosen = answers.at(threshold)
        values |= {metric.name + AT_VALIDATION: metric.value(chosen) for metric in metrics if not metric.ranks}
    return values


def is_at_half(name: str) -> bool:
    """Whether a metric of real and fake, by its logged name, is one at p = 0.5, and so needs log-odds of fake."""
    return not name.endswith(AT_VALIDATION) and not get_metric(name).ranks


def reported(logged: Iterable[str]) -> list[str]:
    """The logged metrics of real and fake that a report shows, in its order."""
    logged = set(logged)
    positions: dict[str, int] = {}
    for metric in metrics_for(DETECTION_CLASSES):
        if metric.position is not None:
            positions[metric.name] = metric.position
        if metric.position_at_validation is not None:
            positions[metric.name + AT_VALIDATION] = metric.position_at_validation
    return sorted(positions.keys() & logged, key=lambda name: (positions[name], name))


def in_words(name: str) -> str:
    """A metric of real and fake for a heading: its words, its threshold, and whether lower is better."""
    try:
        metric = get_metric(name)
    except KeyError:  # the run is older, or of a checkout with more metrics
        return name.replace("_", " ")
    words = metric.words
    if not metric.ranks:
        words += " at the threshold from validation" if name.endswith(AT_VALIDATION) else " at p = 0.5"
    return words if metric.higher_is_better else f"{words} (lower is better)"
