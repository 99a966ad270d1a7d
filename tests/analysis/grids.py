"""Small grids in a real MLflow store, with scores of which every figure can be computed again."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.store import Store, open_store
from data.manifest import Manifest
from grid import names, tracking
from grid.spec import ATTRIBUTION, DETECTION, TrialSpec
from grid.tracking import Tracker
from grid.trial import TrialResult, class_numbers, detection_cells
from models.scoring import attribution_metrics
from tests.grid.grids import make_spec, paper_manifest

GENERATORS = ("lama", "ldm", "repaint")


def made_scores(spec: TrialSpec, manifest: Manifest) -> pd.DataFrame:
    """Scores that follow from the trial alone; better where it was trained."""
    test = manifest.select("test", manifest.generators)
    scores = test[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    rng = np.random.default_rng(zlib.crc32(f"{spec.key}".encode()))
    logits = rng.normal(size=(len(scores), len(spec.classes))).astype(np.float32)
    logits[np.arange(len(scores)), class_numbers(test, spec)] += 1
    if spec.task == DETECTION:
        logits[scores["generator"].isin(spec.train_generators), 1] += 1
    for place, name in enumerate(spec.classes):
        scores[f"logit_{name}"] = logits[:, place]
    if spec.task == DETECTION:
        scores["score"] = logits[:, 1] - logits[:, 0]
    return scores


def made_result(spec: TrialSpec, manifest: Manifest) -> TrialResult:
    """What a trial leaves behind, its figures computed from its scores as `grid.trial` does."""
    scores = made_scores(spec, manifest)
    if spec.task == DETECTION:
        metrics = {names.THRESHOLD: 0.25} | detection_cells(scores, manifest.generators, 0.25)
    else:
        logits = scores[[f"logit_{name}" for name in spec.classes]].to_numpy()
        truth = class_numbers(manifest.select("test", manifest.generators), spec)
        found = attribution_metrics(truth, logits, spec.classes)
        metrics = {names.metric_name(names.ALL, metric): value for metric, value in found.items()}
    embeddings = np.arange(len(scores) * 2, dtype=np.float16).reshape(-1, 2)
    tags = {names.DEVICE: "cpu", names.WEIGHTS: "random weights"}
    return TrialResult(metrics | {names.SECONDS: 1.5}, scores, embeddings, tags)


class Grid:
    """A grid being written: trials are planned, and finished one by one."""

    def __init__(
        self,
        uri: str,
        folder: Path,
        *,
        name: str = "dolos",
        generators: Iterable[str] = GENERATORS,
        num_each: int = 30,
        trials: Iterable[TrialSpec] = (),
    ) -> None:
        self.folder, self.name = folder, name
        self.manifest = paper_manifest(folder / "images", tuple(generators), num_each)
        self.tracker: Tracker = tracking.open_grid(uri, name, self.manifest, trials, folder / "artifacts")

    def spec(
        self, method: str = "residual_linear", *, train: str = "lama", seed: int = 0, **config: object
    ) -> TrialSpec:
        return make_spec(self.manifest.digest, method, train=train.split("+"), seed=seed, **config)

    def attribution(self, method: str = "residual_linear", *, seed: int = 0, **config: object) -> TrialSpec:
        everything = self.manifest.generators
        return make_spec(self.manifest.digest, method, task=ATTRIBUTION, train=everything, seed=seed, **config)

    def plan(self, *trials: TrialSpec) -> None:
        """Add trials to the plan."""
        tracking.open_grid(self.tracker.uri, self.name, self.manifest, trials, self.folder / "artifacts")

    def finish(self, *trials: TrialSpec) -> list[str]:
        """Plan, run and finish trials; their runs' ids."""
        self.plan(*trials)
        ids = []
        for spec in trials:
            run = self.tracker.open_trial(spec, {names.NODE: "here", names.GPU_SHARE: "0.5"})
            run.log_epoch(1, {"train/loss": 0.7})
            run.log_epoch(2, {"train/loss": 0.5})
            checkpoint = self.folder / "checkpoint"
            checkpoint.mkdir(parents=True, exist_ok=True)
            (checkpoint / "model.json").write_text("{}")
            run.finish(made_result(spec, self.manifest), checkpoint)
            ids.append(run.run_id)
        return ids

    def open(self, **named: object) -> Store:
        return open_store(self.name, tracking_uri=self.tracker.uri, **named)  # type: ignore[arg-type]
