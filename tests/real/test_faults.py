"""What happens to a grid when a node, the MLflow server or the disk goes away, and when two launch it at once.

docs/faults.md is the table of all faults, with the tests of the others. Figures that a test prints are in it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from grid import cluster as ray_cluster
from grid import names
from grid.settings import ClusterError
from tests.mlflow_server import Server
from tests.real.conftest import MakeGrid
from tests.real.grids import Grid, assert_no_repeated_points, points_after, say_first_points, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
OPTIONS = ["--checkpoint-seconds=0.5", "--device=cpu"]
AWAY_SECONDS = 60


def assert_whole(grid: Grid, num_trials: int) -> None:
    """Every trial was finished once, with every epoch once and its scores."""
    runs = grid.trials()
    assert [run.info.status for run in runs] == ["FINISHED"] * num_trials
    assert len({run.data.tags[names.KEY] for run in runs}) == num_trials
    for run in runs:
        assert_no_repeated_points(grid, run)
        assert names.SCORES in {artifact.path for artifact in grid.client.list_artifacts(run.info.run_id)}


# Nodes ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without CPU cores for trials."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield nodes
    nodes.shutdown()


def test_trials_of_a_node_that_goes_away_go_on_elsewhere(make_grid: MakeGrid, cluster: Cluster) -> None:
    leaving = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    grid = make_grid(("a", "b", "c"), options=[f"--address={cluster.address}", *OPTIONS])
    process = grid.start()
    grid.wait_for(process, lambda runs: sum(started([run]) for run in runs) == 2)  # one on each node
    interrupted = [run for run in grid.trials() if run.info.status == "RUNNING"]
    cluster.remove_node(leaving, allow_graceful=False)
    gone = time.time()
    code, output = grid.finish(process)
    assert code == 0, output
    assert "Ray cluster at" in output
    assert_whole(grid, 3)
    # Its worker may log one more epoch before it ends, so the first one after is not the recovery.
    pauses = [max(b - a for a, b in pairwise([0.0, *points_after(grid, run, gone)])) for run in interrupted]
    print("node removed: longest pause between epochs, of its trial and of another (s):", [round(s, 1) for s in pauses])


def test_nodes_with_other_packages_than_the_driver_are_refused_by_name(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add_node(num_cpus=1)
    with ray_cluster.session(address=cluster.address):
        assert ray_cluster.describe_cluster().startswith("2 nodes, 1 CPU cores")
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == "timm" else version(name))  # here only
    with pytest.raises(ClusterError) as raised, ray_cluster.session(address=cluster.address):
        pass
    assert str(raised.value).count(f"timm {version('timm')} (here 0.0.1)") == 2
    assert socket.gethostname() in str(raised.value)
    assert "make setup" in str(raised.value)


def test_a_job_that_was_submitted_with_code_of_its_own_is_told_to_leave_it_out(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"runtime_env": {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))  # as the job manager does
    with pytest.raises(ClusterError, match=r"Leave --working-dir"):
        ray_cluster.connect(address=cluster.address)


# The MLflow server ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    running = Server(folder)
    running.start()
    yield running
    running.stop()


def test_trials_wait_for_an_mlflow_server_that_is_away_and_nothing_is_missing(
    make_grid: MakeGrid, server: Server
) -> None:
    grid = make_grid(("a", "b", "c"), options=["--num-cpus=2", *OPTIONS], uri=server.uri)
    process = grid.start()
    grid.wait_for(process, started)
    server.stop()
    time.sleep(AWAY_SECONDS)
    server.start()
    back = time.time()
    code, output = grid.finish(process)
    assert code == 0, output
    assert_whole(grid, 3)
    say_first_points(f"MLflow back after {AWAY_SECONDS} s", grid, grid.trials(), back)


# Two people ----------------------------------------------------------------------------------------------------------


def test_whoever_launches_a_grid_that_runs_already_is_told_who_runs_it(make_grid: MakeGrid) -> None:
    grid = make_grid(("a", "b"), options=["--num-cpus=1", *OPTIONS])
    first = grid.start()
    grid.wait_for(first, started)
    second = grid.start()
    code, output = grid.finish(second)
    assert code == 2, output
    assert f"on {socket.gethostname()} (process {first.pid}) since " in " ".join(output.split())
    assert first.poll() is None
    code, output = grid.finish(first)
    assert code == 0, output
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


def test_a_full_disk_is_told_and_the_grid_goes_on_when_there_is_space(make_grid: MakeGrid, small_disk: Path) -> None:
    grid = make_grid(("a", "b"), options=["--num-cpus=1", *OPTIONS])
    process = grid.start()
    grid.wait_for(process, started)
    ballast = fill(small_disk)
    code, output = grid.finish(process)
    assert code in (1, 2), output  # it depends on who misses the space first, trials or the grid itself
    assert "disk is full" in output or "No space left on device" in output
    if code == 2:
        assert "Make space where --runs and --cache are" in output

    ballast.unlink()
    code, output = grid.finish(grid.start())
    assert code == 0, output
    assert_whole(grid, 2)
