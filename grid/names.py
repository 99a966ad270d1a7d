"""Names under which a grid is kept in MLflow: the one contract between what is written and what is read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

SQLITE = "sqlite:///"  # before the path of a local store, in a tracking URI

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

DATA_OPTIONS = "grid.data_options"  # of launch.py, that made the data set what it is: "--limit 16"

# Tags of a trial's run.
KEY = "grid.key"  # the trial's identity
TASK = "grid.task"
METHOD = "grid.method"
TRAIN_GENERATORS = "grid.train_generators"  # joined by LIST_SEPARATOR
SEED = "grid.seed"
WEIGHTS = "grid.weights"  # where the backbone's weights come from, in words
DEVICE = "grid.device"
PRECISION = "grid.precision"
NODE = "grid.node"
GPU_SHARE = "grid.gpu_share"
BATCH_HALVED = "grid.batch_halved"  # "true": memory ran out, and training went on with two halves a batch
VERSIONS = "grid.versions"
ERROR = "grid.error"
GIT_CHANGED = "grid.git_changed"  # "true": the checkout differed from the commit
MLFLOW_VERSION = "grid.mlflow_version"
LIST_SEPARATOR = "+"

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


def without_password(uri: str) -> str:
    """A tracking URI for people to read, without the user's name and password that may be in it."""
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return uri.replace(f"{user}{at}", "", 1) if at else uri


def check_generators(generators: Iterable[str]) -> None:
    """Raise `ValueError` for generators whose names MLflow could not hold in a metric's name, or that read as two."""
    bad = [name for name in generators if not re.fullmatch(r"[\w .:-]+", name, re.ASCII)]
    if bad:
        raise ValueError(
            f"rename these generators' folders: {', '.join(map(repr, bad))}; "
            "MLflow takes letters, digits, spaces and _ - . : in the names of metrics"
        )


def metric_name(generator: str, metric: str) -> str:
    """`test/<generator>/<metric>`; generator "all" for attribution's five-class figures."""
    return f"test/{generator}/{metric}"


ALL = "all"

# Artifacts of a trial's run.
SCORES = "scores.parquet"  # one row a unique test image
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
