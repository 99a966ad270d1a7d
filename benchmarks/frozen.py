"""The whole frozen part of a grid, against one forward pass of each image, and against a loop that encodes every cell.

The frozen part of one method: trained on each of 4 generators, on all but each of them, and once as attribution, with 3
seeds: 27 trials, from an empty cache to every test score, computed in this process by the grid's own code. MLflow's
records are left out here (the benchmark `ray` has them). Its limit is the encoder alone: each image forwarded once,
from pixels that lie in memory at the encoder's size. Of features that tell nothing, as here, two of the five penalties
are tried; where it takes all five, fitting takes about three times as long.

The loop does what scripts of the field do: each cell decodes and encodes the images that it trains on and tests on,
then fits. One cell of each kind is timed in a repeat and counted as often as there are cells of its kind, which have
the same number of images; a script that encodes anew in every epoch, as some do, would take that many times longer.

Everything is held to one core and one thread, BLAS included, so that decoding beside the encoder has no core that the
limit has not.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.grids import TASKS, compute, fresh_settings, noise_manifest, prepare
from benchmarks.measure import Measured, Outcome, Target, interleave, ratios, say, timed
from data.images import decode
from grid.experiments import cross_generator_trials
from grid.plan import Work, distinct_inputs
from grid.spec import TrialSpec
from models.detector import DETECTION_CLASSES, BuildContext
from models.registry import create_detector, resolve_config

METHOD = "clip_linear"
SEEDS = (0, 1, 2)
BATCH = 32


@dataclass(frozen=True)
class Size:
    """The encoder (random weights), the side of the files in pixels, and images a class in each split."""

    backbone: str
    side: int
    counts: dict[str, int]


FULL = Size("ViT-B-32", 256, {"train": 30, "valid": 12, "test": 18})
TOY = Size("demo-vit-64", 64, {"train": 4, "valid": 2, "test": 2})


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: 1.10 times one forward pass, a tenth of the loop."""
    size = TOY if toy else FULL
    config = resolve_config(METHOD, {"backbone": size.backbone, "weights": "random"})
    with one_core(), threadpool_limits(1), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = noise_manifest(folder, size.counts, size.side)
        specs = list(
            cross_generator_trials(
                generators=manifest.generators,
                configs={METHOD: config},
                tasks=TASKS,
                seeds=SEEDS,
                data=manifest.digest,
                train_on="each,all-but-one",
            )
        )
        setup = (
            f"{METHOD} on {size.backbone}, random weights; {len(manifest.table)} images of {size.side} px; "
            f"{len(specs)} trials; one core"
        )
        say(setup)
        detector = create_detector(METHOD, config, BuildContext(DETECTION_CLASSES))
        encoder = detector.encoder
        assert encoder is not None
        pixels = detector.squares([decode(path) for path in manifest.paths(manifest.table)])
        encoder.encode(pixels[:BATCH])  # warms up
        numbers = count()

        def forward() -> float:
            return timed(
                lambda: [encoder.encode(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
            )

        def from_empty(some: list[TrialSpec]) -> list[float]:
            """Seconds of encoding what these trials share, then of each trial."""
            place = folder / f"grid{next(numbers)}"
            settings = fresh_settings(place, manifest)
            (inputs,) = distinct_inputs([Work(spec) for spec in some])
            seconds = [timed(lambda: prepare(inputs, settings))]
            seconds += [compute(spec, settings) for spec in some]
            shutil.rmtree(place)
            return seconds

        def loop_over_cells() -> list[float]:
            """Seconds of one cell of each kind, each from an empty cache, with what it needs and no more."""
            place = folder / f"loop{next(numbers)}"
            seconds = []
            for spec in one_of_each_kind(specs):
                seconds.append(compute(spec, fresh_settings(place, manifest)))
                shutil.rmtree(place)
            return seconds

        found = interleave(
            repeats, {"forward": lambda: [forward()], "grid": lambda: from_empty(specs), "loop": loop_over_cells}
        )
    once = [seconds[0] for seconds in found["forward"]]
    grid = [sum(seconds) for seconds in found["grid"]]
    kinds = [kind_of(spec) for spec in one_of_each_kind(specs)]
    weights = [sum(kind_of(spec) == kind for spec in specs) for kind in kinds]
    loop = [float(np.dot(seconds, weights)) for seconds in found["loop"]]
    encode = [seconds[0] for seconds in found["grid"]]
    trials = [sum(seconds[1:]) / len(specs) for seconds in found["grid"]]
    return Outcome(
        f"{setup}; of the loop one cell of each kind is timed and counted {', '.join(map(str, weights))} times",
        {
            "over one pass": Measured(
                f"frozen part of a grid over one forward pass of each image ({setup})",
                "ratio",
                ratios(grid, once),
                Target(1.10),
                {"one forward pass, s": once, "encode stage, s": encode, "each trial after it, s": trials},
            ),
            "encode stage": Measured(
                "its encode stage alone over one forward pass", "ratio", ratios(encode, once), parts={}
            ),
            "over the loop": Measured(
                "a loop that encodes in every cell over the frozen part of the grid",
                "ratio",
                ratios(loop, grid),
                Target(10.0, at_least=True),
                {"the loop, s": loop, "the grid, s": grid},
            ),
        },
    )


def kind_of(spec: TrialSpec) -> tuple[str, int]:
    """Trials of a kind train and test on the same number of images."""
    return spec.task, len(spec.train_generators)


def one_of_each_kind(specs: list[TrialSpec]) -> list[TrialSpec]:
    """The first of each."""
    return list({kind_of(spec): spec for spec in reversed(specs)}.values())


@contextmanager
def one_core() -> Iterator[None]:
    """One thread of torch, and where the system allows it one core for everything that this process does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if sys.platform != "linux":
        yield
    else:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cores)})
        try:
            yield
        finally:
            os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)
