"""How long a grid's tables take, and how much memory: 1,000 finished runs with 4,500 test scores each.

Writes the runs into a temporary SQLite store as `grid.tracking` lays them out (minutes, not counted), then lets new
processes read them and make the figures: accuracy and AUROC of every cell, attribution included, with 95 % intervals
from 2,000 resamples over source images, and every matrix of them. Each process is timed from its start to its end.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from benchmarks.measure import Figure, Outcome, Target, in_new_process, interleave, peak_resident, say
from grid import names
from grid.spec import DETECTION, TrialSpec, cross_generator_trials
from grid.trial import class_numbers, detection_cells
from models.registry import resolve_config
from models.scoring import attribution_metrics

EXPERIMENT = "dolos"
GENERATORS = ("lama", "ldm", "pluralistic", "repaint")
METHODS = ("xception_scratch", "xception_pretrained", "clip_linear", "sam_linear")
METRICS = ("accuracy", "auroc")
DIGEST = "0" * 16


@dataclass(frozen=True)
class Size:
    """Seeds, of which each has 20 runs, and test images of each of the five classes."""

    num_seeds: int
    num_images: int


FULL = Size(50, 900)
TOY = Size(1, 20)


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: 60 s and 2 GB."""
    size = TOY if toy else FULL
    with tempfile.TemporaryDirectory() as folder:
        uri, num_runs = write(Path(folder), size.num_seeds, size.num_images)

        def tables() -> dict[str, float]:
            started = time.perf_counter()
            found: dict[str, float] = in_new_process("benchmarks.analysis_tables", "measure", {"uri": uri})
            return found | {"process": time.perf_counter() - started}

        found = interleave(repeats, {"tables": tables})["tables"]
    setup = f"{num_runs:,} runs with {size.num_images * (1 + len(GENERATORS)):,} scores each, local store"
    steps = {f"{step}, s": [one[step] for one in found] for step in ("open", "cells", "matrices")}
    return Outcome(
        setup,
        {
            "time": Figure(
                f"cells and matrices with intervals ({setup})", "s", [f["process"] for f in found], Target(60.0), steps
            ),
            "memory": Figure("peak memory of that process", "GB", [f["peak_gb"] for f in found], Target(2.0)),
        },
    )


def write(folder: Path, num_seeds: int, num_images: int) -> tuple[str, int]:
    """Finished runs in a new store: its tracking URI, and how many there are."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    experiment_id = client.create_experiment(EXPERIMENT, artifact_location=(folder / "artifacts").as_uri())
    tags = {names.ROLE: names.GRID_ROLE, names.DATA: DIGEST, names.SOURCE: "dolos"}
    parent_id = client.create_run(experiment_id, tags=tags, run_name=f"{EXPERIMENT} on {DIGEST}").info.run_id
    configs = {method: resolve_config(method) for method in METHODS}
    trials = list(
        cross_generator_trials(
            generators=GENERATORS,
            configs=configs,
            tasks=("detection", "attribution"),
            seeds=range(num_seeds),
            data=DIGEST,
        )
    )
    plan = {"trials": [trial.to_dict() | {"key": trial.key} for trial in trials]}
    client.log_dict(parent_id, plan, names.PLAN)
    test = pd.DataFrame(
        [
            (f"{name}/{number:05d}.png", f"{place:02d}{number:062d}", f"{number:05d}", name, int(name != "real"))
            for place, name in enumerate(("real", *GENERATORS))
            for number in range(num_images)
        ],
        columns=["path", "digest", "source_id", "generator", "label"],
    )
    for number, trial in enumerate(trials):
        scores, metrics = made(trial, test, number)
        trial_tags = {
            names.ROLE: names.TRIAL_ROLE,
            names.PARENT_RUN: parent_id,
            names.KEY: trial.key,
            names.TASK: trial.task,
            names.METHOD: trial.method,
            names.TRAIN_GENERATORS: names.LIST_SEPARATOR.join(trial.train_generators),
            names.SEED: str(trial.seed),
            names.DATA: DIGEST,
        }
        run = client.create_run(experiment_id, tags=trial_tags, run_name=trial.name)
        now = int(time.time() * 1000)
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
            params=[Param(name, str(value)) for name, value in trial.params().items()],
            tags=[RunTag(names.WEIGHTS, "made up"), RunTag(names.DEVICE, "cpu")],
        )
        place = folder / "artifacts" / run.info.run_id / "artifacts"
        place.mkdir(parents=True)
        scores.to_parquet(place / names.SCORES, index=False)
        client.set_terminated(run.info.run_id, "FINISHED")
        if number % 100 == 99:
            say(f"{number + 1} of {len(trials)} runs written")
    return uri, len(trials)


def made(trial: TrialSpec, test: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """Scores of a trial and the figures that follow from them."""
    truth = class_numbers(test, trial)
    logits = np.random.default_rng(seed).normal(size=(len(test), len(trial.classes))).astype(np.float32)
    logits[np.arange(len(test)), truth] += 1
    columns = {f"logit_{name}": logits[:, place] for place, name in enumerate(trial.classes)}
    if trial.task == DETECTION:
        scores = test.assign(**columns, score=logits[:, 1] - logits[:, 0])
        return scores, {names.THRESHOLD: 0.1} | detection_cells(scores, GENERATORS, 0.1)
    found = attribution_metrics(truth, logits, trial.classes)
    return test.assign(**columns), {names.metric_name(names.ALL, name): value for name, value in found.items()}


def measure(uri: str) -> dict[str, float]:
    """Every figure of the store, in this process: seconds of each step after the imports, and peak memory."""
    from analysis.matrices import cell_table, matrix_with_intervals
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
