"""Grids of small networks that are really launched, for tests of what happens to them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import ray
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

import launch
from grid import cluster, names
from grid.checkpoints import read_state
from tests.corpora import write_dolos

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 12  # long enough to be interrupted


class Grid:
    """One grid of small networks on a tiny corpus, launched as a user would.

    Args:
        folder: of the corpus, the runs and the logs.
        generators: of the corpus; one trial for each.
        options: of `launch.py`, in every launch.
        uri: of MLflow where it is a server.
        epochs: of each trial.
    """

    def __init__(
        self,
        folder: Path,
        generators: tuple[str, ...],
        *,
        options: list[str],
        uri: str = "",
        epochs: int = EPOCHS,
    ) -> None:
        self.runs = folder / "runs"
        self.uri = uri or f"sqlite:///{self.runs / 'mlflow.db'}"
        self.epochs = epochs
        self.environment = {"MLFLOW_TRACKING_URI": uri}
        write_dolos(folder / "corpus", generators, {"train": 16, "valid": 4, "test": 6}, size=64)
        network = {"backbone": "test_resnet", "size": 64, "batch_size": 4, "epochs": epochs}
        settings = [f"--set=xception_scratch.{name}={value}" for name, value in network.items()]
        self.arguments = [
            "dolos", f"--data={folder / 'corpus'}", f"--runs={self.runs}",
            "--methods=xception_scratch", "--tasks=detection", "--seeds=0", *settings, *options,
        ]  # fmt: skip
        self.processes: list[subprocess.Popen[str]] = []

    # In a process of its own

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Launch in a process that a test may interrupt or kill, and which starts a Ray of its own."""
        log = (self.runs.parent / f"launch{len(self.processes)}.log").open("w")
        command = [sys.executable, "launch.py", *self.arguments, *options]
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | self.environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        self.processes.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Status and output."""
        code = process.wait(timeout=300)
        return code, (self.runs.parent / f"launch{self.processes.index(process)}.log").read_text()

    # In this process

    def launch(self, *options: str, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, str]:
        """Launch in this process, on the Ray that it has joined, if it has joined one: status and output.

        Args:
            options: of `launch.py`, in this launch only.
            meanwhile: what a test does to the grid, in a thread beside it. Where that fails, the launch is interrupted.
        """
        errors: list[BaseException] = []
        running = threading.Event()

        def run_meanwhile() -> None:
            try:
                meanwhile()
            except BaseException as error:
                errors.append(error)
                if running.is_set():
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        output, handler = io.StringIO(), signal.getsignal(signal.SIGTERM)
        helper = threading.Thread(target=run_meanwhile, daemon=True)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
            for name, value in self.environment.items():
                patch.setenv(name, value)
            if ray.is_initialized():
                patch.setattr(cluster, "session", lambda **connection: nullcontext())
            running.set()
            helper.start()
            code = launch.main([*self.arguments, *options])
            running.clear()
            signal.signal(signal.SIGTERM, handler)
            helper.join(timeout=60)
        if errors:
            raise errors[0]
        assert not helper.is_alive(), "the launch ended before what the test does to it:\n" + output.getvalue()
        return code, output.getvalue()

    # What is known of it

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

    def wait_for(self, condition: Callable[[list[Run]], bool], process: subprocess.Popen[str] | None = None) -> None:
        """Until a condition holds of the trials' runs; `process`: the launch, if it has one of its own."""
        deadline = time.monotonic() + 600  # only to end; where other tests run, Ray takes minutes
        while not condition(self.trials()):
            assert process is None or process.poll() is None, "the launch ended before what the test waits for"
            assert time.monotonic() < deadline, "what the test waits for did not happen"
            time.sleep(0.1)

    def has_checkpoint(self) -> bool:
        """Some trial has a sound checkpoint to go on from."""
        for folder in (self.runs / "tune").rglob("checkpoint_*"):
            with suppress(ValueError, OSError):  # Ray is writing or removing it
                read_state(folder)
                return True
        return False

    def scores(self, run: Run, folder: Path) -> pd.DataFrame:
        return pd.read_parquet(self.client.download_artifacts(run.info.run_id, names.SCORES, str(folder)))

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()


def started(runs: list[Run]) -> bool:
    """Some trial has logged its first epoch and is not at its end."""
    return any(run.info.status == "RUNNING" and "train/loss" in run.data.metrics for run in runs)


def ran_at(run: Run, moment: float) -> bool:
    """Whether a run that has ended was under way at a moment in seconds since 1970."""
    return bool(run.info.start_time / 1000 < moment < run.info.end_time / 1000)


def workers(name: str) -> list[psutil.Process]:
    """Ray's workers among the processes that this one has started, whose title has a name in it."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found += [child] if any(f"ray::{name}" in part for part in child.cmdline()) else []
    return found


def assert_no_repeated_points(grid: Grid, run: Run) -> None:
    steps = [point.step for point in grid.client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == list(range(1, grid.epochs + 1))


def points_after(grid: Grid, run: Run, moment: float) -> list[float]:
    """Seconds after `moment`, which is in seconds since 1970, at which the run's epochs were logged."""
    points = grid.client.get_metric_history(run.info.run_id, "train/loss")
    return sorted(point.timestamp / 1000 - moment for point in points if point.timestamp / 1000 > moment)


def say_first_points(what: str, grid: Grid, runs: list[Run], moment: float) -> None:
    """Print, for docs/faults.md, when each run's next epoch was logged."""
    next_points = [seconds for run in runs for seconds in points_after(grid, run, moment)[:1]]
    print(f"{what}; next epoch logged after (s):", ", ".join(f"{seconds:.1f}" for seconds in next_points))
