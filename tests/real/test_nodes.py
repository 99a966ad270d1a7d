"""Trials and preparing tasks on a real Ray whose nodes are of different (logical) kinds: each only where it may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from grid import cluster
from grid.nodes import check_feasible, trial_demand
from grid.plan import Inputs, Work, distinct_inputs
from grid.ray_executor import RayExecutor
from grid.runner import DONE, TrialEvent
from grid.settings import InfeasibleError, RunSettings
from grid.spec import TrialSpec
from grid.tracking import Tracker
from tests.grid.grids import paper_manifest

DATA = "0" * 16
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

KINDS = {
    "A100": {"resources": {"accelerator_type:A100": 1}, "labels": {"gpu-memory-gb": "40"}, "memory": 2 * 10**9},
    "T4": {"resources": {"accelerator_type:T4": 1}, "labels": {"gpu-memory-gb": "16"}, "memory": 2 * 10**9},
    "unknown": {"memory": 8 * 10**9},
}
BY_METHOD = {
    "xception_scratch": {"gpu_memory": 20},  # half a GPU of 40 GB
    "xception_pretrained": {"memory_per_trial": 3},
    "clip_linear": {"gpu_memory": 4},  # a quarter of 16 GB or more
    "sam_linear": {"accelerator": "T4"},
}
MAY_USE = {
    "xception_scratch": {"A100"},
    "xception_pretrained": {"unknown"},
    "clip_linear": {"A100", "T4"},
    "sam_linear": {"T4"},
    "residual_linear": {"A100", "T4", "unknown"},
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """A cluster that is connected: id of a node -> its kind; trials have no place on the head."""
    ray.shutdown()
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        kinds = {machines.add_node(num_cpus=1, num_gpus=1, **kind).node_id: name for name, kind in KINDS.items()}
        cluster.connect(address=machines.address)
        yield kinds
    finally:
        ray.shutdown()
        machines.shutdown()


@pytest.fixture
def executor(tmp_path: Path) -> RayExecutor:
    settings = RunSettings(
        cache=tmp_path / "cache",
        runs=tmp_path / "runs",
        tracking_uri="sqlite:////none",
        cpus_per_trial=0.5,
        by_method=BY_METHOD,
    )
    paper_manifest(tmp_path).save(settings.manifests / DATA)
    return RayExecutor(settings, Tracker("sqlite:////none", "0", "0", {}))


def trials_of(method: str, number: int) -> list[Work]:
    return [Work(TrialSpec("detection", method, (), ("a",), seed, DATA), ("clean",)) for seed in range(number)]


def test_trials_run_only_on_nodes_that_have_what_they_ask_for(
    nodes: dict[str, str], executor: RayExecutor, tmp_path: Path
) -> None:
    places = tmp_path / "places"
    places.mkdir()

    def compute(work: Work, settings: RunSettings, tracker: Tracker, share: float) -> None:  # sent by value
        import time

        (places / f"{work.spec.method}-{work.spec.seed}").write_text(ray.get_runtime_context().get_node_id())
        time.sleep(1)  # so that trials are spread over all nodes that may have them

    executor.compute = compute
    trials = [work for method in MAY_USE for work in trials_of(method, 4)]
    events: list[TrialEvent] = []
    executor.run(trials, events.append)
    assert sum(event.kind == DONE for event in events) == len(trials)
    seen: dict[str, set[str]] = {method: set() for method in MAY_USE}
    for place in places.iterdir():
        seen[place.name.partition("-")[0]].add(nodes[place.read_text()])
    assert {method: used - MAY_USE[method] for method, used in seen.items()} == {method: set() for method in MAY_USE}


def test_preparing_tasks_go_where_trials_may(nodes: dict[str, str], executor: RayExecutor) -> None:
    def place(inputs: Inputs, settings: RunSettings, share: float) -> str:
        import time

        time.sleep(1)
        return ray.get_runtime_context().get_node_id()

    there = cluster.cluster_nodes()
    tasks = {}
    for method in MAY_USE:
        demand = trial_demand(method, executor.settings, there)
        (inputs,) = distinct_inputs(trials_of(method, 1))
        for _ in range(3):
            tasks[executor._task(place, inputs, executor.settings, demand)] = method
    seen: dict[str, set[str]] = {method: set() for method in MAY_USE}
    for task, method in tasks.items():
        seen[method].add(nodes[ray.get(task)])
    assert {method: used - MAY_USE[method] for method, used in seen.items()} == {method: set() for method in MAY_USE}


def test_what_no_kind_of_node_has_is_refused(nodes: dict[str, str], executor: RayExecutor) -> None:
    by_method = {"clip_linear": {"gpu_memory": 40}, "sam_linear": {"accelerator": "H100"}}
    executor.settings = dataclasses.replace(executor.settings, by_method=by_method)
    trials = [work for method in ("clip_linear", "sam_linear", "residual_linear") for work in trials_of(method, 1)]
    with pytest.raises(InfeasibleError) as caught:
        executor.prepare(trials, lambda *arguments: None)
    refused, there = str(caught.value).split("these are the nodes:")
    assert "clip_linear: 0.5 CPU, 0.25 GPU (160 GB each)" in refused
    assert "sam_linear: 0.5 CPU, 0.5 GPU (H100)" in refused
    assert "residual_linear" not in refused
    for kind in ("(A100, 40 GB each)", "(T4, 16 GB each)", "(memory not declared)"):
        assert kind in there
    check_feasible({"residual_linear": trial_demand("residual_linear", executor.settings, [])}, cluster.cluster_nodes())
