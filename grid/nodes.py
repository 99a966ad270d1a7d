"""What trials ask of a node, and which nodes have it; pure: what there is, is told."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from grid.settings import InfeasibleError, RunSettings
from models.registry import detector_info

ACCELERATOR = "accelerator_type:"  # before a type of GPU: Ray's resource of which a node with such GPUs has 1
ACCELERATOR_PART = 0.001  # of it, as Ray's own option asks for
GPU_MEMORY = "gpu-memory-gb"  # label of a node: memory of each of its GPUs; Ray has no such resource
ROUNDING = 1e-9


@dataclass(frozen=True)
class Node:
    """A node of the cluster, or several alike that the cluster may start.

    Attributes:
        resources: Ray's name -> amount on each.
        labels: Ray's.
        number: how many.
        on_demand: they are not there yet.
    """

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    number: int = 1
    on_demand: bool = False

    @property
    def gpu_memory(self) -> float | None:
        """Of each GPU, in GB; None where the node does not declare it as a number."""
        try:
            declared = float(self.labels[GPU_MEMORY])
        except (KeyError, ValueError):
            return None
        return declared if math.isfinite(declared) else None

    def __str__(self) -> str:
        return _in_words(
            self.resources, "memory not declared" if self.gpu_memory is None else f"{self.gpu_memory:g} GB each"
        )


@dataclass(frozen=True)
class Demand:
    """What a trial, or a task that prepares for it, asks of its node.

    Attributes:
        resources: Ray's name -> amount; CPU and GPU always.
        gpu_memory: GB that each GPU of the node must have; 0: not asked about.
        labels: Ray's selector of the nodes that have it.
    """

    resources: Mapping[str, float]
    gpu_memory: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of one GPU, 0 to 1."""
        return self.resources["GPU"]

    def with_share(self, share: float) -> Demand:
        """The same with another share of a GPU."""
        return dataclasses.replace(self, resources={**self.resources, "GPU": share})

    def without_gpu(self) -> Demand:
        """The same without a GPU, whatever its kind."""
        kept = {name: part for name, part in self.resources.items() if not name.startswith(ACCELERATOR)}
        return Demand({**kept, "GPU": 0})

    def times_on(self, node: Node) -> int:
        """How many of it one such node holds at once while it is idle."""
        if self.gpu_memory and not (node.gpu_memory or 0) >= self.gpu_memory * (1 - ROUNDING):
            return 0
        asked = {name: amount for name, amount in self.resources.items() if amount}
        return min(_times(name, amount, node.resources.get(name, 0)) for name, amount in asked.items())

    def __str__(self) -> str:
        return _in_words(self.resources, f"{self.gpu_memory:g} GB each" if self.gpu_memory else "")


def _times(name: str, amount: float, available: float) -> int:
    if name == "GPU" and amount < 1:  # a share lies on one GPU: of three fifths, two GPUs hold two
        return int(available) * int(1 / amount + ROUNDING)
    return int(available / amount + ROUNDING)


def _in_words(resources: Mapping[str, float], gpu_memory: str) -> str:
    parts = [f"{resources.get('CPU', 0):g} CPU"]
    if resources.get("GPU"):
        about = sorted(name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR))
        about += [gpu_memory] if gpu_memory else []
        parts.append(f"{resources['GPU']:g} GPU" + (f" ({', '.join(about)})" if about else ""))
    if "memory" in resources:
        parts.append(f"{resources['memory'] / 1e9:.3g} GB of memory")
    return ", ".join(parts)


def num_gpus(nodes: Sequence[Node], demand: Demand | None = None) -> float:
    """GPUs, real or logical, of these nodes, or of those among them that hold such a demand."""
    return _in_all(nodes, lambda node: node.resources.get("GPU", 0) if demand is None or demand.times_on(node) else 0)


def slots(demand: Demand, nodes: Sequence[Node]) -> int:
    """How many tasks with this demand the cluster holds at once while it is idle, with what it may start on demand."""
    return int(_in_all(nodes, demand.times_on))


def _in_all(nodes: Sequence[Node], amount: Callable[[Node], float]) -> float:
    """The amounts of the nodes that are there, or of those on demand where they have more: some may be up already."""
    there, on_demand = (
        sum(amount(node) * node.number for node in nodes if node.on_demand == kind) for kind in (False, True)
    )
    return max(there, on_demand)


def trial_demand(method: str, settings: RunSettings, nodes: Sequence[Node]) -> Demand:
    """What a trial of the method asks for on a cluster of these nodes.

    Where a certain GPU is asked for and there is none at all, the trial asks for it nevertheless, and is not feasible.
    """
    settings = settings.for_method(method)
    certain = bool(settings.accelerator or settings.gpu_memory)
    share = settings.gpu_share(detector_info(method).gpu_share, gpus_available=num_gpus(nodes) or certain)
    resources = {"CPU": settings.cpus_per_trial, "GPU": share}
    if settings.memory_per_trial:
        resources["memory"] = int(settings.memory_per_trial * 1e9)
    if share and settings.accelerator:
        resources[ACCELERATOR + settings.accelerator] = ACCELERATOR_PART
    if not share or not settings.gpu_memory:
        return Demand(resources)
    demand = Demand(resources, settings.gpu_memory / share)
    # Ray compares labels as text. Where no node has enough, the trial waits for one; it is never left without a bound.
    enough = sorted({node.labels[GPU_MEMORY] for node in nodes if demand.times_on(node)}) or [f"{demand.gpu_memory:g}"]
    return dataclasses.replace(demand, labels={GPU_MEMORY: f"in({','.join(enough)})"})


def check_feasible(demands: Mapping[str, Demand], nodes: Sequence[Node]) -> None:
    """Raise `InfeasibleError` where no node could hold a trial: Ray would wait for one without end.

    Args:
        demands: method -> what a trial of it asks for.
        nodes: of the cluster.
    """
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
        "lower --cpus-per-trial, --gpus-per-trial or --memory-per-trial",
    ]
    if any(name.startswith(ACCELERATOR) for demand in refused.values() for name in demand.resources):
        lines[-1] += ", or name another type with --accelerator"
    if any(demand.gpu_memory for demand in refused.values()):
        lines[-1] += ", or lower --gpu-memory; of a share of a GPU, it is that part of the GPU's memory"
        if any(node.resources.get("GPU") and node.gpu_memory is None for node in nodes):
            lines.append(
                "GPUs whose memory is not declared do not count for --gpu-memory; nodes declare it with the label "
                f'{GPU_MEMORY}: `labels: {{{GPU_MEMORY}: "24"}}` of the node type in the cluster file, or '
                f"`ray start --labels={GPU_MEMORY}=24` on the node (docs/cluster.md)"
            )
    raise InfeasibleError("\n".join(lines))
