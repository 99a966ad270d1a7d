"""How long a grid's tables take, and how much memory: 1,000 finished runs with 4,500 test scores each.

Writes the runs into a temporary SQLite store (minutes, not counted), then lets new processes read them and make the
figures: accuracy and AUROC of every cell, attribution included, with 95 % intervals from 2,000 resamples over source
images, and every matrix of them. Each process is timed from its start to its end.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.finished import finish
from benchmarks.grids import GENERATORS, TASKS, fresh_settings, paper_manifest
from benchmarks.measure import Measured, Outcome, Target, column, in_new_process, interleave, peak_resident
from grid.experiments import PUBLISHED, cross_generator_trials
from models.registry import resolve_config

EXPERIMENT = "dolos"
METHODS = PUBLISHED[:4]  # those of the publication
METRICS = ("accuracy", "auroc")


@dataclass(frozen=True)
class Size:
    """Seeds, of which each has 20 runs, and images of the data set, of which 30 % are tested on."""

    num_seeds: int
    num_images: int


FULL = Size(50, 15_000)
TOY = Size(1, 300)


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: 60 s and 2 GB."""
    size = TOY if toy else FULL
    with tempfile.TemporaryDirectory() as name:
        manifest = paper_manifest(Path(name), size.num_images)
        settings = fresh_settings(Path(name), manifest)
        configs = {method: resolve_config(method) for method in METHODS}
        seeds, data = range(size.num_seeds), manifest.digest
        trials = list(
            cross_generator_trials(generators=GENERATORS, configs=configs, tasks=TASKS, seeds=seeds, data=data)
        )
        finish(trials, manifest, settings, EXPERIMENT)

        def tables() -> dict[str, float]:
            started = time.perf_counter()
            arguments = {"uri": settings.tracking_uri}
            found: dict[str, float] = in_new_process("benchmarks.analysis_tables", "measure", arguments)
            return found | {"process": time.perf_counter() - started}

        found = interleave(repeats, {"tables": tables})["tables"]
    num_scores = len(manifest.select("test", manifest.generators))
    setup = f"{len(trials):,} runs with {num_scores:,} scores each, local store"
    steps = {f"{step}, s": column(found, step) for step in ("open", "cells", "matrices")}
    return Outcome(
        setup,
        {
            "time": Measured(
                f"cells and matrices with intervals ({setup})", "s", column(found, "process"), Target(60.0), steps
            ),
            "memory": Measured("peak memory of that process", "GB", column(found, "peak_gb"), Target(2.0)),
        },
    )


def measure(uri: str) -> dict[str, float]:
    """Every figure of the store, in this process: seconds of each step after the imports, and peak memory."""
    from analysis.cells import cell_table, matrix_with_intervals
    from analysis.store import open_store

    started = time.perf_counter()
    steps: dict[str, float] = {}

    def done(step: str) -> None:
        steps[step] = time.perf_counter() - started - sum(steps.values())

    store = open_store(EXPERIMENT, tracking_uri=uri)
    done("open")
    cells = cell_table(store, metrics=METRICS)
    done("cells")
    for method in METHODS:
        for metric in METRICS:
            matrix_with_intervals(store, method, metric, cells=cells)
    done("matrices")
    return steps | {"peak_gb": peak_resident() / 1e9}
