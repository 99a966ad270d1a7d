"""How often a comparison calls two groups of seeds of one method different: simulated, so that the answer is known.

A photograph gives a real image and a fake, whose scores are normal with deviation 1 and correlate by .5. Scores of one
image correlate by .5 between runs. A run's AUROC is normal around .9 with a deviation of 0, .02 or .05: the effect of
its seed. Two groups of three runs are of the same method, so every "different" is wrong; wanted are .07 at most.

The comparison is that of a report (`analysis.cells.compare`): of a cell whose method has one training set, and of the
same cell where the seed variance is pooled over four training sets. For information, the share of wrong answers where
the seeds are left out, as for these trained detectors alone.

Needs neither Ray nor MLflow; nothing is timed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.stats import norm

from analysis.intervals import Cell, average, difference
from analysis.seeds import Runs, added, pooled
from benchmarks.measure import Measured, Outcome, Target, say, time_is_up
from models.metrics import Answers

METRICS = ("auroc", "accuracy")
ONE, FOUR, WITHOUT = "one training set", "four training sets", "without the seeds"
MOST = 0.07
AUROC, NUM_SEEDS, CORRELATION = 0.9, 3, 0.5


@dataclass(frozen=True)
class Case:
    """Standard deviation of a run's AUROC by its seed, and the size of the test set."""

    deviation: float
    num_photographs: int

    def run(self, shared: np.ndarray, rng: np.random.Generator) -> Cell:
        """The scored images of one run.

        Args:
            shared: float64 (2, S), the part of the scores of real and fake images that all runs have.
            rng: of the run.
        """
        auroc = float(np.clip(AUROC + self.deviation * rng.standard_normal(), 0.5, 0.999))
        distance = np.sqrt(2) * norm.ppf(auroc)
        scores = shared + np.sqrt(1 - CORRELATION) * rng.standard_normal(shared.shape)
        scores[0] -= distance / 2
        scores[1] += distance / 2
        photographs, labels = np.tile(np.arange(self.num_photographs), 2), np.repeat([0, 1], self.num_photographs)
        return Cell(Answers.from_scores(labels, scores.ravel()), photographs, self.num_photographs)

    def shared(self, rng: np.random.Generator) -> np.ndarray:
        """The part of the scores that all runs have, float64 (2, S)."""
        both, own = rng.standard_normal(self.num_photographs), rng.standard_normal((2, self.num_photographs))
        parts: np.ndarray = np.sqrt(CORRELATION / 2) * both + np.sqrt(CORRELATION / 2) * own
        return parts

    def __str__(self) -> str:
        return f"deviation {self.deviation:g}, {self.num_photographs} photographs"


FULL = [Case(*case) for case in product((0.0, 0.02, 0.05), (100, 900))]
TOY = [Case(0.02, 25)]


def differences(case: Case, rng: np.random.Generator) -> dict[tuple[str, str], float]:
    """(metric, what is known of the seeds) -> the p value of one comparison."""
    shared = case.shared(rng)
    # two methods, four training sets, three seeds; the first training set is compared
    groups = [[[case.run(shared, rng) for _ in range(NUM_SEEDS)] for _ in range(4)] for _ in range(2)]
    found = {}
    for metric in METRICS:
        a, b = (average([cell.parts(metric) for cell in group[0]]) for group in groups)
        values = [[_values(runs, metric) for runs in group] for group in groups]
        for name, count in ((ONE, 1), (FOUR, 4)):
            spreads = [
                pooled(of_sets[:count]).of(mean, NUM_SEEDS).of_mean
                for of_sets, mean in zip(values, (a.value, b.value), strict=True)
            ]
            found[metric, name] = difference(a, b, added(spreads)).p
        found[metric, WITHOUT] = difference(a, b).p
    return found


def _values(runs: Sequence[Cell], metric: str) -> Runs:
    return {seed: {"cell": _value(run.answers, metric)} for seed, run in enumerate(runs)}


def _value(answers: Answers, metric: str) -> float:
    """The registered metric's value, faster: there are many runs, and half of the images are fakes without ties."""
    assert answers.scores is not None
    if metric == "accuracy":
        return float((answers.answered == answers.labels).mean())
    count = len(answers.labels) // 2
    ranks = np.empty(2 * count)
    ranks[np.argsort(answers.scores)] = np.arange(1, 2 * count + 1)
    return float((ranks[answers.labels == 1].sum() - count * (count + 1) / 2) / count**2)


def rejected(case: Case, num_draws: int, seed: int) -> dict[tuple[str, str], float]:
    """(metric, what is known of the seeds) -> the share of comparisons with p below .05."""
    rng, counts = np.random.default_rng(seed), defaultdict[tuple[str, str], int](int)
    for _ in range(num_draws):
        for what, p in differences(case, rng).items():
            counts[what] += p < 0.05
    return {what: count / num_draws for what, count in counts.items()}


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: at most .07 in all cases."""
    cases, num_draws = (TOY, 20) if toy else (FULL, 2000)
    most: dict[tuple[str, str], list[float]] = defaultdict(list)
    by_case: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for repeat in range(repeats):
        if repeat and time_is_up():
            break
        found = {case: rejected(case, num_draws, repeat) for case in cases}
        for what in product(METRICS, (ONE, FOUR, WITHOUT)):
            for case, shares in found.items():
                by_case[what][f"{case}, share"].append(shares[what])
            most[what].append(max(shares[what] for shares in found.values()))
        say(f"repeat {repeat + 1} of {repeats}: " + ", ".join(f"{name} {most[name][-1]:.3f}" for name in most))
    figures = {
        f"{metric}, {known}": Measured(
            f"share of comparisons of {metric} that call two groups of three seeds of one method different at .05, "
            f"{known}, the most of the cases",
            "ratio",
            values,
            None if known == WITHOUT else Target(MOST),
            by_case[metric, known],
        )
        for (metric, known), values in most.items()
    }
    return Outcome(f"{len(cases)} cases of {num_draws:,} comparisons each", figures)
