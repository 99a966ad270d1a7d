"""The resources that trials request, and which nodes have them. Pure: callers pass in the nodes."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from grid.settings import InfeasibleError, RunSettings
from models.registry import detector_info

ACCELERATOR = "accelerator_type:"  # prefix of Ray's resource for a GPU type; a node with such GPUs has 1 of it
ACCELERATOR_PART = 0.001  # the amount that Ray's own option `accelerator_type` requests
ASKED_FROM = 10**9  # bytes of rows from which on a trial requests memory; smaller trials start as they always did
PROCESS_MEMORY = 15 * 10**8  # bytes of a worker with torch, without rows
GPU_MEMORY = "gpu-memory-gb"  # a node's label with the memory of each of its GPUs; Ray has no such resource
ROUNDING = 1e-9


@dataclass(frozen=True)
class Node:
    """A node of the cluster, or several equal nodes that the cluster may start.

    Attributes:
        resources: Ray's name -> amount per node.
        labels: Ray's labels.
        number: number of nodes.
        on_demand: whether the nodes are started on demand.
    """

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    number: int = 1
    on_demand: bool = False

    @property
    def gpu_memory(self) -> float | None:
        """Memory per GPU in GB; None if the node does not declare it as a number."""
        try:
            declared = float(self.labels[GPU_MEMORY])
        except (KeyError, ValueError):
            return None
        return declared if math.isfinite(declared) else None

    def __str__(self) -> str:
        memory = "memory not declared" if self.gpu_memory is None else f"{self.gpu_memory:g} GB each"
        return _in_words(self.resources, memory)


@dataclass(frozen=True)
class Demand:
    """The resources that a trial or a preparing task requests.

    Attributes:
        resources: Ray's name -> amount; always with CPU and GPU.
        gpu_memory: memory in GB that each GPU of the node must have; 0: no requirement.
        labels: Ray's label selector for nodes with that memory.
    """

    resources: Mapping[str, float]
    gpu_memory: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share of one GPU, 0 to 1."""
        return self.resources["GPU"]

    def without_gpu(self) -> Demand:
        """The same demand without a GPU, a GPU type or GPU memory."""
        kept = {name: part for name, part in self.resources.items() if not name.startswith(ACCELERATOR)}
        return Demand({**kept, "GPU": 0})

    def times_on(self, node: Node) -> int:
        """How many tasks with this demand one such node runs at once while it is idle."""
        if self.gpu_memory and not (node.gpu_memory or 0) >= self.gpu_memory * (1 - ROUNDING):
            return 0
        return min(
            _times(name, amount, node.resources.get(name, 0)) for name, amount in self.resources.items() if amount
        )

    def __str__(self) -> str:
        return _in_words(self.resources, f"{self.gpu_memory:g} GB each" if self.gpu_memory else "")


def _times(name: str, amount: float, available: float) -> int:
    if name == "GPU" and amount < 1:  # a share lies on one GPU: two GPUs hold two shares of 0.6, not three
        return int(available) * int(1 / amount + ROUNDING)
    return int(available / amount + ROUNDING)


def _in_words(resources: Mapping[str, float], gpu_memory: str) -> str:
    parts = [f"{resources.get('CPU', 0):g} CPU"]
    if resources.get("GPU"):
        types = sorted(name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR))
        details = ", ".join(filter(None, [*types, gpu_memory]))
        parts.append(f"{resources['GPU']:g} GPU" + (f" ({details})" if details else ""))
    if "memory" in resources:
        parts.append(f"{resources['memory'] / 1e9:.3g} GB of memory")
    return ", ".join(parts)


def num_gpus(nodes: Sequence[Node], demand: Demand | None = None) -> float:
    """The number of GPUs, real or logical, of the nodes that can run such a demand; None: of all nodes."""
    return _in_all(nodes, lambda node: node.resources.get("GPU", 0) if demand is None or demand.times_on(node) else 0)


def slots(demand: Demand, nodes: Sequence[Node]) -> int:
    """How many tasks with this demand the idle cluster runs at once, nodes on demand included."""
    return int(_in_all(nodes, demand.times_on))


def _in_all(nodes: Sequence[Node], amount: Callable[[Node], float]) -> float:
    """The sum over running nodes or over nodes on demand, whichever is larger: nodes on demand may run already."""
    sums = {False: 0.0, True: 0.0}
    for node in nodes:
        sums[node.on_demand] += amount(node) * node.number
    return max(sums.values())


def trial_demand(method: str, settings: RunSettings, nodes: Sequence[Node], *, rows_memory: int = 0) -> Demand:
    """The resources that a trial of the method requests on a cluster of these nodes.

    A trial that needs a GPU type or GPU memory requests it on a cluster without GPUs too, and is then infeasible.

    Args:
        method: name of the method.
        settings: what the launch asks for; its `memory_per_trial` counts before the rows.
        nodes: of the cluster.
        rows_memory: bytes of `grid.host_memory.memory_of_rows`. From `ASKED_FROM` on, they are requested together with
            those of the process, where any node says how much memory it has.
    """
    settings = settings.for_method(method)
    needs_gpu = bool(settings.accelerator or settings.gpu_memory)
    share = settings.gpu_share(detector_info(method).gpu_share, gpus_available=num_gpus(nodes) or needs_gpu)
    resources = {"CPU": settings.cpus_per_trial, "GPU": share}
    if settings.memory_per_trial:
        resources["memory"] = int(settings.memory_per_trial * 1e9)
    elif rows_memory >= ASKED_FROM and any("memory" in node.resources for node in nodes):
        resources["memory"] = PROCESS_MEMORY + rows_memory
    if share and settings.accelerator:
        resources[ACCELERATOR + settings.accelerator] = ACCELERATOR_PART
    if not share or not settings.gpu_memory:
        return Demand(resources)
    demand = Demand(resources, settings.gpu_memory / share)
    # Ray compares labels as text, so the selector lists all values that are enough; if no node has any, the demand.
    enough = sorted({node.labels[GPU_MEMORY] for node in nodes if demand.times_on(node)}) or [f"{demand.gpu_memory:g}"]
    return dataclasses.replace(demand, labels={GPU_MEMORY: f"in({','.join(enough)})"})


def check_feasible(demands: Mapping[str, Demand], nodes: Sequence[Node]) -> None:
    """Raise `InfeasibleError` if no node can meet the demand of some method's trials; Ray would wait forever."""
    refused = {method: demand for method, demand in demands.items() if not any(map(demand.times_on, nodes))}
    if not refused:
        return
    kinds: Counter[str] = Counter()
    for node in nodes:
        kinds[f"{node}{', started on demand' if node.on_demand else ''}"] += node.number
    lines = [
        "no node has what one trial asks for:",
        *(f"  {method}: {demand}" for method, demand in refused.items()),
        "these are the nodes:",
        *(f"  {number} × {kind}" for kind, number in kinds.items()),
        "lower --cpus-per-trial, --gpus-per-trial, --memory-per-trial or --gpu-memory, or name another --accelerator",
    ]
    if any("memory" in demand.resources for demand in refused.values()):
        lines.append(
            "memory is asked for where a launch gives --memory-per-trial, and for the features and embeddings of many "
            "images; --memory-per-trial GB sets another amount, and --limit N takes fewer images"
        )
    if any(demand.gpu_memory for demand in refused.values()):
        lines.append(
            "a trial needs a GPU with --gpu-memory divided by its GPU share; a GPU counts if its node declares the "
            f'memory with the label {GPU_MEMORY}: `labels: {{{GPU_MEMORY}: "24"}}` of the node type in the cluster '
            f"file, or `ray start --labels={GPU_MEMORY}=24` on the node (docs/cluster.md)"
        )
    raise InfeasibleError("\n".join(lines))
