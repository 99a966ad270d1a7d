"""Seconds of the command line when there is nothing to run: the second launch of a finished grid, its plan, its help.

The grid is the built-in demo's, 25 trials, with all its images drawn and read once. It is finished because records
like those of finished trials were written; the launcher cannot tell. Every launch is a new process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.grids import drawn_manifest
from benchmarks.measure import ROOT, Figure, Outcome, Target, interleave, timed
from data.manifest import Manifest
from grid import names, tracking
from grid.experiments import demo
from grid.spec import DETECTION, TASKS, TrialSpec
from grid.trial import TrialResult, class_numbers, detection_cells
from models.detector import fake_scores
from models.registry import resolve_config
from models.scoring import attribution_metrics


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: 10 s for the launch, 3 s for the plan, 0.5 s for the help."""
    methods = {"residual_linear": demo.METHODS["residual_linear"]} if toy else demo.METHODS
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name)
        manifest = drawn_manifest(runs / "drawn", toy=toy)
        configs = {method: resolve_config(method, overrides) for method, overrides in methods.items()}
        trials = list(
            demo.trials(generators=manifest.generators, configs=configs, tasks=TASKS, seeds=(0,), data=manifest.digest)
        )
        finish(trials, manifest, runs, "demo")
        chosen = ["demo", f"--data={manifest.root}", f"--runs={runs}", f"--methods={','.join(methods)}"]
        launch(chosen)  # the manifest of the launcher's own cache

        found = interleave(
            repeats,
            {
                "launch": lambda: timed(lambda: _expect("nothing to run", launch(chosen))),
                "plan": lambda: timed(lambda: _expect("0 to run", launch([*chosen, "--plan"]))),
                "help": lambda: timed(lambda: _expect("usage", launch(["--help"]))),
            },
        )
    setup = f"demo grid of {len(trials)} finished trials on {len(manifest.table)} images, local store"
    return Outcome(
        setup,
        {
            "launch": Figure(f"second launch of a finished grid ({setup})", "s", found["launch"], Target(10.0)),
            "plan": Figure("`launch.py --plan` of the same", "s", found["plan"], Target(3.0)),
            "help": Figure("`launch.py --help`", "s", found["help"], Target(0.5)),
        },
    )


def launch(options: Sequence[str]) -> str:
    """What `launch.py` prints. Raises `RuntimeError` where it fails."""
    command = [sys.executable, "launch.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"launch.py failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _expect(words: str, output: str) -> None:
    if words not in output:
        raise RuntimeError(f"expected {words!r} of launch.py, got:\n{output[-2000:]}")


def finish(trials: Sequence[TrialSpec], manifest: Manifest, runs: Path, experiment: str) -> tracking.Tracker:
    """Records of these trials as if they had run, in a local store below `runs`: the tracker that wrote them."""
    runs.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{runs / 'mlflow.db'}"
    tracker = tracking.open_grid(uri, experiment, manifest, trials, runs / "artifacts")
    for number, trial in enumerate(trials):
        record(tracker, trial, made_up(trial, manifest, number))
    tracker.close_grid(complete=True)
    return tracker


def record(tracker: tracking.Tracker, trial: TrialSpec, result: TrialResult) -> None:
    """One trial's whole record, as `grid.runner` writes it."""
    opened = tracker.open_trial(trial, {names.NODE: "here", names.GPU_SHARE: "0"})
    opened.log_epoch(1, {"train/loss": 0.5, "valid/loss": 0.5, "train/accuracy": 0.8, "valid/accuracy": 0.8})
    with tempfile.TemporaryDirectory() as empty:
        opened.finish(result, Path(empty))


def made_up(trial: TrialSpec, manifest: Manifest, seed: int) -> TrialResult:
    """Random scores, with the figures that follow from them."""
    test = manifest.select("test", manifest.generators)
    random = np.random.default_rng(seed)
    truth = class_numbers(test, trial)
    logits = random.normal(size=(len(test), len(trial.classes))).astype(np.float32)
    logits[np.arange(len(test)), truth] += 1
    scores = test[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    scores = scores.assign(**{f"logit_{name}": logits[:, place] for place, name in enumerate(trial.classes)})
    metrics = {names.SECONDS: 1.0}
    if trial.task == DETECTION:
        scores = scores.assign(score=fake_scores(logits))
        metrics |= {names.THRESHOLD: 0.1} | detection_cells(scores, manifest.generators, 0.1)
    else:
        found = attribution_metrics(truth, logits, trial.classes)
        metrics |= {names.metric_name(names.ALL, metric): value for metric, value in found.items()}
    tags = {names.DEVICE: "cpu", names.WEIGHTS: "made up"}
    return TrialResult(metrics, pd.DataFrame(scores), random.normal(size=(len(test), 8)).astype(np.float16), tags)
