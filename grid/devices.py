"""The GPU of this machine: whether torch can use it, and how much of its memory a trial may take."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from grid.settings import InfeasibleError, RunSettings

OUTSIDE = 1 << 30  # bytes of each process outside of torch's allocator: CUDA's context, kernels, cuDNN (an estimate)
REMEDY = (
    "mend it (docs/cluster.md, “GPUs”: it needs driver 580 or newer, compute capability 7.5 or newer), or compute on "
    "the CPU with --device cpu"
)


def choose_device(settings: RunSettings, share: float) -> str:
    """The torch device of a trial with this share of a GPU, "cuda" or "cpu".

    A positive share of a logical GPU gives "cpu" on a machine without a real GPU.

    Raises:
        InfeasibleError: this machine has a GPU that the trial should use, and torch cannot use it; or the settings ask
            for "cuda", and there is no GPU.
    """
    if settings.device == "cpu" or (share == 0 and settings.device == "auto"):
        return "cpu"
    problem = torch_problem()
    if problem is None:
        return "cuda" if share > 0 else "cpu"
    if settings.device == "cuda":
        raise InfeasibleError(f"--device cuda was asked for but torch sees no GPU: {problem}\n{REMEDY}")
    if has_card():
        raise InfeasibleError(_unusable(problem))
    return "cpu"


def use_device(settings: RunSettings, share: float) -> str:
    """`choose_device`; and on a GPU, `bound_memory`."""
    device = choose_device(settings, share)
    if device == "cuda":
        bound_memory(share)
    return device


def bound_memory(share: float) -> None:
    """Bound this process to its share of the GPU's memory, so that it starves no neighbour.

    The bound holds for torch's allocator, until the next call in this process; of a share below 1, OUTSIDE is left for
    what CUDA itself takes.
    """
    import torch

    total = torch.cuda.get_device_properties("cuda").total_memory
    torch.cuda.set_per_process_memory_fraction(share if share == 1 else max(share - OUTSIDE / total, share / 2))


def check_here(settings: RunSettings, method_shares: Iterable[tuple[str, float]]) -> None:
    """Check the GPU of this machine for trials that run here, before anything else is done.

    Args:
        settings: device and shares.
        method_shares: (method, its own GPU share).

    Raises:
        InfeasibleError: this machine has a GPU that a trial would use, and torch cannot use it.
    """
    uses = any(settings.for_method(method).gpu_share(share, gpus_available=1) for method, share in method_shares)
    if uses and has_card() and (problem := torch_problem()) is not None:
        raise InfeasibleError(_unusable(problem))


def has_card() -> bool:
    """Whether the system shows an NVIDIA GPU to this process, usable by torch or not."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(Path("/dev").glob("nvidia[0-9]*"))


def torch_problem() -> str | None:
    """Why torch cannot use a GPU here, in torch's own words; None if it can."""
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch without CUDA
        return str(error).splitlines()[0]
    if not torch.cuda.is_available():
        return "no CUDA GPU is available"
    capability = torch.cuda.get_device_capability()
    compiled = [(int(name[3:-1]), int(name[-1])) for name in torch.cuda.get_arch_list() if name[3:].isdigit()]
    if compiled and capability < min(compiled):
        (major, minor), (wanted, more) = capability, min(compiled)
        return f"the GPU has compute capability {major}.{minor}, and this torch needs {wanted}.{more} or newer"
    return None


def _unusable(problem: str) -> str:
    return f"{os.uname().nodename} has a GPU, and torch cannot use it: {problem}\n{REMEDY}"
