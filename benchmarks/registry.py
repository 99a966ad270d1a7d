"""Every benchmark: what it measures, against what, and where its code is. Reading this imports none of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from benchmarks.measure import Outcome

Run = Callable[..., Outcome]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        what: what is measured, against which anchor; one line.
        module: where its code is.
        function: (repeats, toy) -> Outcome; `toy` takes seconds and shows only that the code runs.
        needs_gpu: raises `NotHereError` on a machine without one, at its full size.
        page: where its figures stand, from the checkout; empty: in the table of docs/performance.md.
    """

    what: str
    module: str
    function: str = "run"
    needs_gpu: bool = False
    page: str = ""

    def load(self) -> Run:
        """The function; imports what it needs."""
        return cast(Run, getattr(importlib.import_module(self.module), self.function))


BENCHMARKS = {
    "training": Benchmark(
        "throughput of a training epoch from the pixel store, over the same epoch on synthetic tensors in memory (CPU)",
        "benchmarks.training",
        "run_on_cpu",
    ),
    "training-gpu": Benchmark(
        "the same on a GPU, xception41 at 299 px in bf16; needs neither Ray nor MLflow",
        "benchmarks.training",
        "run_on_gpu",
        needs_gpu=True,
    ),
    "frozen": Benchmark(
        "the whole frozen part of a grid, over one forward pass of each image, and over a loop that encodes every cell",
        "benchmarks.frozen",
    ),
    "conditions": Benchmark(
        "scoring 300 test images under a condition of each family, over as many forward passes of each image",
        "benchmarks.conditions",
    ),
    "ray": Benchmark(
        "wall clock of the demo grid under Ray, over the same trials' compute in plain processes on all cores",
        "benchmarks.ray_grid",
    ),
    "nodes": Benchmark(
        "wall clock of demo trials, and of trials that only sleep, on two Ray nodes of one core, over one such node",
        "benchmarks.nodes",
    ),
    "relaunch": Benchmark(
        "seconds of `launch.py` when there is nothing to run, and to print help", "benchmarks.relaunch"
    ),
    "memory": Benchmark(
        "peak resident memory and seconds of one trial as the data set grows from 1,000 to 100,000 images",
        "benchmarks.memory",
    ),
    "growth": Benchmark(
        "seconds and memory of one more trial when 16, 160 and 1,600 are finished; planning 10,000 trials",
        "benchmarks.growth",
    ),
    "scale-tracking": Benchmark(
        "seconds of `--status` and of a launch with nothing to run, with 100, 1,000 and 10,000 finished trials; of the "
        "look-up alone, beside one SQL join and MLflow's own search",
        "benchmarks.scale_tracking",
    ),
    "scale-ray": Benchmark(
        "milliseconds of a trial that does nothing under Ray Tune, among 5,000 trials over among 200",
        "benchmarks.scale_ray",
    ),
    "scale-data": Benchmark(
        "a launch on 100,000 unchanged files and their first reading, over plain loops",
        "benchmarks.scale_data",
    ),
    "scale-probe": Benchmark(
        "memory and time of a linear classifier on 100,000 rows of features, over scikit-learn",
        "benchmarks.scale_probe",
    ),
    "analysis": Benchmark(
        "seconds and memory of the tables with their intervals, of 1,000 runs with 4,500 test scores each",
        "benchmarks.analysis_tables",
    ),
    "report": Benchmark(
        "seconds of the demo's report with its pictures, without Grad-CAM: the first time, and again unchanged",
        "benchmarks.whole_report",
    ),
    "scale-report": Benchmark(
        "what the report of a large grid costs: 100, 300 and 1,000 runs, and a cell of 500,000 images",
        "benchmarks.scale",
    ),
    "explore": Benchmark(
        "seconds of a click on the page of `python -m analysis explore`, with 100,000 test images", "benchmarks.explore"
    ),
    "coverage": Benchmark(
        "share of the 95 % intervals that hold the truth, over simulated test sets",
        "benchmarks.coverage",
        page="docs/numbers.md",
    ),
    "controls": Benchmark(
        "share of null controls outside the 99 % interval around chance, simulated and on the demo",
        "benchmarks.controls",
        page="docs/believe/controls.md",
    ),
    "audit": Benchmark(
        "processor time that the audits of pixels add to the first reading of 500 and 10,000 images",
        "benchmarks.audit",
    ),
    "comparisons": Benchmark(
        "share of comparisons that call two groups of three seeds of one method different, simulated",
        "benchmarks.comparisons",
        page="docs/numbers.md",
    ),
    "seeds": Benchmark(
        "share of a held-out seed's values inside the prediction interval of one more run, and its width, on the demo",
        "benchmarks.seeds",
        page="docs/numbers.md",
    ),
    "abstain": Benchmark(
        "how often `predict` gives no verdict, on pictures like the training images and on those of other pipelines",
        "benchmarks.abstain",
        page="docs/believe/thresholds.md",
    ),
    "open-set": Benchmark(
        "left-out generators on which a distance from the training images beats the largest softmax; needs photographs",
        "benchmarks.open_set",
        page="docs/believe/open-set.md",
    ),
    "no-generator": Benchmark(
        "detection and maps of methods that never saw a generator, on the edits of four networks; needs photographs",
        "benchmarks.no_generator",
        page="docs/methods.md",
    ),
    "packing": Benchmark(
        "device memory of a trial of each method, and images per second of one to four trials at once on one GPU",
        "benchmarks.packing",
        needs_gpu=True,
        page="docs/performance.md",
    ),
    "cost": Benchmark(
        "arithmetic per image of each method, and what a CPU takes for it", "benchmarks.cost", page="docs/cost.md"
    ),
}
