"""Small grids in a real MLflow store, with scores of which every value can be computed again."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from analysis.store import Store, open_store
from data.conditions import CLEAN
from data.manifest import Manifest
from grid import names
from grid.means import summary_of_trial
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION, OPEN_SET, cell_rows, get_task
from grid.tracking import Tracker
from grid.train_sets import TrainSet
from grid.trial import Scored, training_rows
from grid.validation import Validated
from models.calibration import fit_temperature
from models.open_set import scores_of_table
from models.scoring import choose_threshold
from tests.grid.grids import FACTS, make_spec, open_grid, paper_manifest

GENERATORS = ("lama", "ldm", "repaint")
THRESHOLD = 0.25  # of every detection run


def made_scores(spec: TrialSpec, manifest: Manifest, condition: str = CLEAN) -> pd.DataFrame:
    """Scores that follow from the trial and the condition alone; better where it was trained."""
    test = manifest.select("test", manifest.generators)
    scores = test[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    scores["condition"] = condition
    rng = np.random.default_rng(zlib.crc32((spec.key if condition == CLEAN else f"{spec.key} {condition}").encode()))
    logits = rng.normal(size=(len(scores), len(spec.classes))).astype(np.float32)
    numbers = get_task(spec.task, spec.seed).class_numbers(test, spec.classes)
    logits[np.flatnonzero(numbers >= 0), numbers[numbers >= 0]] += 1
    if get_task(spec.task).is_binary:
        logits[scores["generator"].isin(spec.train_generators), 1] += 1
    for place, name in enumerate(spec.classes):
        scores[f"logit_{name}"] = logits[:, place]
    if get_task(spec.task).is_binary:
        scores["score"] = logits[:, 1] - logits[:, 0]
    if get_task(spec.task).scores_unknown:
        scores = scores.assign(
            **{f"unknown_{name}": values for name, values in scores_of_table(scores, logits).items()}
        )
        for name in ("mahalanobis", "knn"):
            scores[f"unknown_{name}"] = rng.normal(numbers < 0, 1.0)
    return scores


def made(spec: TrialSpec, manifest: Manifest, condition: str = CLEAN) -> Scored:
    """What a trial leaves behind, its metrics computed from its scores as `grid.trial` does."""
    scores = made_scores(spec, manifest, condition)
    task, logits = get_task(spec.task, spec.seed), scores[[f"logit_{name}" for name in spec.classes]].to_numpy()
    measured = task.measure(scores, logits, spec.classes, THRESHOLD if task.is_binary else None)
    metrics = {
        names.metric_name(tested_on, metric, condition): value
        for tested_on, values in measured.items()
        for metric, value in values.items()
    }
    embeddings = np.arange(len(scores) * 2, dtype=np.float16).reshape(-1, 2)
    return Scored(condition, metrics, scores, embeddings)


def made_validation(spec: TrialSpec, manifest: Manifest) -> Validated:
    """Validation scores whose threshold is `THRESHOLD`, and a temperature; without embeddings there are no looks."""
    rows = manifest.select("valid", manifest.generators)
    scores = rows[["path", "digest", "source_id", "generator", "label"]].reset_index(drop=True)
    rng = np.random.default_rng(zlib.crc32(f"{spec.key} valid".encode()))
    scores["score"] = rng.normal(2 * scores["label"] - 1, 2.0)
    own = rows.index.isin(training_rows(spec, manifest, "valid").index)
    labels = scores["label"].to_numpy()[own]
    if labels.any():
        scores["score"] += THRESHOLD - choose_threshold(labels, scores["score"].to_numpy()[own])
    values = scores["score"].to_numpy()[own]
    fitted = fit_temperature(labels, values) if labels.any() else None
    return Validated({}, scores, fitted, {}, ("embeddings: these runs are made by hand",))


def _validation_aurocs(spec: TrialSpec, manifest: Manifest) -> dict[str, float]:
    scores = made_validation(spec, manifest).scores
    cells = {name: scores[cell_rows(scores, name)] for name in manifest.generators}
    return {name: float(roc_auc_score(cell["label"], cell["score"])) for name, cell in cells.items()}


class Grid:
    """A grid being written: trials are planned, and finished one by one.

    Args:
        uri: tracking URI.
        folder: of artifacts.
        name: of the MLflow experiment.
        generators: of the data set.
        num_each: images per split and generator.
        trials: planned from the beginning.
        corpus: the data's source.
        launched: tags that say what made the grid.
        conditions: asked for, besides "clean".
        root: where the images would be; None: below `folder`.
    """

    def __init__(
        self,
        uri: str,
        folder: Path,
        *,
        name: str = "dolos",
        generators: Iterable[str] = GENERATORS,
        num_each: int = 30,
        trials: Iterable[TrialSpec] = (),
        corpus: str = "dolos",
        launched: Mapping[str, str] | None = None,
        conditions: Iterable[str] = (),
        root: Path | None = None,
    ) -> None:
        self.folder, self.name = folder, name
        manifest = paper_manifest(root or folder / "images", tuple(generators), num_each)
        self.manifest = dataclasses.replace(manifest, source=corpus)
        self.tracker: Tracker = open_grid(
            uri, name, self.manifest, trials, folder / "artifacts", conditions=conditions, launched=launched
        )

    def spec(
        self,
        method: str = "residual_linear",
        *,
        train: str = "lama",
        seed: int = 0,
        train_condition: str = CLEAN,
        **config: object,
    ) -> TrialSpec:
        """A detection trial; `train` is a training set as text."""
        generators = TrainSet.parse(train).generators
        spec = make_spec(self.manifest.digest, method, train=generators, seed=seed, **config)
        return dataclasses.replace(spec, train_condition=train_condition)

    def attribution(self, method: str = "residual_linear", *, seed: int = 0, **config: object) -> TrialSpec:
        everything = self.manifest.generators
        return make_spec(self.manifest.digest, method, task=ATTRIBUTION, train=everything, seed=seed, **config)

    def open_set(self, method: str = "residual_linear", *, left_out: str = "lama", seed: int = 0) -> TrialSpec:
        others = [name for name in self.manifest.generators if name != left_out]
        return make_spec(self.manifest.digest, method, task=OPEN_SET, train=others, seed=seed)

    def plan(self, *trials: TrialSpec) -> None:
        """Add trials to the plan."""
        open_grid(self.tracker.uri, self.name, self.manifest, trials, self.folder / "artifacts")

    def finish(
        self, *trials: TrialSpec, conditions: Iterable[str] = (), validation: Mapping[str, float] | None = None
    ) -> list[str]:
        """Plan, run and finish trials, and score them under further conditions; their runs' ids.

        `validation`: generator -> AUROC on its validation images; None: as `made_validation` has them; {}: as in a run
        of an older checkout.
        """
        self.plan(*trials)
        ids = []
        for spec in trials:
            run = self.tracker.open_trial(spec, {names.NODE: "here", names.GPU_SHARE: "0.5"})
            run.log_epoch(1, {"train/loss": 0.7})
            run.log_epoch(2, {"train/loss": 0.5})
            checkpoint = self.folder / "checkpoint"
            checkpoint.mkdir(parents=True, exist_ok=True)
            (checkpoint / "model.json").write_text("{}")
            metrics = {names.SECONDS: 1.5}
            tags = {names.DEVICE: "cpu", names.WEIGHTS: "random weights"}
            if get_task(spec.task).is_binary:
                metrics[names.THRESHOLD] = THRESHOLD
                values = _validation_aurocs(spec, self.manifest) if validation is None else validation
                metrics |= {names.validation_metric(name): value for name, value in values.items()}
                tags |= {names.VALIDATED: "true", names.CALIBRATED: "true"} if values else {}
            if spec.task == DETECTION:
                metrics |= summary_of_trial(spec.train_set, made(spec, self.manifest).metrics)
            validated = made_validation(spec, self.manifest) if names.CALIBRATED in tags else None
            run.finish(made(spec, self.manifest), metrics, tags, checkpoint, validated=validated)
            for condition in conditions:
                run.add_scores(made(spec, self.manifest, condition), FACTS)
            ids.append(run.run_id)
        return ids

    def artifact(self, run_id: str, name: str) -> Path:
        """Where a run's artifact lies."""
        return self.folder / "artifacts" / run_id / "artifacts" / name

    def open(self, **named: object) -> Store:
        return open_store(self.name, tracking_uri=self.tracker.uri, **named)  # type: ignore[arg-type]
