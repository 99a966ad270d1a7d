"""What happens to a grid when a node, the MLflow server or the disk goes away, and when two launch it at once.

docs/faults.md is the table of all faults, with the tests of the others. Figures that a test prints are in it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from grid import cluster, names
from grid.plan import Work
from grid.ray_executor import RayExecutor
from grid.runner import DONE, FAILED, TrialEvent
from grid.settings import ClusterError, RunSettings
from grid.spec import TrialSpec
from grid.tracking import Tracker
from tests.grid.grids import paper_manifest, work_of
from tests.mlflow_server import Server
from tests.real.conftest import BACK_OFF, MakeGrid
from tests.real.grids import Grid, assert_no_repeated_points, points_after, ran_at, say_first_points, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
OPTIONS = ["--checkpoint-seconds=0.1", "--device=cpu"]


def assert_whole(grid: Grid, num_trials: int) -> None:
    """Every trial was finished once, with every epoch once and its scores."""
    runs = grid.trials()
    assert [run.info.status for run in runs] == ["FINISHED"] * num_trials
    assert len({run.data.tags[names.KEY] for run in runs}) == num_trials
    for run in runs:
        assert_no_repeated_points(grid, run)
        assert names.SCORES in {artifact.path for artifact in grid.client.list_artifacts(run.info.run_id)}


# Nodes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_trials_of_a_node_that_goes_away_go_on_elsewhere(make_grid: MakeGrid, own_cluster: Cluster) -> None:
    leaving = own_cluster.add_node(num_cpus=1)
    own_cluster.add_node(num_cpus=1)
    grid = make_grid(("a", "b", "c"), options=[f"--address={own_cluster.address}", *OPTIONS], epochs=30)
    interrupted, moments = [], []

    def remove() -> None:
        grid.wait_for(lambda runs: sum(started([run]) for run in runs) == 2)  # one on each node
        interrupted.extend(run for run in grid.trials() if run.info.status == "RUNNING")
        own_cluster.remove_node(leaving, allow_graceful=False)
        moments.append(time.time())

    code, output = grid.launch(meanwhile=remove)
    assert code == 0, output
    assert "Ray cluster at" in output
    assert_whole(grid, 3)
    # Its worker may log one more epoch before it ends, so the first one after is not the recovery.
    (gone,) = moments
    pauses = [max(b - a for a, b in pairwise([0.0, *points_after(grid, run, gone)])) for run in interrupted]
    print("node removed: longest pause between epochs, of its trial and of another (s):", [round(s, 1) for s in pauses])


def test_nodes_with_other_packages_than_the_driver_are_refused_by_name(
    own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cluster.add_node(num_cpus=1)
    with cluster.session(address=own_cluster.address):
        assert cluster.describe_cluster().startswith("2 nodes, 1 CPU cores")
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == "timm" else version(name))  # here only
    with pytest.raises(ClusterError) as raised, cluster.session(address=own_cluster.address):
        pass
    assert str(raised.value).count(f"timm {version('timm')} (here 0.0.1)") == 2
    assert socket.gethostname() in str(raised.value)
    assert "make setup" in str(raised.value)


def test_a_job_that_was_submitted_with_code_of_its_own_is_told_to_leave_it_out(
    shared_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.shutdown()
    job = {"runtime_env": {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))  # as the job manager does
    with pytest.raises(ClusterError, match=r"Leave --working-dir"):
        cluster.connect(address=shared_cluster.address)


# The MLflow server ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    running = Server(folder)
    running.start()
    yield running
    running.stop()


@pytest.mark.long
def test_trials_wait_for_an_mlflow_server_that_is_away_and_nothing_is_missing(
    make_grid: MakeGrid, server: Server, shared_ray: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACK_OFF, "1")  # here too, where the grid's own run is written
    grid = make_grid(("a", "b", "c"), options=OPTIONS, uri=server.uri, epochs=20)
    moments = []

    def take_it_away() -> None:
        grid.wait_for(started)
        server.stop()
        time.sleep(2)
        server.start()
        moments.append(time.time())

    code, output = grid.launch(meanwhile=take_it_away)
    assert code == 0, output
    assert_whole(grid, 3)
    (back,) = moments
    assert any(ran_at(run, back) for run in grid.trials())
    say_first_points("MLflow back, with a short back-off", grid, grid.trials(), back)


@pytest.mark.long
def test_with_the_default_back_off_an_mlflow_server_may_be_away_for_a_minute(
    make_grid: MakeGrid, server: Server
) -> None:
    grid = make_grid(("a", "b", "c"), options=OPTIONS, uri=server.uri, epochs=20)
    process = grid.start("--num-cpus=2")
    grid.wait_for(started, process)
    server.stop()
    time.sleep(60)
    server.start()
    back = time.time()
    code, output = grid.finish(process)
    assert code == 0, output
    assert_whole(grid, 3)
    assert any(ran_at(run, back) for run in grid.trials())
    say_first_points("MLflow back after 60 s", grid, grid.trials(), back)


# Two people ----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_whoever_launches_a_grid_that_runs_already_is_told_who_runs_it(make_grid: MakeGrid, shared_ray: str) -> None:
    grid = make_grid(("a", "b"), options=["--max-concurrent=1", *OPTIONS], epochs=50)  # a second process takes its time
    refused = []

    def launch_again() -> None:
        grid.wait_for(started)
        refused.append(grid.finish(grid.start()))
        assert [run.info.status for run in grid.trials()] != ["FINISHED"] * 2, "the first launch was over before"

    code, output = grid.launch(meanwhile=launch_again)
    assert code == 0, output
    assert_whole(grid, 2)
    ((code, output),) = refused
    assert code == 2, output
    assert f"on {socket.gethostname()} (process {os.getpid()}) since " in " ".join(output.split())


@pytest.mark.long
@pytest.mark.parametrize("where", ["file", "server"])
def test_of_two_launches_at_once_on_a_store_that_is_not_there_yet_one_runs_the_grid(
    make_grid: MakeGrid, server: Server, where: str
) -> None:
    grid = make_grid(("a", "b"), options=["--local", *OPTIONS], uri=server.uri if where == "server" else "", epochs=3)
    outcomes = [grid.finish(process) for process in [grid.start(), grid.start()]]
    for code, output in outcomes:
        assert "Traceback" not in output
        assert code == 0 or (code == 2 and "this grid is being run by" in " ".join(output.split())), output
    assert 0 in {code for code, _ in outcomes}
    assert_whole(grid, 2)


# The disk ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB where the grid has its runs."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "grid" / "runs"
    disk.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"root may not mount here: {done.stderr}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))
    return ballast


@pytest.mark.long
def test_a_full_disk_is_told_and_the_grid_goes_on_when_there_is_space(
    make_grid: MakeGrid, small_disk: Path, shared_ray: str
) -> None:
    grid = make_grid(("a", "b"), options=OPTIONS)
    process = grid.start("--num-cpus=1", "--max-failures=1")
    grid.wait_for(started, process)
    ballast = fill(small_disk)
    code, output = grid.finish(process)
    assert code in (1, 2), output  # it depends on who misses the space first, trials or the grid itself
    assert "disk is full" in output or "No space left on device" in output
    if code == 2:
        assert "Make space where --runs and --cache are" in output

    ballast.unlink()
    code, output = grid.launch("--max-concurrent=1")
    assert code == 0, output
    assert_whole(grid, 2)


# Workers that die again and again ------------------------------------------------------------------------------------


@pytest.mark.long
def test_deaths_between_which_a_trial_made_progress_do_not_add_up(shared_ray: str, tmp_path: Path) -> None:
    def compute(work: Work, settings: RunSettings, tracker: Tracker, share: float) -> None:
        attempts = settings.runs / f"{work.spec.seed}.txt"
        with attempts.open("a") as file:
            file.write("x")
        attempt = attempts.stat().st_size
        moves = work.spec.seed == 0  # the other trial reaches the same epoch each time
        tune.report({"epoch": attempt if moves else 1})
        time.sleep(0.2)  # until the report has left
        if not moves or attempt < 4:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = RunSettings(cache=tmp_path, runs=tmp_path, tracking_uri="", max_failures=1, cpus_per_trial=0.5)
    paper_manifest(tmp_path).save(settings.manifests / ("0" * 16))
    executor = RayExecutor(settings, Tracker("", "0", "0", {}), compute=compute)
    trials = [TrialSpec("detection", "residual_linear", (), ("a",), seed, "0" * 16) for seed in (0, 1)]
    events: list[TrialEvent] = []
    executor.run(work_of(trials), events.append)
    ends = {event.key: event.kind for event in events if event.kind in (DONE, FAILED)}
    assert ends == {trials[0].key: DONE, trials[1].key: FAILED}
    assert [(tmp_path / f"{seed}.txt").stat().st_size for seed in (0, 1)] == [4, 2]
