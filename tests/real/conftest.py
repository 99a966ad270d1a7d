"""One Ray for most tests of this folder, and grids, of which nothing runs on when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from grid import cluster
from grid.private import keep_token_private
from tests.real.grids import EPOCHS, Grid

MakeGrid = Callable[..., Grid]
BACK_OFF = "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"


@pytest.fixture(scope="package")
def shared_cluster() -> Iterator[Cluster]:
    """One Ray for all tests that leave its nodes alone: 2 cores and 2 logical GPUs, and a head without cores.

    Its workers wait for an MLflow server that is away in steps half as long as by default: 2 + 4 + … + 64 seconds.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BACK_OFF, "1")
        keep_token_private()
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        nodes.add_node(num_cpus=2, num_gpus=2)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def shared_ray(shared_cluster: Cluster) -> str:
    """Address of the shared cluster, which this process has joined and stays in: its workers serve one test after the
    other, so that what they import is imported once."""
    if not ray.is_initialized() or ray.get_runtime_context().gcs_address != shared_cluster.address:
        ray.shutdown()
        cluster.connect(address=shared_cluster.address)
    return str(shared_cluster.address)


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A cluster of this test's own, which nobody has joined: a head without cores for trials."""
    ray.shutdown()
    keep_token_private()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def make_grid(tmp_path: Path) -> Iterator[MakeGrid]:
    """Generators, name, options -> a grid."""
    grids = []

    def make(
        generators: tuple[str, ...], name: str = "grid", *, options: list[str], uri: str = "", epochs: int = EPOCHS
    ) -> Grid:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        grids.append(Grid(folder, generators, options=options, uri=uri, epochs=epochs))
        return grids[-1]

    yield make
    for grid in grids:
        grid.end()
