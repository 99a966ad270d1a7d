"""Training on a card: resumed, carried to a CPU and back, without waiting, as fast as the card allows."""

from __future__ import annotations

import copy
import io
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import heavy
from benchmarks import training as epoch_benchmark
from benchmarks.gpu.findings import Finding, Place, Tell, part
from benchmarks.gpu.project import FULL, MIXED, TRAINED, built, encode, encode_at_once, waits
from grid.spec import Scalar
from models.backbones.base import BackboneRequest
from models.backbones.timm import timm_classifier
from models.detector import FitSession

Weights = dict[str, torch.Tensor]
EQUAL = "equal bit by bit"
STORE_TARGET = 0.90  # of the throughput of an epoch whose pixels are in the card's memory
EPOCHS = 2


# Again, resumed, carried ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A finished training: its weights, and the states that it saved, as bytes, by (epoch, step)."""

    weights: Weights
    states: dict[tuple[int, int], bytes]


def train(
    place: Place, changes: dict[str, Scalar], *, number: int, resume: bytes | None = None, keep: bool = False
) -> Run:
    """Train for two epochs on so many images; with `keep`, with a state after each step and each epoch."""
    detector = built(place, TRAINED, epochs=EPOCHS, flip=True, select="last", **changes)
    images = heavy.noise(detector, number)
    states: dict[tuple[int, int], bytes] = {}

    def save(state: dict[str, Any]) -> None:
        memory = io.BytesIO()
        torch.save(state, memory)
        states[int(state["epoch"]), int(state["step"])] = memory.getvalue()

    state = None if resume is None else torch.load(io.BytesIO(resume), map_location="cpu", weights_only=True)
    session = FitSession(checkpoint_due=lambda: keep, save_checkpoint=save, resume=state)
    detector.fit(heavy.examples(images), heavy.examples(images[:8]), session)
    with tempfile.TemporaryDirectory() as folder:
        detector.save(Path(folder))
        weights: Weights = torch.load(Path(folder) / "model.pt", map_location="cpu", weights_only=True)
    return Run(weights, states)


def difference(one: Weights, other: Weights) -> str | float:
    """`EQUAL`, or the largest difference of a weight, over the largest weight of the same tensor."""
    largest = 0.0
    for name, tensor in one.items():
        if not torch.equal(tensor, other[name]):
            a, b = tensor.double(), other[name].double()
            largest = max(largest, float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)))
            largest = largest or 1e-300  # not equal, whatever the rounding
    return largest or EQUAL


def resumed(place: Place, tell: Tell) -> None:
    """Training twice, and resumed from each saved state: equal bit by bit, or how far apart."""
    for precision in (MIXED, FULL):
        with part(tell, f"precision {precision}", EQUAL):
            changes: dict[str, Scalar] = {"batch_size": 4 if place.toy else 16, "precision": precision}
            number = 14 if place.toy else 60
            whole = train(place, changes, number=number, keep=True)
            again = difference(whole.weights, train(place, changes, number=number).weights)
            tell(Finding(f"{precision}: trained twice", again, EQUAL, again == EQUAL))
            for (epoch, step), state in whole.states.items():
                if precision == FULL and (epoch, step) not in ((1, 2), (EPOCHS, 0)):
                    continue
                gone_on = difference(whole.weights, train(place, changes, resume=state, number=number).weights)
                name = f"{precision}: resumed from epoch {epoch}, step {step}"
                tell(Finding(name, gone_on, EQUAL, gone_on == EQUAL))


def carried(place: Place, tell: Tell) -> None:
    """A state of a training carried from the GPU to the CPU, and one from the CPU to the GPU: each goes on."""
    cpu = replace(place, device="cpu")
    size: dict[str, Scalar] = {} if place.toy else {"size": 128}
    for precision in (MIXED, FULL):
        changes: dict[str, Scalar] = {"batch_size": 4 if place.toy else 8, "precision": precision, **size}
        whole: dict[str, Run] = {}
        for name, start, end in (("from the GPU to the CPU", place, cpu), ("from the CPU to the GPU", cpu, place)):
            with part(tell, f"{precision}: {name}", "goes on"):
                if start.device not in whole:
                    whole[start.device] = train(start, changes, number=16, keep=True)
                run = whole[start.device]
                far = [
                    difference(run.weights, train(end, changes, resume=run.states[position], number=16).weights)
                    for position in ((1, 1), (EPOCHS, 0))
                ]
                words = [value if value == EQUAL else f"{value:.2g} of the largest weight" for value in far]
                tell(place.on_card(Finding(f"{precision}: {name}", words, "goes on", True)))
                if not place.on_gpu:
                    met = all(value == EQUAL for value in far)
                    tell(Finding(f"{precision}: from the CPU to the CPU", words, EQUAL, met))


# Waiting -------------------------------------------------------------------------------------------------------------


def waiting(place: Place, tell: Tell) -> None:
    """Calls that wait for the GPU, in an epoch of training and in batches of encoding: how many, and which lines."""
    with part(tell, "training"):
        batch, steps = (4, 3) if place.toy else (8, 24)
        detector = built(place, TRAINED, epochs=2, batch_size=batch, flip=True)
        images = heavy.noise(detector, batch * steps)
        with ExitStack() as stack:
            lines: list[Any] = []

            def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
                if epoch == 1:  # the second is counted: all that is done once is done
                    lines.append(stack.enter_context(waits(place)))

            detector.fit(heavy.examples(images), heavy.examples(images[:2]), FitSession(on_epoch=on_epoch))
        (found,) = lines
        every_step = sorted(line for line, times in found.items() if times >= steps - 1)
        tell(place.on_card(Finding(f"training, waits in an epoch of {steps} steps", dict(found))))
        wanted = "none"
        tell(place.on_card(Finding("training, lines that wait in each step", every_step, wanted, not every_step)))
    for method in ("clip_linear", "sam_linear"):
        with part(tell, method):
            batches = 4
            detector = built(place, method)
            pixels = heavy.noise(detector, 2 * batches)
            encode_at_once(detector, 2)
            encode(detector, pixels)
            with waits(place) as found:
                encode(detector, pixels)
            total = sum(found.values())
            tell(place.on_card(Finding(f"{method}, waits in {batches} batches", dict(found))))
            name = f"{method}, waits of a batch"
            tell(place.on_card(Finding(name, total / batches, "at most 1", total <= batches)))


# Speed ---------------------------------------------------------------------------------------------------------------


def epoch(place: Place, tell: Tell) -> None:
    """An epoch from the store, over the same epoch with all pixels in the card's memory."""
    size = epoch_benchmark.TOY if place.toy else replace(epoch_benchmark.GPU, num_images=1536)
    from_store, from_memory = epoch_benchmark.epochs(size, 2 if place.toy else 5, place.device)
    ratio = median(from_memory) / median(from_store)
    tell(Finding("size", str(size)))
    tell(place.on_card(Finding("from the store, images/s", [size.num_images / value for value in from_store])))
    tell(place.on_card(Finding("in memory, images/s", [size.num_images / value for value in from_memory])))
    wanted = f"at least {STORE_TARGET:g}"
    tell(place.on_card(Finding("throughput from the store over that in memory", ratio, wanted, ratio >= STORE_TARGET)))


def layouts(place: Place, tell: Tell) -> None:
    """Steps of the training network in either memory layout, with cuDNN's deterministic algorithms and without."""
    name, side, number = ("test_resnet", 32, 4) if place.toy else ("xception41", 299, 32)
    built_once, _ = timm_classifier(BackboneRequest(name, "random", policy="squash", size=side), 2)
    rates: dict[str, float] = {}
    for deterministic in (True, False):
        for layout in ("channels last", "contiguous"):
            network = copy.deepcopy(built_once)
            with torch.backends.cudnn.flags(enabled=True, deterministic=deterministic, benchmark=False):
                step = _step(network, layout, place, side, number)
                label = f"{layout}, {'deterministic' if deterministic else 'free'}"
                rates[label] = rate(place, step, number, 0.05 if place.toy else 3.0)
                tell(place.on_card(Finding(f"{label}, images/s", rates[label])))
    ratio = rates["channels last, deterministic"] / rates["contiguous, deterministic"]
    tell(place.on_card(Finding("channels last over contiguous, as trained", ratio, "at least 1", ratio >= 1)))


def _step(network: torch.nn.Module, layout: str, place: Place, side: int, number: int) -> Callable[[], None]:
    """One step of training in bfloat16 on pixels in memory."""
    memory_format = torch.channels_last if layout == "channels last" else torch.contiguous_format
    network = network.to(place.device).to(memory_format=memory_format).train()
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    x = torch.randn(number, 3, side, side, device=place.device).contiguous(memory_format=memory_format)
    labels = torch.arange(number, device=place.device) % 2

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(place.device, dtype=torch.bfloat16):
            logits = network(x)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()

    return step


def rate(place: Place, work: Callable[[], object], number: int, seconds: float) -> float:
    """Images a second of work on `number` images, after it was done three times."""
    for _ in range(1 if place.toy else 3):
        work()
    _finish(place)
    started, times = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds or not times:
        work()
        times += 1
        if times % 4 == 0:
            _finish(place)
    _finish(place)
    elapsed = time.perf_counter() - started
    return number * times / elapsed


def _finish(place: Place) -> None:
    if place.on_gpu:
        torch.cuda.synchronize()
