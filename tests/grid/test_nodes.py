"""What trials ask for on clusters that are not there; tests/real/test_nodes.py has one that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from grid.nodes import ASKED_FROM, PROCESS_MEMORY, Demand, Node, check_feasible, num_gpus, slots, trial_demand
from grid.settings import InfeasibleError, RunSettings

A100 = Node({"CPU": 8, "GPU": 2, "memory": 64e9, "accelerator_type:A100": 1}, {"gpu-memory-gb": "40"})
T4 = Node({"CPU": 4, "GPU": 1, "memory": 16e9, "accelerator_type:T4": 1}, {"gpu-memory-gb": "16"})
UNKNOWN = Node({"CPU": 4, "GPU": 1, "memory": 16e9})
CORES = Node({"CPU": 64, "memory": 256e9})
ALL = [A100, T4, UNKNOWN, CORES]


@pytest.fixture
def plain(tmp_path: Path) -> RunSettings:
    return RunSettings(cache=tmp_path / "cache", runs=tmp_path / "runs", tracking_uri=f"sqlite:///{tmp_path / 'x.db'}")


def allowed(demand: Demand) -> list[Node]:
    return [node for node in ALL if demand.times_on(node)]


def test_by_default_a_trial_asks_for_a_core_and_its_methods_share(plain: RunSettings) -> None:
    assert trial_demand("clip_linear", plain, ALL) == Demand({"CPU": 1, "GPU": 0.25})
    assert trial_demand("clip_linear", plain, [CORES]) == Demand({"CPU": 1, "GPU": 0})
    assert trial_demand("residual_linear", plain, ALL) == Demand({"CPU": 1, "GPU": 0})


def test_many_rows_ask_for_memory_where_nodes_say_how_much_they_have(plain: RunSettings) -> None:
    def asked(rows_memory: int, nodes: Sequence[Node] = ALL, **settings: object) -> float:
        more = dataclasses.replace(plain, **settings)  # type: ignore[arg-type]
        return trial_demand("clip_linear", more, nodes, rows_memory=rows_memory).resources.get("memory", 0)

    assert asked(ASKED_FROM - 1) == 0
    assert asked(ASKED_FROM) == ASKED_FROM + PROCESS_MEMORY
    assert asked(5 * ASKED_FROM, [Node({"CPU": 4})]) == 0
    assert asked(5 * ASKED_FROM, memory_per_trial=3) == 3e9
    too_much = trial_demand("clip_linear", plain, ALL, rows_memory=300 * 10**9)
    with pytest.raises(InfeasibleError, match="--memory-per-trial GB sets another amount, and --limit N"):
        check_feasible({"clip_linear": too_much}, ALL)


def test_a_method_asks_for_what_was_said_for_it_and_the_others_for_what_holds_for_all(plain: RunSettings) -> None:
    settings = dataclasses.replace(
        plain,
        memory_per_trial=4,
        by_method={"clip_linear": {"memory_per_trial": 40, "gpus_per_trial": 1}, "sam_linear": {"accelerator": "T4"}},
    )
    clip, sam, residual = (
        trial_demand(method, settings, ALL) for method in ("clip_linear", "sam_linear", "residual_linear")
    )
    assert clip.resources == {"CPU": 1, "GPU": 1, "memory": 40_000_000_000}
    assert sam.resources == {"CPU": 1, "GPU": 0.5, "memory": 4_000_000_000, "accelerator_type:T4": 0.001}
    assert residual.resources == {"CPU": 1, "GPU": 0, "memory": 4_000_000_000}
    assert (allowed(clip), allowed(sam), allowed(residual)) == ([A100], [T4], ALL)


@pytest.mark.parametrize(
    ("gpu_memory", "share", "selector", "nodes"),
    [
        (40, 1, "in(40)", [A100]),
        (16, 1, "in(16,40)", [A100, T4]),
        (16.5, 1, "in(40)", [A100]),
        (8, 0.5, "in(16,40)", [A100, T4]),
        (16 * 0.3, 0.3, "in(16,40)", [A100, T4]),  # floating point is no reason to refuse
        (8.5, 0.5, "in(40)", [A100]),
        (41, 1, "in(41)", []),
    ],
)
def test_a_gpus_memory_is_enough_where_the_share_of_it_is(
    plain: RunSettings, gpu_memory: float, share: float, selector: str, nodes: list[Node]
) -> None:
    settings = dataclasses.replace(plain, gpu_memory=gpu_memory, gpus_per_trial=share)
    demand = trial_demand("clip_linear", settings, ALL)
    assert demand.labels == {"gpu-memory-gb": selector}
    assert allowed(demand) == nodes


def test_a_trial_without_a_gpu_is_bound_to_no_kind_of_them(plain: RunSettings) -> None:
    settings = dataclasses.replace(plain, gpu_memory=40, accelerator="A100")
    assert trial_demand("residual_linear", settings, ALL) == Demand({"CPU": 1, "GPU": 0})
    assert trial_demand("clip_linear", settings, ALL).without_gpu() == Demand({"CPU": 1, "GPU": 0})
    decoding = dataclasses.replace(settings, device="cpu")
    assert trial_demand("xception_scratch", decoding, ALL) == Demand({"CPU": 1, "GPU": 0})


@pytest.mark.parametrize("asked", [{"accelerator": "A100"}, {"gpu_memory": 1}])
def test_a_certain_gpu_where_there_is_none_is_refused_and_not_done_without(
    plain: RunSettings, asked: dict[str, object]
) -> None:
    demand = trial_demand("clip_linear", dataclasses.replace(plain, **asked), [CORES])
    with pytest.raises(InfeasibleError, match=r"clip_linear: 1 CPU, 0\.25 GPU"):
        check_feasible({"clip_linear": demand}, [CORES])


@pytest.mark.parametrize("declared", ["", "much", "nan"])
def test_what_is_no_number_counts_as_not_declared(plain: RunSettings, declared: str) -> None:
    node = dataclasses.replace(T4, labels={"gpu-memory-gb": declared})
    demand = trial_demand("clip_linear", dataclasses.replace(plain, gpu_memory=0.1), [node])
    with pytest.raises(InfeasibleError, match="memory not declared"):
        check_feasible({"clip_linear": demand}, [node])


def test_the_refusal_names_methods_demands_nodes_and_remedies(plain: RunSettings) -> None:
    settings = dataclasses.replace(
        plain,
        by_method={
            "clip_linear": {"gpu_memory": 12},
            "sam_linear": {"accelerator": "H100"},
            "xception_scratch": {"memory_per_trial": 100},
        },
    )
    demands = {
        method: trial_demand(method, settings, [*ALL, T4])
        for method in ("clip_linear", "sam_linear", "xception_scratch", "residual_linear")
    }
    with pytest.raises(InfeasibleError) as caught:
        check_feasible(demands, [*ALL, T4])
    assert str(caught.value).splitlines() == [
        "no node has what one trial asks for:",
        "  clip_linear: 1 CPU, 0.25 GPU (48 GB each)",
        "  sam_linear: 1 CPU, 0.5 GPU (H100)",
        "  xception_scratch: 1 CPU, 0.5 GPU, 100 GB of memory",
        "these are the nodes:",
        "  1 × 8 CPU, 2 GPU (A100, 40 GB each), 64 GB of memory",
        "  2 × 4 CPU, 1 GPU (T4, 16 GB each), 16 GB of memory",
        "  1 × 4 CPU, 1 GPU (memory not declared), 16 GB of memory",
        "  1 × 64 CPU, 256 GB of memory",
        "lower --cpus-per-trial, --gpus-per-trial, --memory-per-trial or --gpu-memory, or name another --accelerator",
        "memory is asked for where a launch gives --memory-per-trial, and for the features and embeddings of many "
        "images; --memory-per-trial GB sets another amount, and --limit N takes fewer images",
        "a trial needs a GPU with --gpu-memory divided by its GPU share; a GPU counts if its node declares the "
        'memory with the label gpu-memory-gb: `labels: {gpu-memory-gb: "24"}` of the node type in the cluster '
        "file, or `ray start --labels=gpu-memory-gb=24` on the node (docs/cluster.md)",
    ]


def test_what_some_node_holds_is_not_refused() -> None:
    check_feasible({"clip_linear": Demand({"CPU": 8, "GPU": 2}), "residual_linear": Demand({"CPU": 64, "GPU": 0})}, ALL)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"CPU": 1.0, "GPU": 0.0}, 16 + 4),
        ({"CPU": 1.0, "GPU": 0.5}, 4),
        ({"CPU": 8.0, "GPU": 0.5}, 2),
        ({"CPU": 1.0, "GPU": 0.4}, 4),  # two on each GPU, not five on two
        ({"CPU": 0.1, "GPU": 0.1}, 20),
        ({"CPU": 1.0, "GPU": 2.0}, 1),
        ({"CPU": 1.0, "GPU": 0.0, "memory": 5e9}, 2 + 1),
    ],
)
def test_slots_are_counted_on_each_node(resources: dict[str, float], expected: int) -> None:
    nodes = [Node({"CPU": 16.0, "GPU": 2.0, "memory": 10e9}), Node({"CPU": 4.0, "memory": 5e9})]
    assert slots(Demand(resources), nodes) == expected


def test_slots_and_gpus_of_nodes_that_may_not_be_used_do_not_count(plain: RunSettings) -> None:
    later = dataclasses.replace(A100, number=3, on_demand=True)
    demand = trial_demand("clip_linear", dataclasses.replace(plain, accelerator="T4"), [*ALL, later])
    assert (slots(demand, [*ALL, later]), num_gpus([*ALL, later], demand)) == (4, 1)
    demand = trial_demand("clip_linear", dataclasses.replace(plain, gpu_memory=10), [*ALL, later])
    assert (slots(demand, ALL), slots(demand, [*ALL, later])) == (8, 3 * 8)


def test_nodes_on_demand_that_are_up_already_count_once(plain: RunSettings) -> None:
    up = [Node({"CPU": 8, "GPU": 4})] * 3
    startable = Node({"CPU": 8, "GPU": 4}, number=4, on_demand=True)
    assert num_gpus([*up, startable]) == 16
    assert num_gpus([*up, startable], trial_demand("clip_linear", plain, up)) == 16


@pytest.mark.parametrize(
    ("changes", "asks"),
    [
        ({}, False),
        ({"device": "cuda"}, True),
        ({"gpus_per_trial": 0.5}, True),
        ({"gpus_per_trial": 0}, False),
        ({"by_method": {"clip_linear": {"accelerator": "A100"}}}, True),
        ({"by_method": {"sam_linear": {"gpu_memory": 8}}}, False),
    ],
)
def test_a_gpu_that_was_asked_for_is_known(plain: RunSettings, changes: dict[str, Any], asks: bool) -> None:
    assert dataclasses.replace(plain, **changes).for_method("clip_linear").asks_for_gpu is asks
