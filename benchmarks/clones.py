"""Grids of any number of finished runs, each as large as one of the publication, written by the grid's own tracker.

Every run has what a trial leaves behind and a report reads: scores of 4,500 test images, embeddings, epochs, validation
scores with a temperature. The seeds and the learning rates differ, so that there are many methods, many seeds, or both.
The embeddings are as wide as those of CLIP where a report reads them: of each method's attribution run with the first
seed. Checkpoints are empty and there are no pictures, so Grad-CAM must be left out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.finished import THRESHOLD, made_up, open_grid
from benchmarks.grids import GENERATORS, TASKS, fresh_settings, paper_manifest
from benchmarks.measure import say
from data.manifest import Manifest
from grid import names
from grid.experiments import PUBLISHED, cross_generator_trials
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, get_task
from grid.tracking import Tracker
from grid.uris import STORE, sqlite_uri
from grid.validation import Validated
from models.calibration import Temperature
from models.registry import resolve_config

EXPERIMENT = "clones"
NUM_EPOCHS = 3
WIDTH, NARROW = 768, 8  # of embeddings that a report reads, and of those that it does not
_TRAINED = PUBLISHED[:2]


@dataclass(frozen=True)
class Shape:
    """How many runs a grid has, and of what; there are 5 training sets.

    Attributes:
        num_rates: learning rates of each method; each makes a variant of it.
        num_seeds: seeds of each variant.
        num_methods: the first so many methods.
    """

    num_rates: int
    num_seeds: int
    num_methods: int = len(PUBLISHED)

    @property
    def num_runs(self) -> int:
        """All runs."""
        return self.num_rates * self.num_seeds * self.num_methods * (len(GENERATORS) + 1)


def write(folder: Path, shapes: Sequence[Shape], *, num_images: int) -> dict[int, str]:
    """Number of runs -> tracking URI of a grid of them. The runs that two grids share are on the disk once.

    Args:
        folder: written to.
        shapes: the smallest first; each has all runs of the one before.
        num_images: of the data set, of which 30 % are tested on.
    """
    manifest = paper_manifest(folder, num_images)
    settings, written, stores = fresh_settings(folder, manifest), set[str](), dict[int, str]()
    for shape in shapes:
        trials = list_trials(manifest, shape)
        tracker = open_grid(settings, EXPERIMENT, manifest, trials)
        for trial in trials:
            if trial.key not in written:
                written.add(trial.key)
                record(tracker, trial, manifest, len(written))
                if len(written) % 100 == 0:
                    say(f"{len(written)} of {shapes[-1].num_runs} runs written")
        tracker.close_grid(complete=True)
        stores[len(trials)] = _copy(settings.runs, folder / str(len(trials)), tracker.parent_id)
    return stores


def list_trials(manifest: Manifest, shape: Shape) -> list[TrialSpec]:
    """The trials of such a grid."""
    return [
        trial
        for number in range(shape.num_rates)
        for trial in cross_generator_trials(
            generators=manifest.generators,
            configs={method: _config(method, number) for method in PUBLISHED[: shape.num_methods]},
            tasks=TASKS,
            seeds=range(shape.num_seeds),
            data=manifest.digest,
        )
    ]


def _config(method: str, number: int) -> dict[str, Any]:
    changes: dict[str, str | float] = {"learning_rate": 1e-4 * (number + 1)}
    return resolve_config(method, changes if method in _TRAINED else {**changes, "solver": "adam"})


def record(tracker: Tracker, trial: TrialSpec, manifest: Manifest, number: int) -> None:
    """Write one finished trial, as `grid.runner` does; its scores follow from the number."""
    run = tracker.open_trial(trial, {names.NODE: "here", names.GPU_SHARE: "0"})
    for epoch in range(1, NUM_EPOCHS + 1):
        epochs = {"train/loss": 1 / epoch, "valid/loss": 1.1 / epoch, "train/accuracy": 0.8, "valid/accuracy": 0.75}
        run.log_epoch(epoch, epochs)
    is_read = trial.task == ATTRIBUTION and trial.seed == 0
    scored, random = made_up(trial, manifest, number), np.random.default_rng(number)
    embeddings = random.normal(size=(len(scored.scores), WIDTH if is_read else NARROW)).astype(np.float16)
    metrics = {names.SECONDS: 1.0}
    validated = None
    if get_task(trial.task).is_binary:
        validated = _validated(manifest, random)
        metrics |= {names.THRESHOLD: THRESHOLD, **validated.metrics}
    tags = {names.DEVICE: "cpu", names.WEIGHTS: "made up", names.VALIDATED: "true", names.CALIBRATED: "true"}
    with tempfile.TemporaryDirectory() as empty:
        run.finish(replace(scored, embeddings=embeddings), metrics, tags, Path(empty), validated=validated)


def _validated(manifest: Manifest, random: np.random.Generator) -> Validated:
    rows = manifest.select("valid", manifest.generators)
    scores: pd.DataFrame = rows[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    scores = scores.assign(condition="clean", score=random.normal(2 * scores["label"] - 1, 2.0))
    temperature = Temperature(1.5, 0.08, 0.03, len(scores))
    metrics = {names.validation_metric(generator): 0.7 for generator in manifest.generators} | {
        names.TEMPERATURE: temperature.value,
        names.ECE_BEFORE: temperature.ece_before,
        names.ECE_AFTER: temperature.ece_after,
    }
    return Validated(metrics, scores, temperature)


def _copy(runs: Path, folder: Path, parent_id: str) -> str:
    """A copy of a store as it is now. Its trials' files are links: a finished trial's files never change."""

    def keep(source: str, target: str) -> object:
        return (shutil.copy2 if f"/{parent_id}/" in source or source.endswith(".db") else os.link)(source, target)

    shutil.copytree(runs, folder, copy_function=keep)
    return sqlite_uri(folder / STORE)
