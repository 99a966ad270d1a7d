"""Whether null controls are at chance: simulated test sets under three rules of shuffling, and trials on the demo.

A simulated photograph gives a real image and a fake. The detector cannot know the shuffled labels. Its scores are
normal, the two of a photograph correlate, and fakes lie apart from real images by a distance, as along any direction
that was learned from shuffled labels. Rules: `swap`, the one of `grid.tasks.shuffled_labels`: a coin per photograph
says whether its two images swap their labels; `per image`: a coin per image; `true labels`: only the training labels
are shuffled, so that the sign of the distance is a coin, alike for all photographs. Of each rule: the share of 99 %
intervals over photographs that leave out .5, and of `swap` the same for intervals over images, which take no notice
of photographs.

The trials: cheap methods, five seeds, both controls, on the demo's faces.

Needs neither Ray nor MLflow; nothing is timed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from analysis.controls import CHANCE, LEVEL, METRICS
from analysis.intervals import Cell, Sources, average
from benchmarks.grids import drawn_manifest, fresh_settings
from benchmarks.measure import Measured, Outcome, Target, say, time_is_up
from data.demo.recipe import DemoRecipe, make_demo
from data.manifest import Manifest, build_manifest
from grid.experiments import cross_generator_trials
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import get_task, list_controls
from grid.trial import fit, score
from models.detector import DETECTION_CLASSES, FitSession
from models.metrics import Answers
from models.registry import detector_info, resolve_config

SWAP, PER_IMAGE, TRUE_LABELS = "swap", "per image", "true labels"
RULES = (SWAP, PER_IMAGE, TRUE_LABELS)
OVER_IMAGES = "swap, intervals over images"
METHODS = ("clip_linear", "residual_linear", "sam_linear")
SEEDS = (0, 1, 2, 3, 4)
MOST = 0.02


@dataclass(frozen=True)
class Case:
    """One distribution of scores and the size of a test set."""

    num_photographs: int
    correlation: float
    distance: float

    def cell(self, rule: str, rng: np.random.Generator, *, over_images: bool = False) -> Cell:
        """A test set with labels by a rule."""
        count = self.num_photographs
        shared, own = rng.standard_normal(count), rng.standard_normal((2, count))
        scores = np.sqrt(self.correlation) * shared + np.sqrt(1 - self.correlation) * own
        sense = rng.choice([-1, 1]) if rule == TRUE_LABELS else 1
        scores += sense * self.distance * np.array([[-0.5], [0.5]])
        coins = rng.integers(0, 2, count)
        labels = {
            SWAP: np.stack([coins, 1 - coins]),
            PER_IMAGE: rng.integers(0, 2, (2, count)),
            TRUE_LABELS: np.repeat([[0], [1]], count, axis=1),
        }[rule]
        units = np.arange(2 * count) if over_images else np.tile(np.arange(count), 2)
        return Cell(Answers.from_scores(labels.ravel(), scores.ravel()), units, int(units.max()) + 1)

    def __str__(self) -> str:
        return f"{self.num_photographs} photographs, correlation {self.correlation:g}, distance {self.distance:g}"


FULL = [
    Case(count, *kind) for count, kind in product((25, 100, 900), ((0.0, 0.0), (0.95, 0.0), (0.5, 4.0), (0.0, 1.0)))
]
TOY = [Case(25, 0.5, 4.0)]


def is_outside(cell: Cell, metric: str) -> bool:
    """Whether chance is outside the 99 % interval."""
    low, high = average([cell.parts(metric)], level=LEVEL).interval
    return not low <= CHANCE <= high


def share_outside(case: Case, rule: str, num_draws: int, seed: int, *, over_images: bool = False) -> float:
    """The share of intervals without .5, of the metric where it is larger."""
    rng, counts = np.random.default_rng(seed), dict.fromkeys(METRICS, 0)
    for _ in range(num_draws):
        cell = case.cell(rule, rng, over_images=over_images)
        for metric in METRICS:
            counts[metric] += is_outside(cell, metric)
    return max(counts.values()) / num_draws


def toy_manifest(folder: Path) -> Manifest:
    """A few of the demo's faces: enough that each class of a control has one."""
    recipe = DemoRecipe(size=64, train=8, valid=6, test=8, version=1)
    return build_manifest("demo1", make_demo(folder / "demo", recipe), cache=folder / "facts")


def control_trials(manifest: Manifest, methods: Sequence[str], seeds: Sequence[int]) -> list[TrialSpec]:
    """Both controls of these methods in their small form."""
    configs = {method: resolve_config(method, detector_info(method).small) for method in methods}
    return list(
        cross_generator_trials(
            generators=manifest.generators, configs=configs, tasks=list_controls(), seeds=seeds, data=manifest.digest
        )
    )


def outcomes(spec: TrialSpec, settings: RunSettings) -> list[bool]:
    """Run a trial; for each cell and metric, whether chance is outside the interval."""
    with TemporaryDirectory() as folder:
        fitted = fit(spec, settings, FitSession(), device="cpu", checkpoint_to=Path(folder))
    scores = score(spec, fitted.detector, settings, threshold=fitted.threshold).scores
    task, sources = get_task(spec.task, spec.seed), Sources([scores])
    numbers = task.class_numbers(scores, DETECTION_CLASSES)
    return [
        is_outside(sources.cell(scores[images], numbers[images]), metric)
        for images in task.cells(scores, DETECTION_CLASSES).values()
        for metric in METRICS
    ]


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: at most 2 of 100 outside, by simulation for the rule in use, and on the demo pooled over all cells.

    The trials do not repeat: each repeat has five seeds of its own.
    """
    cases, num_draws, num_compared = (TOY, 20, 20) if toy else (FULL, 1000, 200)
    methods, seeds = (METHODS[1:2], SEEDS[:1]) if toy else (METHODS, SEEDS)
    shares: dict[str, list[float]] = defaultdict(list)
    by_case: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    outside: dict[str, list[float]] = defaultdict(list)
    with TemporaryDirectory() as folder:
        manifest = toy_manifest(Path(folder)) if toy else drawn_manifest(Path(folder), toy=False)
        settings = fresh_settings(Path(folder) / "grid", manifest)
        for repeat in range(repeats):
            if repeat and time_is_up():
                break
            for name in (*RULES, OVER_IMAGES):
                rule = SWAP if name == OVER_IMAGES else name
                found = {
                    case: share_outside(
                        case, rule, num_draws if name == SWAP else num_compared, repeat, over_images=name == OVER_IMAGES
                    )
                    for case in cases
                }
                for case, share in found.items():
                    by_case[name][f"{case}, share"].append(share)
                shares[name].append(max(found.values()))
            own = [seed + repeat * len(seeds) for seed in seeds]
            pooled: dict[str, list[bool]] = defaultdict(list)
            for spec in control_trials(manifest, methods, own):
                pooled[spec.task] += outcomes(spec, settings)
            for task, values in pooled.items():
                outside[task].append(float(np.mean(values)))
            everything = [value for values in pooled.values() for value in values]
            outside["all"].append(float(np.mean(everything)))
            say(f"repeat {repeat + 1}: {sum(everything)} of {len(everything)} outside; " + str(dict(shares)))
    figures = {
        name: Measured(
            f"share of 99 % intervals that leave out .5, the largest of the cases: {name}",
            "ratio",
            values,
            Target(MOST) if name == SWAP else None,
            by_case[name],
        )
        for name, values in shares.items()
    }
    parts = {f"{task}, share": values for task, values in outside.items() if task != "all"}
    what = f"share of values of both controls outside the 99 % interval, on the demo ({', '.join(methods)})"
    figures["demo"] = Measured(what, "ratio", outside["all"], Target(MOST), parts)
    drawn = f"{len(cases)} cases of {num_draws:,} test sets ({num_compared} of other rules)"
    setup = f"{drawn}; {len(methods)} methods, {len(seeds)} seeds per repeat"
    return Outcome(setup, figures)
