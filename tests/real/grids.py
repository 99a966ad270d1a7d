"""Grids of small networks that are launched in processes of their own, for tests of what happens to them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from grid import names
from tests.corpora import write_dolos

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 30  # long enough to be interrupted


class Grid:
    """One grid of small networks on a tiny corpus, launched as a user would; `uri`: of MLflow where it is a server."""

    def __init__(self, folder: Path, generators: tuple[str, ...], *, options: list[str], uri: str = "") -> None:
        self.runs = folder / "runs"
        self.uri = uri or f"sqlite:///{self.runs / 'mlflow.db'}"
        self.environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
        write_dolos(folder / "corpus", generators, {"train": 16, "valid": 4, "test": 6}, size=64)
        network = {"backbone": "test_resnet", "size": 64, "batch_size": 4, "epochs": EPOCHS}
        settings = [f"--set=xception_scratch.{name}={value}" for name, value in network.items()]
        self.command = [
            sys.executable, "launch.py", "dolos", f"--data={folder / 'corpus'}", f"--runs={self.runs}",
            "--methods=xception_scratch", "--tasks=detection", *settings, *options,
        ]  # fmt: skip
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        log = (self.runs.parent / f"launch{len(self.processes)}.log").open("w")
        process = subprocess.Popen(
            self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        self.processes.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        code = process.wait(timeout=300)
        return code, (self.runs.parent / f"launch{self.processes.index(process)}.log").read_text()

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri)

    def trials(self) -> list[Run]:
        """All trial runs; none while there is no store yet."""
        if self.uri.startswith("sqlite") and not (self.runs / "artifacts").exists():  # made after the store's tables
            return []
        experiment = self.client.get_experiment_by_name("dolos")
        query = f"tags.`{names.ROLE}` = 'trial'"
        return list(self.client.search_runs([experiment.experiment_id], query)) if experiment else []

    def wait_for(self, process: subprocess.Popen[str], condition: Callable[[list[Run]], bool]) -> None:
        deadline = time.monotonic() + 180
        while not condition(self.trials()):
            assert process.poll() is None, "the launch ended before what the test waits for"
            assert time.monotonic() < deadline, "what the test waits for did not happen"
            time.sleep(0.3)

    def scores(self, run: Run, folder: Path) -> pd.DataFrame:
        return pd.read_parquet(self.client.download_artifacts(run.info.run_id, names.SCORES, str(folder)))

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()


def started(runs: list[Run]) -> bool:
    """Some trial has logged its second epoch and is not at its end."""
    return any(run.info.status == "RUNNING" and "train/loss" in run.data.metrics for run in runs)


def assert_no_repeated_points(grid: Grid, run: Run) -> None:
    steps = [point.step for point in grid.client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == list(range(1, EPOCHS + 1))


def points_after(grid: Grid, run: Run, moment: float) -> list[float]:
    """Seconds after `moment`, which is in seconds since 1970, at which the run's epochs were logged."""
    points = grid.client.get_metric_history(run.info.run_id, "train/loss")
    return sorted(point.timestamp / 1000 - moment for point in points if point.timestamp / 1000 > moment)


def say_first_points(what: str, grid: Grid, runs: list[Run], moment: float) -> None:
    """Print, for docs/faults.md, when each run's next epoch was logged."""
    next_points = [seconds for run in runs for seconds in points_after(grid, run, moment)[:1]]
    print(f"{what}; next epoch logged after (s):", ", ".join(f"{seconds:.1f}" for seconds in next_points))
