"""The grid on a real Ray with real MLflow: concurrency, and what survives a kill.

Figures that a test prints are in docs/faults.md.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from grid import names
from tests.real.conftest import MakeGrid
from tests.real.grids import Grid, assert_no_repeated_points, ran_at, say_first_points, started, workers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("shared_ray"),
]


LONG = 30  # epochs: the first trial must not end before the last has started


def assert_all_at_once(grid: Grid, number: int, *, share: str) -> None:
    runs = grid.trials()
    assert len(runs) == number
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags[names.GPU_SHARE] for run in runs} == {share}
    starts = [(run.info.start_time, 1) for run in runs]
    ends = [(run.info.end_time, -1) for run in runs]
    at_once = pd.Series([change for _, change in sorted(starts + ends)]).cumsum().max()
    assert at_once == number
    for run in runs:
        assert_no_repeated_points(grid, run)


@pytest.mark.long
def test_half_shares_of_two_logical_gpus_run_four_trials_at_once(make_grid: MakeGrid) -> None:
    options = ["--gpus-per-trial=0.5", "--cpus-per-trial=0.25", "--seeds", "0", "1"]
    grid = make_grid(("a", "b"), options=options, epochs=LONG)
    code, output = grid.launch()
    assert code == 0, output
    assert_all_at_once(grid, 4, share="0.5")

    before = grid.trials()
    code, output = grid.launch()
    assert code == 0, output
    assert "nothing to run" in output
    assert "rows: tested on, columns: trained on" in output
    assert [run.info.end_time for run in grid.trials()] == [run.info.end_time for run in before]


@pytest.mark.long
def test_quarter_shares_of_two_logical_gpus_run_eight_trials_at_once(make_grid: MakeGrid) -> None:
    options = ["--gpus-per-trial=0.25", "--cpus-per-trial=0.25", "--seeds", "0", "1"]
    grid = make_grid(("a", "b", "c", "d"), options=options, epochs=LONG)
    code, output = grid.finish(grid.start("--num-gpus=2", "--num-cpus=2"))
    assert code == 0, output
    assert_all_at_once(grid, 8, share="0.25")


@pytest.mark.long
def test_a_finished_grid_is_scored_under_a_condition_and_trains_nothing(make_grid: MakeGrid) -> None:
    grid = make_grid(("a", "b"), options=["--cpus-per-trial=0.5"], epochs=2)
    code, output = grid.launch()
    assert code == 0, output
    before = {run.info.run_id: run for run in grid.trials()}

    code, output = grid.launch("--conditions=jpeg-75")
    assert code == 0, output
    assert "2 trials, 2 finished before, 0 to run, 2 to score under further conditions" in output
    assert "under jpeg-75" in output
    after = {run.info.run_id: run for run in grid.trials()}
    assert after.keys() == before.keys()
    for run_id, run in after.items():
        assert run.info.status == "FINISHED"
        assert run.data.tags[names.CONDITIONS] == "jpeg-75"
        assert_no_repeated_points(grid, run)
        clean = {name: value for name, value in run.data.metrics.items() if not name.startswith("test.")}
        assert clean == before[run_id].data.metrics
        scored = [name for name in run.data.metrics if name.startswith("test.jpeg-75/")]
        assert len(scored) == sum(name.startswith("test/") for name in clean)

    code, output = grid.launch("--conditions=jpeg-75")
    assert code == 0, output
    assert "nothing to run" in output


def test_a_trial_whose_worker_is_killed_goes_on_in_the_same_run_with_the_same_result(
    make_grid: MakeGrid, tmp_path: Path
) -> None:
    grid = make_grid(("a",), options=["--checkpoint-seconds=0.1"])
    moments = []

    def kill() -> None:
        grid.wait_for(lambda runs: started(runs) and grid.has_checkpoint())
        found = workers("ImplicitFunc")
        assert found, "no trial's worker was found"
        for worker in found:
            worker.send_signal(signal.SIGKILL)
        moments.append(time.time())

    code, output = grid.launch(meanwhile=kill)
    assert code == 0, output
    (run,) = grid.trials()
    (killed,) = moments
    assert ran_at(run, killed)
    say_first_points("worker killed", grid, [run], killed)
    assert run.info.status == "FINISHED"
    assert_no_repeated_points(grid, run)

    whole = make_grid(("a",), "whole", options=["--local"])
    assert whole.launch()[0] == 0
    (uninterrupted,) = whole.trials()
    first, second = grid.scores(run, tmp_path), whole.scores(uninterrupted, tmp_path / "whole")
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.long
def test_after_the_driver_is_killed_only_unfinished_trials_run(make_grid: MakeGrid) -> None:
    grid = make_grid(("a", "b", "c"), options=["--checkpoint-seconds=0.1"])
    process = grid.start("--num-cpus=1")
    grid.wait_for(lambda runs: any(run.info.status == "FINISHED" for run in runs) and started(runs), process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=10)
    before = {run.info.run_id: run for run in grid.trials()}
    finished = {run_id for run_id, run in before.items() if run.info.status == "FINISHED"}
    assert 0 < len(finished) < 3

    again = time.time()
    code, output = grid.launch("--max-concurrent=1")
    assert code == 0, output
    assert f"{len(finished)} finished before, {3 - len(finished)} to run" in output
    after = {run.info.run_id: run for run in grid.trials()}
    assert len(after) == 3
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert before.keys() <= after.keys()
    unfinished = [run for run_id, run in after.items() if run_id in before and run_id not in finished]
    say_first_points("driver killed, launched again: its trial", grid, unfinished, again)
    for run_id in finished:
        assert after[run_id].info.end_time == before[run_id].info.end_time
    for run in after.values():
        assert_no_repeated_points(grid, run)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_an_interrupt_leaves_a_state_from_which_the_same_command_goes_on(
    make_grid: MakeGrid, number: signal.Signals
) -> None:
    grid = make_grid(("a", "b"), options=["--checkpoint-seconds=0.1"])
    process = grid.start("--num-cpus=1")
    grid.wait_for(started, process)
    process.send_signal(number)
    sent = time.time()
    code, output = grid.finish(process)
    print(f"{number.name}: the launch ended after {time.time() - sent:.1f} s")
    assert code == 130, output
    assert "the same command goes on from here" in output
    interrupted = grid.trials()
    assert not [run for run in interrupted if run.info.status == "RUNNING"]

    again = time.time()
    code, output = grid.launch("--max-concurrent=1")
    assert code == 0, output
    say_first_points("launched again: interrupted trials", grid, interrupted, again)
    runs = grid.trials()
    assert len(runs) == 2
    for run in runs:
        assert run.info.status == "FINISHED"
        assert_no_repeated_points(grid, run)


def test_what_no_node_can_hold_is_refused_at_once(make_grid: MakeGrid) -> None:
    grid = make_grid(("a",), options=["--cpus-per-trial=64"])
    code, output = grid.launch()
    assert code == 2
    assert "lower --cpus-per-trial" in output
