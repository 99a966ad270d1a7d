"""What an image costs each method of the published experiment: its arithmetic, and the time of a CPU's cores.

Arithmetic is counted by torch while the shipped code runs once on the real architecture: multiplications and additions
of convolutions, matrix products and attention, two for each pair of factors; normalisation, activations and Adam are
not in it. It is exact, and the same on every machine. Methods that differ in weights and learning rate only are
measured once, weights are random in place of downloaded ones, and the images are noise in memory.

Core time is wall clock times the cores that compute: all that this process may use, and for the weight-free method one,
because it uses no more. The shipped training takes few images at once here, so that it ends. What is done once is not
counted. Left out: decoding, the pixel store, scoring, fitting linear classifiers. Needs neither Ray nor MLflow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import heavy, machine
from benchmarks.measure import Measured, Outcome, say, time_is_up
from grid.spec import Scalar
from models.detector import FitSession

AT_ONCE = 8  # images a training step takes here; as published 32


@dataclass(frozen=True)
class Case:
    """Images a repeat, and what differs from the method's defaults."""

    num_images: int
    changes: Mapping[str, Scalar]


FULL = {
    "xception_scratch": Case(AT_ONCE, {"batch_size": AT_ONCE}),
    "clip_linear": Case(4, {}),
    "sam_linear": Case(1, {}),
    "residual_linear": Case(32, {}),
}
TOY = {
    "xception_scratch": Case(4, heavy.small("xception_scratch")),
    "sam_linear": Case(1, heavy.small("sam_linear")),
    "residual_linear": Case(1, heavy.small("residual_linear")),
}


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """No target: what is dear is the method itself."""
    cases = TOY if toy else FULL
    num_cores = machine.cores()
    threads = torch.get_num_threads()
    figures: dict[str, Measured] = {}
    for method, case in cases.items():
        config = heavy.settings(method, case.changes)
        if heavy.uses_gpu(method):
            say(f"arithmetic of {method}")
            figures[f"{method} arithmetic"] = arithmetic(method, config)
        cores = num_cores if heavy.uses_gpu(method) else 1
        torch.set_num_threads(cores)
        try:
            seconds = each_time(method, config, case.num_images, repeats)
        finally:
            torch.set_num_threads(threads)
        num_images: float = case.num_images
        if heavy.trains(method):  # it scores a few images too, which count by their share of the arithmetic
            counted = figures[f"{method} arithmetic"]
            num_images += heavy.NUM_VALID * counted.parts["scored, GFLOP"][0] / counted.values[0]
        figures[f"{method} time"] = Measured(
            f"time of a CPU's cores an image {'trained on' if heavy.trains(method) else 'encoded'}: {method}",
            "core-s",
            [cores * one / num_images for one in seconds],
            parts={f"on {cores} core{'s' if cores > 1 else ''}, images/s": [num_images / one for one in seconds]},
        )
    numbers = ", ".join(f"{case.num_images} of {method}" for method, case in cases.items())
    return Outcome(f"images a repeat: {numbers}; {num_cores} cores; 32 bits; one repeat to warm up", figures)


def each_time(method: str, config: heavy.Config, num_images: int, repeats: int) -> list[float]:
    """Seconds of the method's work on so many images on the CPU, one value a repeat, after one that is not counted."""
    marks: list[float] = []

    def go_on() -> bool:
        marks.append(time.perf_counter())
        if len(marks) > 1:
            say(f"repeat {len(marks) - 1} of {repeats}: {method} {marks[-1] - marks[-2]:.3g} s")
        return len(marks) <= repeats and not (len(marks) > 1 and time_is_up())

    heavy.work(method, config, "cpu", num_images, go_on)
    return [after - before for before, after in pairwise(marks)]


def arithmetic(method: str, config: heavy.Config) -> Measured:
    """Of an image trained on or encoded, and, for a method that trains, of an image scored."""
    detector = heavy.build(method, config, "cpu")
    images = heavy.noise(detector, 2)  # the fewest that batch normalisation trains on
    once = "counted, not timed: every repeat would give the same"
    if detector.encoder is not None:
        encoder = detector.encoder
        forward = operations(lambda: encoder.encode(images[:1])) / 1e9
        return Measured(f"arithmetic per image encoded: {method}", "GFLOP", [forward], fewer_because=once)
    scored = operations(lambda: detector.predict(images)) / len(images)
    both = heavy.examples(images)
    trained = operations(lambda: detector.fit(both, both, FitSession())) / len(images) - scored  # it scores them too
    parts = {"scored, GFLOP": [scored / 1e9]}
    return Measured(f"arithmetic per image trained on: {method}", "GFLOP", [trained / 1e9], None, parts, once)


def operations(work: Callable[[], object]) -> int:
    """Multiplications and additions in `work`: those of convolutions, matrix products and attention."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one large kernel is not known to the counter
    try:
        mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


def _convolution_backward(
    grad_out: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """From shapes. Torch's own formula, as of 2.15, counts the gradient of a depthwise weight as that of a full one."""
    places = x if transposed else grad_out
    forward = 2 * places[0] * math.prod(places[2:]) * math.prod(weight)
    return forward * (int(output_mask[0]) + int(output_mask[1]))
