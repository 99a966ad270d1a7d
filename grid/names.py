"""Names under which a grid is kept in MLflow: the one contract between what is written and what is read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from data.conditions import CLEAN

# Tags of every run.
ROLE = "grid.role"  # GRID_ROLE or TRIAL_ROLE
GRID_ROLE = "grid"
TRIAL_ROLE = "trial"
DATA = "grid.data"  # the manifest's digest
SOURCE = "grid.source"  # the corpus
SKIPPED = "grid.skipped_files"

# Who runs a grid, on its parent run. Parameters are written once and never changed, so that of two launches that name
# themselves with the same number MLflow refuses one.
LAUNCH = "launch/"  # parameter launch/1, launch/2, …: whose the grid was then, as JSON
HEARTBEAT = (
    "grid.heartbeat"  # tag: number of the newest launch, then seconds since 1970 of its last sign of life or "ended"
)

EXPERIMENT = "grid.experiment"  # in `grid.experiments`; the MLflow experiment may have another name
OPTIONS = "grid.options"  # of launch.py, as typed: those of the newest launch that the same grid needs again
DATA_OPTIONS = "grid.data_options"  # of grids from before there were the two above

# Tags of a trial's run.
KEY = "grid.key"  # the trial's identity
TASK = "grid.task"
METHOD = "grid.method"
TRAIN_GENERATORS = "grid.train_generators"  # a training set as text, see `grid.train_sets`
TRAIN_CONDITION = "grid.train_condition"  # absent: "clean"
CONDITIONS = "grid.conditions"  # besides "clean", joined by commas: scored under; on the grid's run, asked for
CONDITION_ERROR = "grid.condition_error"  # why a finished trial could not be scored under a condition
SEED = "grid.seed"
WEIGHTS = "grid.weights"  # where the backbone's weights come from, in words
DEVICE = "grid.device"
NODE = "grid.node"
GPU_SHARE = "grid.gpu_share"
BATCH_HALVED = "grid.batch_halved"  # "true": memory ran out, and training went on with two halves a batch
VERSIONS = "grid.versions"
ERROR = "grid.error"
GIT_CHANGED = "grid.git_changed"  # "true": the checkout differed from the commit
MLFLOW_VERSION = "grid.mlflow_version"

# MLflow's own.
PARENT_RUN = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
GIT_COMMIT = "mlflow.source.git.commit"
SOURCE_NAME = "mlflow.source.name"
USER = "mlflow.user"

# Metrics of a trial: `train/…` and `valid/…` over epochs, then once:
THRESHOLD = "valid/threshold"  # log-odds of fake, chosen on the trial's own validation split
SECONDS = "time/seconds"
# Only with local copies: what the trial itself copied to its node's disk; others may have copied the rest.
COPY_SECONDS = "copy/seconds"  # waiting for others included
COPIED_BYTES = "copy/bytes"


def check_generators(generators: Iterable[str]) -> None:
    """Raise `ValueError` for generators whose names MLflow could not hold in a metric's name, or that read as two."""
    bad = [name for name in generators if not re.fullmatch(r"[\w .:-]+", name, re.ASCII)]
    if bad:
        raise ValueError(
            f"rename these generators' folders: {', '.join(map(repr, bad))}; "
            "MLflow takes letters, digits, spaces and _ - . : in the names of metrics"
        )


def metric_name(tested_on: str, metric: str, condition: str = CLEAN) -> str:
    """`test/<tested on>/<metric>`, or `test.<condition>/…` for pictures that are not clean."""
    test = "test" if condition == CLEAN else f"test.{condition}"
    return f"{test}/{tested_on}/{metric}"


def parse_metric(name: str) -> tuple[str, str, str] | None:
    """(condition, tested on, metric) of a test metric; None for any other name."""
    where, _, rest = name.partition("/")
    test, dot, condition = where.partition(".")
    tested_on, slash, metric = rest.partition("/")
    if test != "test" or not slash or (dot and not condition):
        return None
    return condition or CLEAN, tested_on, metric


def condition_artifact(condition: str, name: str) -> str:
    """Where an artifact of a condition is kept: at the top for clean pictures, else `conditions/<condition>/…`."""
    return name if condition == CLEAN else f"{CONDITION_FOLDER}/{condition}/{name}"


# Artifacts of a trial's run.
SCORES = "scores.parquet"  # one row per unique test image
CONDITION_FOLDER = "conditions"  # below it, a folder with SCORES for each condition besides "clean"
EMBEDDINGS = "embeddings.npy"  # float16 (N, D), rows as in SCORES
CHECKPOINT = "checkpoint"  # folder, written by the detector
SPEC = "spec.json"
TRACEBACK = "traceback.txt"
WARNINGS = "warnings.txt"  # what the trial's process logged at that level; absent when nothing

# Artifacts of the grid's parent run.
REPORT = "report"  # folder: what `python -m analysis` made of the grid, index.html first
PLAN = "plan.json"  # every trial of the grid, finished or not
MANIFEST_SUMMARY = "manifest.txt"
NOTES = "notes.txt"  # what the newest launch found that a reader should know of the data set, a line each

# What may differ between the trials of two methods: its name in --set METHOD.NAME=VALUE -> field of `RunSettings`.
PER_METHOD = {
    "gpus": "gpus_per_trial",
    "memory": "memory_per_trial",
    "accelerator": "accelerator",
    "gpu_memory": "gpu_memory",
}
