"""The grid on a real Ray with real MLflow, in processes of its own: concurrency, and what survives a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from grid import names
from tests.corpora import write_dolos

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 30  # long enough to be interrupted
pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


class Grid:
    """One grid of small networks on a tiny corpus, launched as a user would."""

    def __init__(self, folder: Path, generators: tuple[str, ...], *, options: list[str]) -> None:
        self.runs = folder / "runs"
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
        process = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True)
        self.processes.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        code = process.wait(timeout=300)
        return code, (self.runs.parent / f"launch{self.processes.index(process)}.log").read_text()

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=f"sqlite:///{self.runs / 'mlflow.db'}")

    def trials(self) -> list[Run]:
        """All trial runs; none while there is no store yet."""
        if not (self.runs / "artifacts").exists():  # made after the store's tables
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


@pytest.fixture
def make_grid(tmp_path: Path):
    grids = []

    def make(generators: tuple[str, ...], name: str = "grid", *, options: list[str]) -> Grid:
        folder = tmp_path / name
        folder.mkdir()
        grids.append(Grid(folder, generators, options=options))
        return grids[-1]

    yield make
    for grid in grids:
        grid.end()


def test_quarter_shares_of_two_logical_gpus_run_eight_trials_at_once(make_grid) -> None:
    options = ["--num-gpus=2", "--num-cpus=2", "--gpus-per-trial=0.25", "--cpus-per-trial=0.25", "--seeds", "0", "1"]
    grid = make_grid(("a", "b", "c", "d"), options=options)
    code, output = grid.finish(grid.start())
    assert code == 0, output
    runs = grid.trials()
    assert len(runs) == 8
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags[names.GPU_SHARE] for run in runs} == {"0.25"}
    starts = [(run.info.start_time, 1) for run in runs]
    ends = [(run.info.end_time, -1) for run in runs]
    at_once = pd.Series([change for _, change in sorted(starts + ends)]).cumsum().max()
    assert at_once == 8
    for run in runs:
        assert_no_repeated_points(grid, run)

    code, output = grid.finish(grid.start())
    assert code == 0, output
    assert "nothing to run" in output
    assert "rows: tested on, columns: trained on" in output
    assert [run.info.end_time for run in grid.trials()] == [run.info.end_time for run in runs]


def test_a_trial_whose_worker_is_killed_goes_on_in_the_same_run_with_the_same_result(make_grid, tmp_path: Path) -> None:
    grid = make_grid(("a",), options=["--checkpoint-seconds=0.5", "--num-cpus=1"])
    process = grid.start()
    grid.wait_for(process, started)
    time.sleep(1.5)  # so that there is a checkpoint to go on from
    workers = [
        child for child in psutil.Process(process.pid).children(recursive=True) if "ImplicitFunc" in child.name()
        or any("ImplicitFunc" in part for part in child.cmdline())
    ]  # fmt: skip
    assert workers, "no trial's worker was found"
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    code, output = grid.finish(process)
    assert code == 0, output
    (run,) = grid.trials()
    assert run.info.status == "FINISHED"
    assert_no_repeated_points(grid, run)

    whole = make_grid(("a",), "whole", options=["--local"])
    assert whole.finish(whole.start())[0] == 0
    (uninterrupted,) = whole.trials()
    first, second = grid.scores(run, tmp_path), whole.scores(uninterrupted, tmp_path / "whole")
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_after_the_driver_is_killed_only_unfinished_trials_run(make_grid) -> None:
    grid = make_grid(("a", "b", "c"), options=["--checkpoint-seconds=0.5", "--num-cpus=1"])
    process = grid.start()
    grid.wait_for(process, lambda runs: any(run.info.status == "FINISHED" for run in runs) and started(runs))
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=10)
    before = {run.info.run_id: run for run in grid.trials()}
    finished = {run_id for run_id, run in before.items() if run.info.status == "FINISHED"}
    assert 0 < len(finished) < 3

    code, output = grid.finish(grid.start())
    assert code == 0, output
    assert f"{len(finished)} finished before, {3 - len(finished)} to run" in output
    after = {run.info.run_id: run for run in grid.trials()}
    assert len(after) == 3
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert before.keys() <= after.keys()
    for run_id in finished:
        assert after[run_id].info.end_time == before[run_id].info.end_time
    for run in after.values():
        assert_no_repeated_points(grid, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_an_interrupt_leaves_a_state_from_which_the_same_command_goes_on(make_grid, number: signal.Signals) -> None:
    grid = make_grid(("a", "b"), options=["--checkpoint-seconds=0.5", "--num-cpus=1"])
    process = grid.start()
    grid.wait_for(process, started)
    process.send_signal(number)
    code, output = grid.finish(process)
    assert code == 130, output
    assert "the same command goes on from here" in output
    assert not [run for run in grid.trials() if run.info.status == "RUNNING"]

    code, output = grid.finish(grid.start())
    assert code == 0, output
    runs = grid.trials()
    assert len(runs) == 2
    for run in runs:
        assert run.info.status == "FINISHED"
        assert_no_repeated_points(grid, run)


def test_what_no_node_can_hold_is_refused_at_once(make_grid) -> None:
    grid = make_grid(("a",), options=["--num-cpus=1", "--cpus-per-trial=64"])
    code, output = grid.finish(grid.start())
    assert code == 2
    assert "lower --cpus-per-trial" in output
