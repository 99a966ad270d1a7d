"""How many trials of a method one GPU takes, and with how many it does most: each method alone, then with neighbours.

For each method of the published experiment at its own defaults, one, two, three and four processes at once compute
what its trials do most of the time (see `benchmarks.heavy`): the shipped training, in epochs of 512 images, or the
encoder, in batches of 32. They begin together when all have done it once, and each counts its own images for at least
`seconds`. Methods that differ in weights and learning rate only are measured once. A number of neighbours of which one
had to halve its batches, or found no memory, does not fit and has no figure.

The memory of a trial is that of a process alone on the GPU: the most that torch's allocator had reserved, which is more
than a trial needs where plenty is free, and all that the process holds besides (CUDA's context, libraries and their
kernels), as the difference in the device's free memory since before it began. Nothing else may use the GPU meanwhile.

Left out: decoding, pixels from the store, checkpoints, scoring beyond two images. Needs neither Ray nor MLflow.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import BrokenBarrierError
from typing import Protocol

import torch

from benchmarks import heavy
from benchmarks.measure import Measured, NotHereError, Outcome, interleave, peak_resident, say
from grid.devices import bound_memory
from grid.spec import Scalar
from models.detector import MemoryExhausted

WAIT_S = 600.0  # for all neighbours to be ready; a process that fails ends the wait at once


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        changes: method -> what differs from its defaults; the methods are these.
        trained: images an epoch, where the method trains.
        encoded: images a batch, where it encodes.
        neighbours: processes at once.
        seconds: that each of them computes at least.
    """

    changes: Mapping[str, Mapping[str, Scalar]]
    trained: int = 512
    encoded: int = 32
    neighbours: tuple[int, ...] = (1, 2, 4)
    seconds: float = 5.0


FULL = Size({method: {} for method in heavy.alike() if heavy.uses_gpu(method)})
TOY = Size(
    {method: heavy.small(method) for method in ("xception_scratch", "sam_linear")},
    trained=8,
    encoded=4,
    neighbours=(1, 2),
    seconds=0.1,
)


@dataclass(frozen=True)
class Found:
    """What one process found.

    Attributes:
        fits: memory was enough for whole batches.
        rate: images per second.
        memory_gb: peak; on a GPU meaningful only where no other process began or ended beside this one.
    """

    fits: bool
    rate: float = 0.0
    memory_gb: float = 0.0


class _Barrier(Protocol):
    def wait(self, timeout: float | None = None) -> int: ...

    def abort(self) -> None: ...


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """No target: which share is right follows from the figures.

    Raises:
        NotHereError: torch sees no GPU. A toy then runs on the CPU, and its memory is the host's.
    """
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not toy:
        raise NotHereError("torch sees no GPU")
    size = TOY if toy else FULL
    sides = {
        name_of(method, number): partial(together, method, number, size, "cuda" if on_gpu else "cpu")
        for method in size.changes
        for number in size.neighbours
    }
    found = interleave(repeats, sides)
    kind = "device" if on_gpu else "host"
    figures: dict[str, Measured] = {}
    too_many = []
    for method in size.changes:
        for number in size.neighbours:
            each = found[name_of(method, number)]
            if not all(one.fits for repeat in each for one in repeat):
                too_many.append(name_of(method, number))
                continue
            if number == 1:
                memory = [repeat[0].memory_gb for repeat in each]
                figures[f"{method} memory"] = Measured(f"peak {kind} memory of a trial of {method}", "GB", memory)
            what = f"{'trained' if heavy.trains(method) else 'encoded'} by {number} at once on one {kind}: {method}"
            rates = [sum(one.rate for one in repeat) for repeat in each]
            figures[name_of(method, number)] = Measured(f"images per second {what}", "images/s", rates)
    setup = (
        f"random weights, noise; epochs of {size.trained} images, batches of {size.encoded} encoded; at least "
        f"{size.seconds:g} s each; memory that of the {kind}; did not fit: {', '.join(too_many) or 'none'}"
    )
    return Outcome(setup, figures)


def name_of(method: str, number: int) -> str:
    """A figure's name: the throughput of so many trials of the method at once."""
    return f"{method} × {number}"


def together(method: str, number: int, size: Size, device: str) -> list[Found]:
    """So many processes that compute the same at the same time, from when all of them are ready."""
    spawn = multiprocessing.get_context("spawn")
    free_before = _free_memory(device)
    arguments = (method, size, device, free_before, 1 / number)
    with ProcessPoolExecutor(number, spawn, initializer=_meet_at, initargs=(spawn.Barrier(number),)) as pool:
        running = [pool.submit(neighbour, *arguments) for _ in range(number)]
        found, errors = [], []
        for one in running:
            try:
                found.append(one.result())
            except Exception as error:
                errors.append(error)
    if errors:  # those that only waited in vain say nothing about the cause
        raise next((error for error in errors if not isinstance(error, BrokenBarrierError)), errors[0])
    rates = " + ".join(f"{one.rate:.3g}" if one.fits else "does not fit" for one in found)
    say(f"{name_of(method, number)}: {rates} images/s, {found[0].memory_gb:.3g} GB")
    return found


@dataclass
class Meeting:
    """Where the processes of one measurement wait for each other; set in each of them when it begins."""

    barrier: _Barrier | None = None


meeting = Meeting()


def _meet_at(barrier: _Barrier) -> None:
    meeting.barrier = barrier


def neighbour(method: str, size: Size, device: str, free_before: float, share: float) -> Found:
    """Compute once, wait for the others, then compute until the time is up.

    With one thread on a CPU; on a GPU with its share of the memory, as a trial.
    """
    barrier = meeting.barrier
    assert barrier is not None
    if device == "cpu":
        torch.set_num_threads(1)
    else:
        bound_memory(share)
    num_images = size.trained if heavy.trains(method) else size.encoded
    started = 0.0
    times = 0
    elapsed = 0.0

    def go_on() -> bool:
        nonlocal started, times, elapsed
        if not started:
            barrier.wait(WAIT_S)
            started = time.perf_counter()
            return True
        times += 1
        elapsed = time.perf_counter() - started
        return elapsed < size.seconds

    try:
        fits = heavy.work(method, heavy.settings(method, size.changes[method]), device, num_images, go_on)
    except (MemoryExhausted, torch.OutOfMemoryError):
        if not started:
            barrier.wait(WAIT_S)  # the others are measured all the same, so that they come to an end
        return Found(fits=False)
    except BaseException:
        barrier.abort()
        raise
    return Found(fits, times * num_images / elapsed, _peak_memory(device, free_before) / 1e9)


# The only lines that need a GPU --------------------------------------------------------------------------------------


def _free_memory(device: str) -> float:
    """Bytes of the device that no process holds, once this process has its own context there."""
    return float(torch.cuda.mem_get_info()[0]) if device == "cuda" else 0.0


def _peak_memory(device: str, free_before: float) -> float:
    """Bytes: the most that the allocator reserved, and what the process holds of the device besides it."""
    if device != "cuda":
        return peak_resident()
    held = free_before - _free_memory(device)
    return held - torch.cuda.memory_reserved() + torch.cuda.max_memory_reserved()
