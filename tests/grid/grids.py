"""What the tests of a grid share: stores, tiny data sets, settings, results with planted figures."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient
from PIL import Image

from data.conditions import CLEAN
from data.manifest import Manifest, build_manifest
from grid import names
from grid.plan import Work
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import DETECTION, WHOLE
from grid.tracking import Tracker, TrialRun, find_grid
from grid.trial import Scored
from models.registry import detector_info, resolve_config
from models.scoring import attribution_metrics, cell_metrics
from tests.corpora import write_dolos

SIDE = 64
COUNTS = {"train": 8, "valid": 6, "test": 6}


@cache
def _template(folder: Path) -> Path:
    """An empty MLflow store; MLflow takes seconds to make one, and a copy is as good."""
    folder.mkdir()
    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


def fresh_store(base: Path, runs: Path) -> str:
    """A new store `runs`/mlflow.db: its tracking URI. `base` is the folder of the whole test session."""
    runs.mkdir(parents=True, exist_ok=True)
    shutil.copy(_template(base / "mlflow-template"), runs / "mlflow.db")
    return f"sqlite:///{runs / 'mlflow.db'}"


def write_obvious(root: Path, generators: Iterable[str] = ("lama", "ldm"), counts: Mapping[str, int] = COUNTS) -> Path:
    """A Dolos tree whose fakes no detector can miss: each generator leaves stripes of a width of its own."""
    write_dolos(root, generators, counts, SIDE)
    for number, generator in enumerate(generators):
        stripes = 60 * ((np.arange(SIDE) // (number + 1)) % 2)
        for path in (root / "celebahq" / "fake" / generator / "images").rglob("*.png"):
            pixels = np.array(Image.open(path)).astype(int)
            Image.fromarray((pixels // 2 + stripes[:, None, None]).clip(0, 255).astype(np.uint8)).save(path)
    return root


def make_manifest(root: Path, settings: RunSettings) -> Manifest:
    """The manifest of a Dolos tree, saved where trials find it."""
    manifest = build_manifest("dolos", root, cache=settings.cache)
    manifest.save(settings.manifests / manifest.digest)
    return manifest


def make_settings(folder: Path, uri: str = "", **changes: Any) -> RunSettings:
    """Everything below `folder`; on the CPU, so that two runs of a trial are equal bit by bit."""
    settings = RunSettings(cache=folder / "cache", runs=folder / "runs", tracking_uri=uri, device="cpu")
    return dataclasses.replace(settings, **changes)


def make_spec(
    data: str,
    method: str = "residual_linear",
    *,
    task: str = DETECTION,
    train: Iterable[str] = ("lama",),
    seed: int = 0,
    train_condition: str = CLEAN,
    **overrides: Any,
) -> TrialSpec:
    """A trial with the small configuration of a method; of a network, two epochs."""
    small = dict(detector_info(method).small)
    if "epochs" in small:
        small["epochs"] = 2
    config = resolve_config(method, small | overrides)
    return TrialSpec(task, method, tuple(config.items()), tuple(train), seed, data, train_condition=train_condition)


def work_of(specs: Iterable[TrialSpec], conditions: Sequence[str] = (CLEAN,)) -> list[Work]:
    """Fit and score each of these trials."""
    return [Work(spec, tuple(conditions)) for spec in specs]


def table_of(generators: Iterable[str] = ("lama", "ldm"), num_each: int = 10) -> pd.DataFrame:
    """What a manifest's table looks like, of images that are nowhere."""
    rows = [
        (f"{name}/{split}/{number}.png", int(name != "real"), name, f"{split}{number}", split, f"{name}{split}{number}")
        for name in ("real", *generators)
        for split in ("train", "valid", "test")
        for number in range(num_each)
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "generator", "source_id", "split", "digest"])
    missing = {column: pd.Series([pd.NA] * len(rows), dtype="string") for column in ("mask", "mask_digest")}
    return table.assign(
        **missing,
        width=SIDE,
        height=SIDE,
        format="PNG",
        mode="RGB",
        quantisation="",
        num_bytes=1,
        profile="",
        metadata="",
    )


def paper_manifest(root: Path, generators: Iterable[str] = ("lama", "ldm"), num_each: int = 10) -> Manifest:
    """A manifest of images that are nowhere, for tests in which nobody looks at them."""
    return Manifest(root, "dolos", table_of(generators, num_each))


@dataclasses.dataclass(frozen=True)
class Planted:
    """What a trial leaves behind, as `TrialRun.finish` takes it.

    Attributes:
        scored: of the clean test images.
        others: metrics besides those of `scored`.
        tags: facts about how it was computed.
    """

    scored: Scored
    others: dict[str, float]
    tags: dict[str, str]

    @property
    def metrics(self) -> dict[str, float]:
        """Everything that is logged at the end of the trial."""
        return self.others | self.scored.metrics

    @property
    def scores(self) -> pd.DataFrame:
        """One row per test image."""
        return self.scored.scores

    @property
    def embeddings(self) -> np.ndarray:
        """Rows as in `scores`."""
        return self.scored.embeddings

    def finish(self, run: TrialRun, checkpoint: Path) -> None:
        """Log all of it and end the run."""
        run.finish(self.scored, self.others, self.tags, checkpoint)


FACTS = {names.DEVICE: "cpu", names.NODE: "here"}  # of scores under a condition


def planted_result(
    spec: TrialSpec, accuracies: Mapping[str, float], num_each: int = 1000, *, condition: str = CLEAN
) -> Planted:
    """A result with chosen accuracies, made of scores that have them: multiples of 1 / (2 * num_each) come out exactly.

    Args:
        spec: whose result.
        accuracies: detection: tested on -> accuracy; attribution: class -> accuracy.
        num_each: real images, and fake ones of each generator. All reals are called real as far as that can be.
        condition: of the test images.
    """
    others = {names.SECONDS: 1.0}
    measured: dict[str, dict[str, float]] = {}
    if spec.task == DETECTION:
        labels = np.repeat([0, 1], num_each)
        for generator, accuracy in accuracies.items():
            hits = round(accuracy * 2 * num_each)
            real, fake = min(hits, num_each), max(0, hits - num_each)
            scores = np.where(np.arange(num_each) < real, -1.0, 1.0), np.where(np.arange(num_each) < fake, 2.0, -2.0)
            measured[generator] = cell_metrics(labels, np.concatenate(scores), 0.5)
        others[names.THRESHOLD] = 0.5
    else:
        labels = np.repeat(np.arange(len(spec.classes)), num_each)
        logits = np.zeros((len(labels), len(spec.classes)), dtype=np.float32)
        for place, name in enumerate(spec.classes):
            right = np.arange(num_each) < round(accuracies[name] * num_each)
            answer = np.where(right, place, (place + 1) % len(spec.classes))
            logits[place * num_each + np.arange(num_each), answer] = 1
        measured[WHOLE] = attribution_metrics(labels, logits, spec.classes)
    metrics = {
        names.metric_name(tested_on, metric, condition): value
        for tested_on, values in measured.items()
        for metric, value in values.items()
    }
    table = pd.DataFrame({"path": [f"{row}.png" for row in range(4)], "score": np.arange(4.0), "condition": condition})
    tags = {names.DEVICE: "cpu", names.WEIGHTS: "random weights"}
    tags |= {names.VALIDATED: "true", names.CALIBRATED: "true"} if spec.task == DETECTION else {}
    return Planted(Scored(condition, metrics, table, np.eye(4, dtype=np.float16)), others, tags)


def open_grid(
    uri: str,
    experiment: str,
    manifest: Manifest,
    trials: Iterable[TrialSpec],
    artifacts: Path,
    *,
    conditions: Iterable[str] = (),
    launched: Mapping[str, str] | None = None,
) -> Tracker:
    """`find_grid`, then `Tracker.record_launch`, for a caller that nobody can be in the way of."""
    tracker = find_grid(uri, experiment, manifest, artifacts)
    tracker.record_launch(manifest, trials, conditions=conditions, launched=launched)
    return tracker
