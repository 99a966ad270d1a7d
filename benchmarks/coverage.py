"""How often the 95 % intervals of `analysis.intervals` hold the truth: test sets drawn from a known distribution.

A photograph gives a real image and a fake of each of four generators. Scores are normal with deviation 1; fakes lie
higher by as much as gives the wanted AUROC; the images of one photograph correlate by 0 or 0.8. The true value of each
metric follows from the distribution: AUROC as wanted; accuracy at the threshold in the middle and the equal error rate
by the normal distribution; average precision by numerical integration. Cases are AUROC .90, .9977, .9998 with 25, 100
and 900 photographs.

A second kind of detector answers a photograph and its fake alike, but for some photographs, which it tells apart.

Needs neither Ray nor MLflow; nothing is timed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.stats import norm

from analysis.intervals import Cell, Interval, average, difference, mean
from benchmarks.measure import Measured, Outcome, Target, say, time_is_up
from models.metrics import Answers

RANKS = ("auroc", "ap", "eer")
METRICS = (*RANKS, "accuracy")
MEAN, GAP = "mean AUROC of four cells", "gap of AUROC, one cell minus three"
QUANTITIES = (*METRICS, MEAN, GAP)
ALIKE = "accuracy of a detector that answers a photograph and its fake alike"
NUM_GENERATORS = 4
RARE = 0.1  # a perfect sample is rare if fewer are; where it is not, intervals hold the truth more often by right
LEAST, MOST = 0.93, 0.98


@dataclass(frozen=True)
class Case:
    """One distribution of scores and the size of a test set."""

    auroc: float
    num_photographs: int
    correlation: float

    @property
    def distance(self) -> float:
        """Of the mean scores of fakes and reals, in standard deviations."""
        return float(np.sqrt(2) * norm.ppf(self.auroc))

    def truth(self) -> dict[str, float]:
        """Quantity -> its true value."""
        scores = np.linspace(-12, 14, 200_001)
        recall, fall_out = norm.sf(scores - self.distance), norm.sf(scores)
        precision = recall / np.maximum(recall + fall_out, np.finfo(float).tiny)
        error = float(norm.sf(self.distance / 2))
        ap = -float(np.trapezoid(precision, recall))
        return {"auroc": self.auroc, "ap": ap, "eer": error, "accuracy": 1 - error, MEAN: self.auroc, GAP: 0.0}

    def cells(self, rng: np.random.Generator) -> list[Cell]:
        """One cell per generator, of the same photographs."""
        shape = (1 + NUM_GENERATORS, self.num_photographs)
        shared, own = rng.standard_normal(self.num_photographs), rng.standard_normal(shape)
        scores = np.sqrt(self.correlation) * shared + np.sqrt(1 - self.correlation) * own - self.distance / 2
        scores[1:] += self.distance
        photographs = np.tile(np.arange(self.num_photographs), 2)
        labels = np.repeat([0, 1], self.num_photographs)
        return [
            Cell(Answers.from_scores(labels, np.concatenate([scores[0], fakes])), photographs, self.num_photographs)
            for fakes in scores[1:]
        ]

    def __str__(self) -> str:
        return f"AUROC {self.auroc:g}, {self.num_photographs} photographs, correlation {self.correlation:g}"


FULL = [Case(*case) for case in product((0.90, 0.9977, 0.9998), (25, 100, 900), (0.0, 0.8))]
TOY = [Case(0.9, 25, 0.8)]


@dataclass(frozen=True)
class Alike:
    """A detector that calls a share of photographs real, and their fakes too but for those that it tells apart."""

    num_photographs: int
    told_apart: float
    called_real: float

    def truth(self) -> float:
        """Its accuracy."""
        fakes = (1 - self.told_apart) * (1 - self.called_real) + self.told_apart * self.called_real
        return (self.called_real + fakes) / 2

    def cell(self, rng: np.random.Generator) -> Cell:
        """Its answers to one test set."""
        real = rng.random(self.num_photographs) < self.called_real
        fake = real ^ (rng.random(self.num_photographs) < self.told_apart)
        photographs = np.tile(np.arange(self.num_photographs), 2)
        scores = np.where(np.concatenate([real, fake]), -1.0, 1.0)
        answers = Answers.from_scores(np.repeat([0, 1], self.num_photographs), scores)
        return Cell(answers, photographs, self.num_photographs)

    def coverage(self, num_draws: int, seed: int) -> float:
        """The share of intervals that hold the true accuracy."""
        rng, truth = np.random.default_rng(seed), self.truth()
        intervals = [average([self.cell(rng).parts("accuracy")]).interval for _ in range(num_draws)]
        return float(np.mean([low <= truth <= high for low, high in intervals]))

    def __str__(self) -> str:
        told, called = self.told_apart, self.called_real
        return f"{self.num_photographs} photographs, {told:g} told apart, {called:g} called real"


FULL_ALIKE = [Alike(*case) for case in product((25, 100, 900), (0.0, 0.01, 0.05, 0.3), (0.5, 0.9))]


def intervals_of(cells: list[Cell]) -> dict[str, Interval]:
    """Quantity -> its interval, as a report gives it."""
    aurocs = [average([cell.parts("auroc")]) for cell in cells]
    gap = difference(aurocs[0], mean(aurocs[1:]))
    found = {metric: average([cells[0].parts(metric)]).interval for metric in METRICS[1:]}
    return found | {"auroc": aurocs[0].interval, MEAN: mean(aurocs).interval, GAP: Interval(gap.low, gap.high)}


def coverage(case: Case, num_draws: int, seed: int) -> tuple[Mapping[str, float], float]:
    """Quantity -> the share of intervals that hold its true value; and the share of perfect samples."""
    rng, truth = np.random.default_rng(seed), case.truth()
    held: dict[str, int] = defaultdict(int)
    perfect = 0
    for _ in range(num_draws):
        cells = case.cells(rng)
        for name, (low, high) in intervals_of(cells).items():
            held[name] += low <= truth[name] <= high
        answers = cells[0].answers
        assert answers.scores is not None
        perfect += answers.scores[answers.labels == 1].min() > answers.scores[answers.labels == 0].max()
    return {name: count / num_draws for name, count in held.items()}, perfect / num_draws


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: every quantity at least .93 in all cases; AUROC at most .98 where a perfect sample is rare."""
    cases, num_draws = (TOY, 20) if toy else (FULL, 2000)
    alike = FULL_ALIKE[:1] if toy else FULL_ALIKE
    least: dict[str, list[float]] = defaultdict(list)
    most: dict[str, list[float]] = defaultdict(list)
    by_case: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for repeat in range(repeats):
        if repeat and time_is_up():
            break
        found = {case: coverage(case, num_draws, repeat) for case in cases}
        for name in QUANTITIES:
            for case, (shares, _) in found.items():
                by_case[name][f"{case}, share"].append(shares[name])
            least[name].append(min(shares[name] for shares, _ in found.values()))
        for name in RANKS:
            most[name].append(max(shares[name] for shares, perfect in found.values() if perfect < RARE))
        shares_alike = {case: case.coverage(num_draws, repeat) for case in alike}
        for alike_case, share in shares_alike.items():
            by_case[ALIKE][f"{alike_case}, share"].append(share)
        least[ALIKE].append(min(shares_alike.values()))
        say(f"repeat {repeat + 1} of {repeats}: " + ", ".join(f"{name} {least[name][-1]:.3f}" for name in least))
    setup = f"{len(cases)} cases, and {len(alike)} of answers alike, of {num_draws:,} test sets each"
    figures = {
        name: Measured(
            f"share of 95 % intervals of {name} that hold the truth, the least of the cases",
            "ratio",
            least[name],
            Target(LEAST, at_least=True),
            by_case[name],
        )
        for name in least
    }
    for name, values in most.items():
        words = f"the same of {name}, the most of the cases where fewer than 1 in 10 samples is perfect"
        figures[f"{name}, most"] = Measured(words, "ratio", values, Target(MOST))
    return Outcome(setup, figures)
