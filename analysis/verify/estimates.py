"""Metrics and their 95 % intervals, written out from `docs/numbers.md`; shares no function with the report.

Real = 0, fake = 1; a higher score means fake. A photograph and its fakes count as one unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import optimize, special, stats
from sklearn import metrics as sklearn_metrics

VALIDATION = "_valid_threshold"
FALSE_POSITIVES = {"tpr_at_fpr_1": 0.01, "tpr_at_fpr_5": 0.05}
RANKING = ("auroc", "ap", "eer", "oracle_accuracy", *FALSE_POSITIVES)
BINARY = ("accuracy", "balanced_accuracy", "real_accuracy", "fake_accuracy", *RANKING)
LEVEL = 0.95
NO_VARIANCE = 1e-24  # a variance up to this is a rounding error of zero
FEWEST_DEGREES = 10


@dataclass(frozen=True, eq=False)
class Images:
    """The scored images of one cell.

    Attributes:
        labels: int (N,), class numbers.
        answers: int (N,), answered class numbers.
        units: int (N,), the source photograph of each image, in [0, num_units).
        num_units: source photographs of the whole test set.
        classes: class names, "real" first.
        scores: float64 (N,), log-odds of fake; None for more than two classes.
    """

    labels: np.ndarray
    answers: np.ndarray
    units: np.ndarray
    num_units: int
    classes: tuple[str, ...]
    scores: np.ndarray | None = None

    def at(self, threshold: float) -> Images:
        """The same images, called fake above a threshold."""
        assert self.scores is not None
        answers = (self.scores > threshold).astype(int)
        return Images(self.labels, answers, self.units, self.num_units, self.classes, self.scores)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value with its interval.

    Attributes:
        value: the value.
        low, high: its 95 % interval.
        moves: float64 (units,), how much each source photograph moves the value.
        seen: the number of source photographs with images of it.
    """

    value: float
    low: float
    high: float
    moves: np.ndarray
    seen: int

    @property
    def variance(self) -> float:
        """N / (n - 1) times the sum of squares."""
        return variance_of(self.moves, self.seen)


@dataclass(frozen=True)
class Spread:
    """A variance that is not by photographs, and the degrees of freedom that it is known with."""

    variance: float
    degrees: float


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a metric with an interval of its own: the accuracy of one class, or the whole metric.

    Attributes:
        weight: how often it counts in the metric.
        value: in [0, 1].
        moves: as in `Estimate`.
        seen: as in `Estimate`.
        num_images: of a share of right answers, its images; None if it is no share.
    """

    weight: float
    value: float
    moves: np.ndarray
    seen: int
    num_images: int | None

    def estimate(self, level: float = LEVEL) -> Estimate:
        """With its interval."""
        low, high = interval(self.value, self.moves, self.seen, self.num_images, level)
        return Estimate(self.value, low, high, self.moves, self.seen)


# Values --------------------------------------------------------------------------------------------------------------


def metrics_of(classes: Sequence[str]) -> list[str]:
    """Names of the metrics with a rule here."""
    if tuple(classes) == ("real", "fake"):
        return [*BINARY, *(name + VALIDATION for name in BINARY if name not in RANKING)]
    return ["accuracy", "balanced_accuracy", "macro_f1", *(f"accuracy/{name}" for name in classes)]


def metric(images: Images, name: str) -> float:
    """The value of a metric, without the suffix for the threshold from validation."""
    labels, answers = images.labels, images.answers
    if name in RANKING and len(np.unique(labels)) < 2:
        return math.nan
    if name == "accuracy":
        return float(sklearn_metrics.accuracy_score(labels, answers))
    if name == "balanced_accuracy":
        return float(sklearn_metrics.balanced_accuracy_score(labels, answers))
    if name == "macro_f1":
        return float(sklearn_metrics.f1_score(labels, answers, average="macro"))
    if name == "auroc":
        return float(sklearn_metrics.roc_auc_score(labels, images.scores))
    if name == "ap":
        return float(sklearn_metrics.average_precision_score(labels, images.scores))
    if name == "eer":
        return equal_error_rate(labels, images.scores)[0]
    if name == "oracle_accuracy":
        return best_threshold(images)[0]
    if name in FALSE_POSITIVES:
        assert images.scores is not None
        return float(np.mean(images.scores[labels == 1] > highest_real(images, FALSE_POSITIVES[name])))
    return float(np.mean(answers[labels == _class_number(images, name)] == _class_number(images, name)))


def equal_error_rate(labels: np.ndarray, scores: np.ndarray | None) -> tuple[float, float]:
    """Where the straight pieces of the ROC curve cross false positive rate = false negative rate.

    Returns:
        the rate, and the threshold there, interpolated in the same way.
    """
    false, true, thresholds = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert scores is not None
    thresholds = np.where(np.isinf(thresholds), scores.max(), thresholds)
    excess = false + true - 1  # false positive rate minus false negative rate: from -1 to 1
    after = int(np.flatnonzero(excess >= 0)[0])
    before = after - 1
    step = -excess[before] / (excess[after] - excess[before])
    rate, threshold = (float(v[before] + step * (v[after] - v[before])) for v in (false, thresholds))
    return rate, threshold


def best_threshold(images: Images) -> tuple[float, float]:
    """The highest accuracy of any threshold on these images, and the lowest threshold with it: fake is above it."""
    assert images.scores is not None
    fakes, reals = (np.sort(images.scores[images.labels == label]) for label in (1, 0))
    candidates = np.array([-np.inf, *np.unique(images.scores)])
    right = len(fakes) - np.searchsorted(fakes, candidates, "right") + np.searchsorted(reals, candidates, "right")
    best = int(np.argmax(right))
    return float(right[best] / len(images.labels)), float(candidates[best])


def highest_real(images: Images, rate: float) -> float:
    """The lowest score of a real image above which at most this share of the reals is."""
    assert images.scores is not None
    reals = images.scores[images.labels == 0]
    allowed = math.floor((rate + 1e-9) * len(reals))
    return float(min(value for value in np.unique(reals) if np.sum(reals > value) <= allowed))


def validation_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of best balanced accuracy: the middle of the widest of the equally good gaps between scores."""
    values = np.unique(scores)
    fakes, reals = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    found = (len(fakes) - np.searchsorted(fakes, values, "right")) * len(reals)
    found = found + np.searchsorted(reals, values, "right") * len(fakes)
    best = np.flatnonzero(found == found.max())
    if best[-1] == len(values) - 1:  # as good as calling everything real
        return float(values[-1])
    gaps = values[best + 1] - values[best]
    low = values[best[int(np.argmax(gaps))]]
    high = values[best[int(np.argmax(gaps))] + 1]
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)


def calibration_error(labels: np.ndarray, scores: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over equally wide bins of the probability of fake, closed on the right."""
    given = special.expit(np.asarray(scores, dtype=np.float64))
    number = np.clip(np.searchsorted(np.arange(1, bins) / bins, given, side="left"), 0, bins - 1)
    total = 0.0
    for of_bin in np.unique(number):
        members = number == of_bin
        total += members.sum() * abs((labels[members] == 1).mean() - given[members].mean())
    return float(total / len(given))


def temperature(labels: np.ndarray, scores: np.ndarray) -> float:
    """The temperature with the lowest cross-entropy: where its slope by the inverse temperature is 0.

    1 where no image is on the wrong side of p = 0.5, where there is no optimum, and where the calibration error would
    rise.
    """
    toward = np.where(labels == 1, scores, -scores)  # above 0: the right side
    if not (toward < 0).any():
        return 1.0

    def slope(logarithm: float) -> float:
        return -float((toward * special.expit(-math.exp(logarithm) * toward)).mean())

    ends = slope(-9.9), slope(9.9)
    if ends[0] >= 0 or ends[1] <= 0:
        return 1.0
    value = math.exp(-optimize.brentq(slope, -9.9, 9.9, xtol=1e-14))
    rises = calibration_error(labels, scores / value) > calibration_error(labels, scores)
    return 1.0 if rises else value


def flatness(scores: np.ndarray, value: float) -> float:
    """The share by which a temperature may be off the best one and have the same cross-entropy in 64 bits.

    By the cross-entropy's second derivative by the logarithm of the temperature: of a high temperature, where all
    probabilities are near 0.5, it is near 0.
    """
    logits = scores / value
    curvature = float((logits**2 * special.expit(logits) * special.expit(-logits)).mean())
    return math.sqrt(4 * np.finfo(float).eps / curvature) if curvature else math.inf


# What a photograph moves ---------------------------------------------------------------------------------------------


def pieces(images: Images, name: str) -> list[Piece]:
    """What a metric is the sum of."""
    labels, right = images.labels, images.answers == images.labels
    if name == "accuracy":
        weights = {int(number): float(np.mean(labels == number)) for number in np.unique(labels)}
    elif name == "balanced_accuracy":
        weights = {number: 1 / len(images.classes) for number in range(len(images.classes))}
    elif (name.endswith("_accuracy") or name.startswith("accuracy/")) and name not in RANKING:
        weights = {_class_number(images, name): 1.0}
    elif name in RANKING and len(np.unique(labels)) < 2:  # as in a damaged table
        return [Piece(1.0, math.nan, np.zeros(images.num_units), 1, None)]
    else:
        moves = _MOVES[name](images)
        seen = len(np.unique(images.units))
        return [Piece(1.0, metric(images, name), _per_unit(images, moves), seen, None)]
    found = []
    for number, weight in weights.items():
        members = labels == number
        share = float(right[members].mean())
        moves = np.where(members, right - share, 0.0) / members.sum()
        seen = len(np.unique(images.units[members]))
        found.append(Piece(weight, share, _per_unit(images, moves), seen, int(members.sum())))
    return found


def _class_number(images: Images, name: str) -> int:
    label = name.partition("/")[2] or name.removesuffix("_accuracy")
    return images.classes.index(label)


def _per_unit(images: Images, moves: np.ndarray) -> np.ndarray:
    total = np.zeros(images.num_units)
    np.add.at(total, images.units, moves)
    return total


def _auroc_moves(images: Images) -> np.ndarray:
    """DeLong: an image's share of right pairs minus the mean, over the images of its class; pair by pair."""
    assert images.scores is not None
    fake = images.labels == 1
    fakes, reals = images.scores[fake], images.scores[~fake]
    of_fakes, of_reals = np.zeros(len(fakes)), np.zeros(len(reals))
    for rows in _blocks(len(fakes)):
        above = fakes[rows, None] - reals
        pairs = (above > 0) + 0.5 * (above == 0)
        of_fakes[rows] = pairs.mean(axis=1)
        of_reals += pairs.sum(axis=0) / len(fakes)
    moves = np.zeros(len(fake))
    moves[fake] = (of_fakes - of_fakes.mean()) / len(fakes)
    moves[~fake] = (of_reals - of_reals.mean()) / len(reals)
    return moves


def _ap_moves(images: Images) -> np.ndarray:
    """Derivative by an image's weight of the mean, over the fakes, of the precision at their scores; pair by pair."""
    assert images.scores is not None
    fake = images.labels == 1
    fakes = images.scores[fake]
    moves, precision = np.zeros(len(fake)), np.zeros(len(fakes))
    for rows in _blocks(len(fakes)):
        at_least = images.scores >= fakes[rows, None]  # (fakes of the block, images)
        true, called = (at_least & fake).sum(axis=1), at_least.sum(axis=1)
        precision[rows] = true / called
        # of T / (T + F): F / (T + F)^2 by a fake's weight, - T / (T + F)^2 by a real image's
        change = np.where(fake, ((called - true) / called**2)[:, None], -(true / called**2)[:, None])
        moves += (at_least * change).sum(axis=0)
    moves[fake] += precision - precision.mean()
    return moves / len(fakes)


def _blocks(count: int, size: int = 512) -> Iterator[slice]:
    """Pieces of a range, so that pairs of images need little memory."""
    return (slice(start, start + size) for start in range(0, count, size))


def _eer_moves(images: Images) -> np.ndarray:
    """Both error rates move, weighted by the densities of the other class at the threshold (Gaussian kernel)."""
    assert images.scores is not None
    fake = images.labels == 1
    _, threshold = equal_error_rate(images.labels, images.scores)
    of_fakes, of_reals = (_density(images.scores[members], threshold) for members in (fake, ~fake))
    weight = 0.5 if of_fakes + of_reals == 0 else of_fakes / (of_fakes + of_reals)
    called = images.scores >= threshold
    moves = np.zeros(len(fake))
    moves[~fake] = weight * (called[~fake] - called[~fake].mean()) / (~fake).sum()
    moves[fake] = (1 - weight) * ((~called)[fake] - (~called)[fake].mean()) / fake.sum()
    return moves


def _density(scores: np.ndarray, place: float) -> float:
    """Silverman (1986), equation 3.31."""
    upper, lower = np.percentile(scores, 75), np.percentile(scores, 25)
    spread = min(scores.std(), (upper - lower) / 1.34) if upper > lower else scores.std()
    width = 0.9 * spread / len(scores) ** 0.2
    if width == 0:
        return float(np.any(scores == place))
    return float(stats.norm.pdf(scores, loc=place, scale=width).mean() * math.sqrt(2 * math.pi))


def _f1_moves(images: Images) -> np.ndarray:
    """Derivative of the mean over the classes of 2 TP / (images of the class + answers with it)."""
    moves = np.zeros(len(images.labels))
    for number in range(len(images.classes)):
        true, called = images.labels == number, images.answers == number
        below = true.sum() + called.sum()
        if below:
            hits = 2.0 * (true & called)
            moves += (hits - hits.sum() / below * (true * 1.0 + called)) / below
    return moves / len(images.classes)


def _oracle_moves(images: Images) -> np.ndarray:
    """Of the accuracy at the best threshold."""
    right = images.at(best_threshold(images)[1]).answers == images.labels
    return np.asarray((right - right.mean()) / len(right))


def _low_rate_moves(images: Images, rate: float) -> np.ndarray:
    """A fake moves its own rate; a real image moves the threshold, along the slope of the ROC curve there."""
    assert images.scores is not None
    fake = images.labels == 1
    called = images.scores > highest_real(images, rate)
    error = math.sqrt(rate * (1 - rate) / (~fake).sum())
    between = (images.scores > highest_real(images, rate + error)) & (
        images.scores <= highest_real(images, max(rate - error, 0.0))
    )
    of_reals = between[~fake].mean()
    slope = between[fake].mean() / of_reals if of_reals > 0 else 0.0
    moves = np.zeros(len(fake))
    moves[fake] = (called[fake] - called[fake].mean()) / fake.sum()
    moves[~fake] = -slope * (called[~fake] - called[~fake].mean()) / (~fake).sum()
    return moves


_MOVES: dict[str, Callable[[Images], np.ndarray]] = {
    "auroc": _auroc_moves,
    "ap": _ap_moves,
    "eer": _eer_moves,
    "macro_f1": _f1_moves,
    "oracle_accuracy": _oracle_moves,
    **{name: partial(_low_rate_moves, rate=rate) for name, rate in FALSE_POSITIVES.items()},
}


# Open set ------------------------------------------------------------------------------------------------------------


def softmax_unknown(logits: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the largest softmax probability; the rest is added up from small to large."""
    behind = np.sort(logits - logits.max(axis=1)[:, None], axis=1)[:, :-1]
    return np.asarray(np.log1p(np.exp(behind).sum(axis=1)))


def energy_unknown(logits: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the sum of exp(logit)."""
    return -np.asarray(special.logsumexp(logits, axis=1))


def open_set_pieces(images: Images, scores: np.ndarray) -> dict[str, tuple[float, list[Piece]]]:
    """Metric -> value and its one piece, of one score of "unknown".

    Args:
        images: all images of a cell; the label of an unknown one is -1.
        scores: (N,), a higher one means more likely unknown.
    """
    unknown = images.labels == -1
    ranked = Images(unknown.astype(int), images.answers, images.units, images.num_units, ("real", "fake"), scores)
    seen = len(np.unique(images.units))

    def piece(value: float, moves: np.ndarray) -> tuple[float, list[Piece]]:
        return value, [Piece(1.0, value, _per_unit(images, moves), seen, None)]

    shares = np.zeros(len(unknown))
    right = (images.answers == images.labels)[~unknown]
    others, of_known = scores[unknown], np.zeros((~unknown).sum())
    of_unknown = np.zeros(len(others))
    for rows in _blocks(len(of_known)):
        below = others - scores[~unknown][rows, None]  # (known images of the block, unknown ones)
        pairs = ((below > 0) + 0.5 * (below == 0)) * right[rows, None]
        of_known[rows] = pairs.mean(axis=1)
        of_unknown += pairs.sum(axis=0) / len(of_known)
    won = float(of_known.mean())
    shares[~unknown] = (of_known - won) / len(of_known)
    shares[unknown] = (of_unknown - won) / len(of_unknown)
    low = "tpr_at_fpr_5"
    return {
        "unknown_auroc": piece(metric(ranked, "auroc"), _auroc_moves(ranked)),
        "oscr": piece(won, shares),
        "unknown_fpr95": piece(1 - metric(ranked, low), -_MOVES[low](ranked)),
    }


# Intervals -----------------------------------------------------------------------------------------------------------


def variance_of(moves: np.ndarray, seen: int) -> float:
    """N / (n - 1) times the sum of the squares."""
    return float(moves @ moves) * seen / max(seen - 1, 1)


def degrees(moves: np.ndarray, seen: int) -> float:
    """Satterthwaite: few where few photographs make most of the variance; at least 10, at most n - 1."""
    most = max(seen - 1, 1)
    squares = moves**2
    if squares.sum() == 0:
        return float(most)
    relative = float((squares**2).sum() / squares.sum() ** 2) - 1 / seen
    return min(max(2 / max(relative, 1e-12), min(FEWEST_DEGREES, most)), most)


def quantile(moves: np.ndarray, seen: int, level: float = LEVEL) -> float:
    """Of Student's t."""
    return float(stats.t.isf((1 - level) / 2, degrees(moves, seen)))


def unseen(value: float, seen: int, level: float = LEVEL) -> tuple[float, float]:
    """Up to 1 - 0.025^(1/n) of all photographs could behave otherwise, in either direction; 0.025 at 95 %."""
    share = -math.expm1(math.log((1 - level) / 2) / seen)
    return value - share * value, value + share * (1 - value)


def interval(
    value: float, moves: np.ndarray, seen: int, num_images: int | None, level: float = LEVEL
) -> tuple[float, float]:
    """The interval of a value in [0, 1]: exact binomial for a share, else t on the logit scale."""
    variance = variance_of(moves, seen)
    if not math.isfinite(value) or not math.isfinite(variance):
        return math.nan, math.nan
    inside = 0 < value < 1
    if num_images is not None and inside:
        count = float(num_images)
        if variance > 0:  # of m independent images, the variance is value (1 - value) / (m - 1)
            count = min(1 + value * (1 - value) / variance, count)
        right, wrong = count * value, count * (1 - value)
        low = special.betaincinv(right, wrong + 1, (1 - level) / 2)
        high = special.betaincinv(right + 1, wrong, (1 + level) / 2)
        return float(low), float(high)
    if not inside or variance <= NO_VARIANCE:
        return unseen(value, seen, level)
    odds = math.log(value / (1 - value))
    half = quantile(moves, seen, level) * math.sqrt(variance) / (value * (1 - value))
    return float(special.expit(odds - half)), float(special.expit(odds + half))


def weighted(weights: Sequence[float], estimates: Sequence[Estimate], level: float = LEVEL) -> Estimate:
    """A weighted sum: the interval from those of the parts and the correlations of their moves (Zou and Donner 2008).

    Where the t interval of the whole ends further out, that end counts.
    """
    if len(estimates) == 1 and weights[0] == 1:
        return estimates[0]
    value = sum(w * e.value for w, e in zip(weights, estimates, strict=True))
    rows = np.array([w * e.moves for w, e in zip(weights, estimates, strict=True)])
    moves, seen = rows.sum(axis=0), max(e.seen for e in estimates)
    length = np.sqrt((rows**2).sum(axis=1))
    constant = length <= math.sqrt(NO_VARIANCE)
    unit = rows / np.where(constant, 1.0, length)[:, None]
    together = np.where(constant[:, None] & constant[None, :], 1.0, unit @ unit.T)
    down = np.array([w * abs(e.value - e.low) for w, e in zip(weights, estimates, strict=True)])
    up = np.array([w * abs(e.high - e.value) for w, e in zip(weights, estimates, strict=True)])
    low, high = interval(value, moves, seen, None, level)
    low = min(low, value - math.sqrt(max(float(down @ together @ down), 0.0)))
    high = max(high, value + math.sqrt(max(float(up @ together @ up), 0.0)))
    return Estimate(float(value), low, high, moves, seen)


def over_seeds(by_seed: Sequence[Sequence[Piece]], level: float = LEVEL) -> Estimate:
    """The mean over seeds of a metric of one cell, from the pieces of each seed."""
    joined = []
    for of_seeds in zip(*by_seed, strict=True):
        first = of_seeds[0]
        value = sum(piece.value for piece in of_seeds) / len(of_seeds)
        moves = sum((piece.moves for piece in of_seeds), np.zeros_like(first.moves)) / len(of_seeds)
        joined.append(Piece(first.weight, float(value), moves, first.seen, first.num_images))
    estimate = weighted([piece.weight for piece in joined], [piece.estimate(level) for piece in joined], level)
    if len(joined) == 1:
        return estimate
    low, high = unseen(estimate.value, estimate.seen, level)
    return Estimate(
        estimate.value, min(low, estimate.low), max(high, estimate.high), estimate.moves, estimate.seen
    )  # fmt: skip


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of values on the same photographs."""
    return weighted([1 / len(estimates)] * len(estimates), estimates)


def difference(a: Estimate, b: Estimate, seeds: Spread | None = None) -> tuple[float, float, float, float]:
    """A minus b, its 95 % interval, and the two-sided p value of the same paired t.

    The variance by the seeds of both, which are not paired, is added to that by the photographs.
    """
    moves, seen = a.moves - b.moves, max(a.seen, b.seen)
    variance, freedom = variance_of(moves, seen), degrees(moves, seen)
    if seeds is not None and seeds.variance + variance > NO_VARIANCE:
        by_photographs, variance = variance, variance + seeds.variance
        freedom = variance**2 / (by_photographs**2 / freedom + seeds.variance**2 / seeds.degrees)
    at = float(stats.t.isf(0.025, freedom))
    variance += sum(((e.high - e.low) / (2 * at)) ** 2 for e in (a, b) if e.variance <= NO_VARIANCE)
    value = a.value - b.value
    if variance <= NO_VARIANCE:
        return value, value, value, 1.0
    error = math.sqrt(variance)
    p = 2 * float(stats.t.cdf(-abs(value) / error, freedom))
    return value, value - at * error, value + at * error, p


# Embeddings ----------------------------------------------------------------------------------------------------------


def sample(classes: np.ndarray, most: int = 5000) -> np.ndarray:
    """Rows of the images that are compared: all, or of more than `most` a sample of each class with seed 0."""
    names = np.array([str(name) for name in classes])
    if len(names) <= most:
        return np.arange(len(names))
    random, chosen = np.random.default_rng(0), []
    for name in sorted(set(names.tolist())):
        own = np.flatnonzero(names == name)
        chosen.extend(random.choice(own, max(1, round(most * len(own) / len(names))), replace=False).tolist())
    return np.array(sorted(chosen))


def separation(
    points: np.ndarray, classes: np.ndarray, photographs: np.ndarray, neighbours: int = 10
) -> tuple[float, tuple[float, float], float, int]:
    """How classes separate between photographs, image by image.

    Returns:
        mean silhouette; the lowest and the highest purity of the nearest neighbours, which differ where several images
        are equally far; the purity expected by chance; and the number of neighbours.
    """
    points = points.astype(np.float64)
    names = np.unique(classes)
    largest = max(int((photographs == photograph).sum()) for photograph in np.unique(photographs))
    k = min(neighbours, len(points) - largest)
    silhouettes, lowest, highest, chances = [], [], [], []
    for index, point in enumerate(points):
        others = photographs != photographs[index]
        distances = np.sqrt(((points[others] - point) ** 2).sum(axis=1))
        of_others, own = classes[others], classes[index]
        means = {name: distances[of_others == name].mean() for name in names if (of_others == name).any()}
        within, rest = means.pop(own, None), list(means.values())
        larger = 0.0 if within is None or not rest else max(within, min(rest))
        silhouettes.append((min(rest) - within) / larger if larger > 0 else 0.0)
        edge = np.partition(distances, k - 1)[k - 1]
        margin = 1e-5 * edge
        sure, tied = distances < edge - margin, np.abs(distances - edge) <= margin
        left, pure = k - int(sure.sum()), int((of_others[sure] == own).sum())
        tied_own = int((of_others[tied] == own).sum())
        lowest.append((pure + max(0, left - (int(tied.sum()) - tied_own))) / k)
        highest.append((pure + min(left, tied_own)) / k)
        chances.append((of_others == own).mean())
    purity = float(np.mean(lowest)), float(np.mean(highest))
    return float(np.mean(silhouettes)), purity, float(np.mean(chances)), k
