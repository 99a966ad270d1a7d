"""Names of tags, parameters, metrics and artifacts in MLflow, for the code that writes and the code that reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from data.conditions import CLEAN
from data.sources.base import UNNAMEABLE

# Tags of every run.
ROLE = "grid.role"  # GRID_ROLE or TRIAL_ROLE
GRID_ROLE = "grid"
TRIAL_ROLE = "trial"
DATA = "grid.data"  # digest of the manifest
SOURCE = "grid.source"  # the corpus
SKIPPED = "grid.skipped_files"
TEST_IMAGES = "grid.test_images"  # of the grid's run: number of test images, and a hash of them (`data.manifest`)

# Parameters launch/1, launch/2, … of the grid's run: user, machine and process of each launch, as JSON. MLflow never
# changes a parameter: if two launches write the same number, it refuses one of them.
LAUNCH = "launch/"
# Tag: number of the newest launch, then its last sign of life or "ended". A sign is another text each time.
HEARTBEAT = "grid.heartbeat"

EXPERIMENT = "grid.experiment"  # name in `grid.experiments`; the MLflow experiment may have another name
OPTIONS = "grid.options"  # options of the newest launch that another launch of the same grid needs, as typed
LAUNCH_FILE = "grid.launch_file"  # the newest launch as a file for --config
DATA_OPTIONS = "grid.data_options"  # the only one of these two tags on grids from before EXPERIMENT and OPTIONS

# Tags of a trial's run.
KEY = "grid.key"  # the trial's identity
TASK = "grid.task"
METHOD = "grid.method"
TRAIN_GENERATORS = "grid.train_generators"  # a training set as text, see `grid.train_sets`
TRAIN_CONDITION = "grid.train_condition"  # absent: "clean"
EQUAL_SIZE = "grid.equal_size"  # images of each class in training and validation, "24,8"; absent: all images
CONDITIONS = "grid.conditions"  # joined by commas, without "clean": a trial was scored under them, a grid asks for them
CONDITION_ERROR = "grid.condition_error"  # why a finished trial could not be scored under a condition
SEED = "grid.seed"
CONTROL = "grid.control"  # "control" or "reference", see `grid.controls`; absent on all other trials
WEIGHTS = "grid.weights"  # source of the backbone's weights, in words
DEVICE = "grid.device"
NODE = "grid.node"
GPU_SHARE = "grid.gpu_share"
ON_VALIDATION = "validation"  # stands before an error on the validation images, in the place of a condition
# "true": the validation images of all generators are scored; NEVER: they cannot be; absent on older runs
VALIDATED = "grid.validated"
NEVER = "never: the checkpoint is lost"
# "true": the run keeps its validation scores, a temperature and what its pictures are like; absent on older runs
CALIBRATED = "grid.calibrated"
EMBEDDED = "grid.embedded"  # of how many test images embeddings are kept; absent: of all
BATCH_HALVED = "grid.batch_halved"  # "true": GPU memory ran out, and training went on with two halves per batch
VERSIONS = "grid.versions"
ERROR = "grid.error"
GIT_CHANGED = "grid.git_changed"  # "true": the checkout differed from the commit
MLFLOW_VERSION = "grid.mlflow_version"

# Tags that MLflow defines.
PARENT_RUN = "mlflow.parentRunId"
GIT_COMMIT = "mlflow.source.git.commit"
SOURCE_NAME = "mlflow.source.name"
USER = "mlflow.user"
DESCRIPTION = "mlflow.note.content"  # Markdown on the run's page

# Metrics of a trial: `train/…` and `valid/…` per epoch, then once:
THRESHOLD = "valid/threshold"  # log-odds of fake, chosen on the trial's validation split
VALIDATION = "valid."  # how metrics on the validation images of each generator begin, see `validation_metric`
SECONDS = "time/seconds"
CALIBRATION_METRICS = "calibration/"  # how the next three begin; on the trial's own validation images
TEMPERATURE = "calibration/temperature"
ECE_BEFORE = "calibration/ece_before"  # expected calibration error
ECE_AFTER = "calibration/ece_after"  # with the temperature
MAPS = "maps/"  # how metrics of a detector's own maps begin, see `map_metric`
SUMMARY = "summary/"  # how means over cells begin, see `summary_metric`
# Only with --local-copies: what this trial copied to its node's disk. Other trials may have copied the rest.
COPY_SECONDS = "copy/seconds"  # includes waiting for other trials
COPIED_BYTES = "copy/bytes"

# How a data set of an experiment can be asked for, as typed; see `grid.datasets`.
DATA_WORDS = (
    "limit=20, limit=none, images=540, date=2026-11-24, generators=A+B, several of these joined by commas, or the "
    "beginning of its digest"
)


def check_generators(generators: Iterable[str]) -> None:
    """Raise `ValueError` for generators whose names MLflow refuses in a metric's name, or that read as two names."""
    bad = [name for name in generators if name in ("", ".", "..") or UNNAMEABLE.search(name)]
    if bad:
        raise ValueError(
            f"rename these generators' folders: {', '.join(map(repr, bad))}; "
            "MLflow takes letters, digits, spaces and _ - . : in the names of metrics, and neither . nor .. alone"
        )


def metric_name(tested_on: str, metric: str, condition: str = CLEAN) -> str:
    """`test/<tested on>/<metric>`; `test.<condition>/<tested on>/<metric>` for a condition other than "clean"."""
    test = "test" if condition == CLEAN else f"test.{condition}"
    return f"{test}/{tested_on}/{metric}"


@lru_cache(maxsize=2**16)  # the runs of a grid share their names
def parse_metric(name: str) -> tuple[str, str, str] | None:
    """(condition, tested on, metric) of a test metric; None for any other name."""
    match = re.fullmatch(r"test(?:\.([^/]+))?/([^/]*)/(.*)", name)
    return (match[1] or CLEAN, match[2], match[3]) if match else None


def validation_metric(generator: str) -> str:
    """`valid.<generator>/auroc`: on the validation images of a generator, whatever the trial was trained on."""
    return f"{VALIDATION}{generator}/auroc"


def parse_validation_metric(name: str) -> str | None:
    """The generator of a name from `validation_metric`; None for any other name."""
    match = re.fullmatch(rf"{re.escape(VALIDATION)}(.*)/auroc", name)
    return match[1] if match else None


def map_metric(generator: str, metric: str) -> str:
    """`maps/<generator>/<metric>`: of a detector's own maps, beside the masks of a generator's test fakes."""
    return f"{MAPS}{generator}/{metric}"


def summary_metric(kind: str, metric: str, variant: str = "") -> str:
    """`summary/in-domain/auroc` of a trial; with the variant of a method before the kind, in the grid's run.

    Args:
        kind: a mean of `grid.means`.
        metric: name of a metric.
        variant: name of a variant; marks that MLflow refuses in the name of a metric become spaces.
    """
    method = " ".join(UNNAMEABLE.sub(" ", variant).split())
    return "/".join(filter(None, (SUMMARY.rstrip("/"), method, kind.removesuffix(" mean"), metric)))


def condition_artifact(condition: str, name: str) -> str:
    """The artifact's path: `name` for clean pictures, else `conditions/<condition>/<name>`."""
    return name if condition == CLEAN else f"conditions/{condition}/{name}"


# Artifacts of a trial's run.
SCORES = "scores.parquet"  # one row per unique test image; one file per condition
EMBEDDINGS = "embeddings.npy"  # float16 (N, D), rows as in SCORES, or (M, D): those of EMBEDDED_ROWS
EMBEDDED_ROWS = "embeddings-rows.npy"  # int (M,), rows of SCORES; only where a trial keeps a sample
CHECKPOINT = "checkpoint"  # folder, written by the detector
KNOWN_CLASSES = "known.npz"  # in CHECKPOINT, for a task with images of no class: training embeddings of the classes
VALIDATION_FOLDER = "validation"
VALIDATION_SCORES = "validation/scores.parquet"  # one row per validation image of every generator
CALIBRATION = "validation/calibration.json"  # the temperature, and facts of each look
LOCALISATION = "maps/localisation.parquet"  # one row per test fake with a mask; absent for a method without maps
LOCALISATION_FACTS = "maps/localisation.json"  # thresholds, and the fakes that were left out
FACTS = "facts.json"  # of the scores under a condition: device, node, versions and warnings
SPEC = "spec.json"
TRACEBACK = "traceback.txt"
WARNINGS = "warnings.txt"  # warnings that the trial logged; absent if there are none

PREVIEW = "preview"  # folder of pictures that the UI shows: cells, ROC curves, the worst mistakes, confusion

# Artifacts of the grid's parent run.
REPORT = "report"  # folder: the report of `python -m analysis`, with index.html
PLAN = "plan.json"  # every trial of the grid, finished or not
MANIFEST_SUMMARY = "manifest.txt"
AUDIT = "audit.json"  # the verdict of the newest launch's audits, see `data.verdict`; absent on older grids
AREAS = "edited_areas.json"  # digest of each test fake that has a mask -> the share of the mask that is fake
REFERENCES = "references.json"  # references that need no pictures, and the name of the file with their scores
NOTES = "notes.txt"  # remarks of the newest launch on the data set, one per line

# Settings that may differ between methods: name in --set METHOD.NAME=VALUE -> field of `RunSettings`.
PER_METHOD = {
    "gpus": "gpus_per_trial",
    "memory": "memory_per_trial",
    "accelerator": "accelerator",
    "gpu_memory": "gpu_memory",
}

# Two looks at a picture say whether it is like the training images: by the detector's own embedding, and by statistics
# of its residuals (`models.residuals`), which show how a photograph was processed and which no training has changed.
OWN_LOOK, RESIDUAL_LOOK = "embeddings", "residuals"
LOOKS = (OWN_LOOK, RESIDUAL_LOOK)


def novelty_artifact(look: str) -> str:
    """The artifact of one of `LOOKS`: what the embeddings of training images are like."""
    return f"{VALIDATION_FOLDER}/novelty-{look}.npz"
