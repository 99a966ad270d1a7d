"""Records of finished trials that never ran: written by the grid's own tracker, with random scores."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.grids import demo_trials, drawn_manifest, fresh_settings
from benchmarks.measure import say
from data.conditions import CLEAN
from data.manifest import Manifest
from grid import names, tracking
from grid.experiments import PUBLISHED
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import get_task
from grid.trial import Scored
from models.detector import fake_scores

THRESHOLD = 0.1


def open_grid(
    settings: RunSettings, experiment: str, manifest: Manifest, trials: Sequence[TrialSpec]
) -> tracking.Tracker:
    """A grid in a store that nobody else has, as a launch opens it."""
    tracker = tracking.find_grid(settings.tracking_uri, experiment, manifest, settings.runs / "artifacts")
    tracker.record_launch(manifest, trials)
    return tracker


def finish(trials: Sequence[TrialSpec], manifest: Manifest, settings: RunSettings, experiment: str) -> None:
    """Write a whole grid as if it had run."""
    tracker = open_grid(settings, experiment, manifest, trials)
    for number, trial in enumerate(trials, start=1):
        record(tracker, trial, manifest, number)
        if number % 100 == 0:
            say(f"{number} of {len(trials)} runs written")
    tracker.close_grid(complete=True)


def finished_demo(folder: Path, *, toy: bool) -> tuple[RunSettings, Manifest, list[TrialSpec]]:
    """The first demo, drawn below a folder, with a finished grid of the published methods; a toy has one method."""
    manifest = drawn_manifest(folder / "drawn", toy=toy)
    settings = fresh_settings(folder, manifest)
    trials = demo_trials(manifest, ("residual_linear",) if toy else PUBLISHED)
    finish(trials, manifest, settings, "demo1")
    return settings, manifest, trials


def record(tracker: tracking.Tracker, trial: TrialSpec, manifest: Manifest, seed: int) -> None:
    """Write one finished trial, as `grid.runner` does; its checkpoint is empty."""
    run = tracker.open_trial(trial, {names.NODE: "here", names.GPU_SHARE: "0"})
    run.log_epoch(1, {"train/loss": 0.5, "valid/loss": 0.5, "train/accuracy": 0.8, "valid/accuracy": 0.8})
    threshold = {names.THRESHOLD: THRESHOLD} if get_task(trial.task).is_binary else {}
    tags = {names.DEVICE: "cpu", names.WEIGHTS: "made up", names.VALIDATED: names.NEVER}
    with tempfile.TemporaryDirectory() as empty:
        run.finish(made_up(trial, manifest, seed), {names.SECONDS: 1.0} | threshold, tags, Path(empty))


def made_up(trial: TrialSpec, manifest: Manifest, seed: int) -> Scored:
    """Random scores of the test split, with the metrics that follow from them."""
    task, test = get_task(trial.task, trial.seed), manifest.select("test", manifest.generators)
    random = np.random.default_rng(seed)
    logits = random.normal(size=(len(test), len(trial.classes))).astype(np.float32)
    logits[np.arange(len(test)), task.class_numbers(test, trial.classes)] += 1
    scores = test[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    scores = scores.assign(condition=CLEAN, **{f"logit_{name}": logits[:, i] for i, name in enumerate(trial.classes)})
    if task.is_binary:
        scores["score"] = fake_scores(logits)
    measured = task.measure(scores, logits, trial.classes, THRESHOLD if task.is_binary else None)
    metrics = {
        names.metric_name(tested_on, metric): value
        for tested_on, values in measured.items()
        for metric, value in values.items()
    }
    return Scored(CLEAN, metrics, scores, random.normal(size=(len(test), 8)).astype(np.float16))
