"""Fits and scores trials in this process, without MLflow."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.manifest import Manifest
from grid import names
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import get_task
from grid.trial import (
    Fitted,
    Scored,
    fit,
    score,
)
from models.detector import FitSession
from tests.grid.grids import make_settings, make_spec

NETWORK: dict[str, Any] = {"epochs": 3, "batch_size": 4, "learning_rate": 3e-3, "flip": False}


@dataclasses.dataclass(frozen=True)
class Result:
    """A trial that was fitted, and scored on clean pictures."""

    fitted: Fitted
    scored: Scored
    checkpoint: Path
    copied: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        return self.fitted.metrics | self.scored.metrics

    @property
    def scores(self) -> pd.DataFrame:
        return self.scored.scores

    @property
    def embeddings(self) -> np.ndarray:
        return self.scored.embeddings


@dataclasses.dataclass(frozen=True)
class Bench:
    settings: RunSettings
    manifest: Manifest
    checkpoints: Path

    def spec(self, *arguments: Any, **overrides: Any) -> TrialSpec:
        return make_spec(self.manifest.digest, *arguments, **overrides)

    def run(self, spec: TrialSpec, **session: Any) -> Result:
        folder = self.checkpoints / f"{len(list(self.checkpoints.iterdir())):03d}"
        folder.mkdir()
        settings = self.settings
        copied = {names.COPIED_BYTES: 0.0, names.COPY_SECONDS: 0.0}
        given = FitSession(**session)
        fitted = fit(spec, settings, given, device="cpu", checkpoint_to=folder, copied=copied)
        scored = score(spec, fitted.detector, settings, threshold=fitted.threshold, copied=copied)
        return Result(fitted, scored, folder, copied)

    def score(self, spec: TrialSpec, fitted: Fitted, condition: str) -> Scored:
        return score(spec, fitted.detector, self.settings, threshold=fitted.threshold, condition=condition)

    def test_rows(self) -> pd.DataFrame:
        return self.manifest.select("test", self.manifest.generators)


def with_cache(bench: Bench, folder: Path, **changes: Any) -> Bench:
    """With a cache of its own in `folder`."""
    settings = make_settings(folder, **changes)
    bench.manifest.save(settings.manifests / bench.manifest.digest)
    return dataclasses.replace(bench, settings=settings)


def cells_of(spec: TrialSpec, scores: pd.DataFrame, threshold: float) -> dict[str, float]:
    """Every figure of the test split, from a table of scores alone."""
    logits = scores[[f"logit_{name}" for name in spec.classes]].to_numpy()
    measured = get_task(spec.task).measure(scores, logits, spec.classes, threshold)
    return {names.metric_name(cell, name): value for cell, values in measured.items() for name, value in values.items()}
