"""Trials that really run, in this process: a data set, a store, and who watches."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.entities import Run

from data.conditions import CLEAN
from data.images import file_digest
from data.manifest import Manifest
from grid import names
from grid.plan import Plan, TrialState, Work, make_plan
from grid.runner import REPORTED, LocalExecutor, TrialEvent, execute
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tracking import Tracker
from models.detector import Detector, Examples, FitSession, Prediction, Rows
from models.linear import LinearDetector
from models.training import NetworkDetector
from tests.grid.grids import make_spec, work_of


class Watcher(list[TrialEvent]):
    """Keeps the events; presses Ctrl-C where it is told to."""

    def __init__(self, interrupt_at: Callable[[TrialEvent], bool] = lambda event: False) -> None:
        super().__init__()
        self.interrupt_at = interrupt_at
        self.moments: list[float] = []  # time.monotonic() of each event

    def __call__(self, event: TrialEvent) -> None:
        self.append(event)
        self.moments.append(time.monotonic())
        if self.interrupt_at(event):
            raise KeyboardInterrupt

    def kinds(self, spec: TrialSpec) -> list[str]:
        return [event.kind for event in self if event.key == spec.key]

    @property
    def epochs(self) -> list[int]:
        return [int(event.metrics["epoch"]) for event in self if event.kind == REPORTED]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Trials on one data set, with a store of their own."""

    settings: RunSettings
    manifest: Manifest
    tracker: Tracker

    @property
    def executor(self) -> LocalExecutor:
        return LocalExecutor(self.settings, self.tracker)

    @property
    def checkpoints(self) -> Path:
        return self.settings.checkpoints(self.tracker.parent_id)

    def spec(self, *arguments: Any, **overrides: Any) -> TrialSpec:
        return make_spec(self.manifest.digest, *arguments, **overrides)

    def state(self, spec: TrialSpec) -> TrialState | None:
        return self.tracker.records.states([spec.key]).get(spec.key)

    def run(self, *specs: TrialSpec, watch: Watcher | None = None) -> Watcher:
        """Fit and score these trials on clean pictures."""
        watcher = Watcher() if watch is None else watch
        self.executor.run(work_of(specs), watcher)
        return watcher

    def execute(self, work: Work) -> None:
        execute(work, self.settings, self.tracker, share=0.0, report=lambda metrics, checkpoint: None)

    def run_of(self, spec: TrialSpec) -> Run:
        state = self.state(spec)
        assert state is not None
        return self.tracker.client.get_run(state.run_id)

    def artifact(self, spec: TrialSpec, path: str, folder: Path) -> Path:
        folder.mkdir()
        return Path(self.tracker.client.download_artifacts(self.run_of(spec).info.run_id, path, str(folder)))

    def steps(self, spec: TrialSpec, metric: str) -> list[int]:
        run_id = self.run_of(spec).info.run_id
        return [point.step for point in self.tracker.records.history(run_id, metric)]

    def plan(self, *specs: TrialSpec, conditions: Sequence[str] = ()) -> Plan:
        """What is left of these trials, by what MLflow knows."""
        return make_plan(specs, self.tracker.records.states([spec.key for spec in specs]), conditions)

    def launch(self, *specs: TrialSpec, conditions: Sequence[str] = ()) -> Watcher:
        """Do what is left of these trials."""
        watcher = Watcher()
        self.executor.run(self.plan(*specs, conditions=conditions).pending, watcher)
        return watcher

    def scores(self, spec: TrialSpec, condition: str = CLEAN) -> pd.DataFrame:
        """What the trial's run has kept."""
        name = names.condition_artifact(condition, names.SCORES)
        return pd.read_parquet(self.tracker.records.artifact(self.run_of(spec), name))

    def artifacts(self, spec: TrialSpec) -> dict[str, str]:
        """Path -> digest of every file that the trial's run has kept."""
        folder = Path(self.settings.runs / "artifacts" / self.run_of(spec).info.run_id / "artifacts")
        return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


MakeGrid = Callable[..., Grid]


class Calls:
    """Counts what detectors are asked to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fits: list[str] = []  # the class of each detector that was fitted
        self.predicted: list[int] = []  # how many rows were scored, each time
        for kind in (LinearDetector, NetworkDetector):
            self._watch(kind, monkeypatch)

    def _watch(self, kind: type[Detector], monkeypatch: pytest.MonkeyPatch) -> None:
        fit, predict = kind.fit, kind.predict

        def counted_fit(detector: Detector, train: Examples, valid: Examples, session: FitSession) -> None:
            self.fits.append(kind.__name__)
            fit(detector, train, valid, session)

        def counted_predict(detector: Detector, inputs: Rows) -> Prediction:
            self.predicted.append(len(inputs))
            return predict(detector, inputs)

        monkeypatch.setattr(kind, "fit", counted_fit)
        monkeypatch.setattr(kind, "predict", counted_predict)
