"""How long the tables take, and how much memory: 1,000 finished runs with 4,500 test scores each.

    python -m benchmarks.analysis_tables

Writes the runs into a temporary SQLite store as `grid.tracking` lays them out (minutes, not measured), then lets a new
process read them and make every table: accuracy and AUROC of every cell with 95 % intervals from 2,000 resamples,
attribution, one method against another, the published figures; as Markdown, LaTeX and CSV. Prints one JSON object.
Wanted: at most 60 s and 2 GB on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from grid import names
from grid.spec import DETECTION, TrialSpec, cross_generator_trials
from grid.trial import class_numbers, test_cells
from models.registry import resolve_config
from models.scoring import attribution_metrics

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = "dolos"
GENERATORS = ("lama", "ldm", "pluralistic", "repaint")
METHODS = ("xception_scratch", "xception_pretrained", "clip_linear", "sam_linear")
METRICS = ("accuracy", "auroc")
DIGEST = "0" * 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50, metavar="N", help="20 runs each; default: 50")
    parser.add_argument("--images", type=int, default=900, metavar="N", help="test images a class; default: 900")
    parser.add_argument("--measure", metavar="URI", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        uri, num_runs = write(Path(folder), options.seeds, options.images)
        command = [sys.executable, "-m", "benchmarks.analysis_tables", "--measure", uri]
        started = time.perf_counter()
        found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        seconds = time.perf_counter() - started
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("mlflow", "numpy", "pandas", "pyarrow", "matplotlib")},
        "runs": num_runs,
        "scores_each": options.images * (1 + len(GENERATORS)),
    }
    facts |= {"seconds": round(seconds, 2)} | json.loads(found.stdout.splitlines()[-1])
    print(json.dumps(facts, indent=2))
    return 0


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
            print(f"{number + 1} of {len(trials)} runs written", file=sys.stderr)
    return uri, len(trials)


def made(trial: TrialSpec, test: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """Scores of a trial and the figures that follow from them."""
    truth = class_numbers(test, trial)
    logits = np.random.default_rng(seed).normal(size=(len(test), len(trial.classes))).astype(np.float32)
    logits[np.arange(len(test)), truth] += 1
    columns = {f"logit_{name}": logits[:, place] for place, name in enumerate(trial.classes)}
    if trial.task == DETECTION:
        scores = test.assign(**columns, score=logits[:, 1] - logits[:, 0])
        return scores, {names.THRESHOLD: 0.1} | test_cells(scores, GENERATORS, 0.1)
    found = attribution_metrics(truth, logits, trial.classes)
    return test.assign(**columns), {names.test_metric(names.ALL, name): value for name, value in found.items()}


def measure(uri: str) -> dict[str, object]:
    """Every table of the store, in this process: seconds of each step after the imports, and peak memory."""
    from analysis.matrices import attribution_with_intervals, cell_table, compare, matrix_with_intervals
    from analysis.published import beside_published
    from analysis.store import open_store
    from analysis.tables import attribution_text, to_csv, to_latex, to_markdown

    started = time.perf_counter()
    steps: dict[str, float] = {}

    def done(step: str) -> None:
        steps[step] = round(time.perf_counter() - started - sum(steps.values()), 2)

    store = open_store(EXPERIMENT, tracking_uri=uri)
    done("open")
    cells = cell_table(store, metrics=METRICS)
    done("cells")
    matrices = [matrix_with_intervals(store, method, metric, cells=cells) for method in METHODS for metric in METRICS]
    tables = [
        *matrices,
        attribution_text(attribution_with_intervals(store, cells=cells)),
        beside_published(store, cells=cells),
    ]
    length = sum(len(form(table)) for table in tables for form in (to_markdown, to_latex, to_csv))
    done("tables")
    compare(store, METHODS[2], METHODS[1])
    done("compare")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "peak_rss_gb": round(peak / 1e9, 3),
        "steps": steps,
        "cells": len(cells),
        "characters": length,
    }


def machine() -> dict[str, object]:
    """What it ran on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}"}


if __name__ == "__main__":
    sys.exit(main())
