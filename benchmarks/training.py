"""A training epoch from the pixel store, against the machine's limit: the same epoch on tensors already in memory.

The limit is a bare loop: the same network, batches, optimiser and arithmetic, over float tensors that are normalised,
on the device and in the network's memory format before the clock starts; no gathering, no mirroring, no bookkeeping,
and on a GPU no demand for deterministic algorithms. Whatever the shipped training does besides counts against it.
Both score the same few validation images at the end of an epoch. On a CPU both compute with one thread, because threads
wait for each other, and a machine that does something else besides makes that a matter of luck. Needs neither Ray nor
MLflow.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.grids import fill_with_noise
from benchmarks.heavy import NUM_VALID
from benchmarks.measure import Measured, NotHereError, Outcome, Target, ratios, say
from data.store import pixel_store
from models.backbones.base import BackboneRequest
from models.backbones.timm import timm_classifier
from models.detector import DETECTION_CLASSES, BuildContext, Examples, FitSession
from models.registry import create_detector, resolve_config

METHOD = "xception_scratch"


@dataclass(frozen=True)
class Size:
    """What is trained: timm's name, side in pixels, images an epoch, images a step."""

    backbone: str
    pixels: int
    num_images: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.backbone} at {self.pixels} px, {self.num_images} images in batches of {self.batch_size}"


CPU = Size("xception41", 128, 48, 16)
GPU = Size("xception41", 299, 4096, 32)
TOY = Size("test_resnet", 32, 8, 4)


def run_on_cpu(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: 0.95 of the limit's throughput."""
    size = TOY if toy else CPU
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _outcome(size, repeats, "cpu", f"{size}; 32 bits, one thread", Target(0.95, at_least=True))
    finally:
        torch.set_num_threads(threads)


def run_on_gpu(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: 0.90 of the limit's throughput.

    Raises:
        NotHereError: torch sees no GPU, or one that does not compute in bfloat16.
    """
    if not torch.cuda.is_available() or not torch.cuda.is_bf16_supported(including_emulation=False):
        raise NotHereError("torch sees no GPU that computes in bfloat16")
    size = TOY if toy else GPU
    return _outcome(size, repeats, "cuda", f"{size}; bf16", Target(0.90, at_least=True))


def _outcome(size: Size, repeats: int, device: str, setup: str, target: Target) -> Outcome:
    from_store, from_memory = epochs(size, repeats, device)
    figure = Measured(
        what=f"throughput of a training epoch from the store, over that on tensors in memory ({setup})",
        unit="ratio",
        values=ratios(from_memory, from_store),
        target=target,
        parts={"epoch from the store, s": from_store, "epoch in memory, s": from_memory},
    )
    return Outcome(f"{setup}; random pixels; one epoch to warm up", {"throughput": figure})


def epochs(size: Size, repeats: int, device: str) -> tuple[list[float], list[float]]:
    """Seconds of an epoch from the store and of one in memory, by turns, after one of each that is not counted."""
    settings = {"backbone": size.backbone, "size": size.pixels, "batch_size": size.batch_size, "epochs": repeats + 1}
    config = resolve_config(METHOD, settings | {"flip": True})
    detector = create_detector(METHOD, config, BuildContext(DETECTION_CLASSES, device=device))
    assert detector.geometry is not None
    with tempfile.TemporaryDirectory() as folder:
        store = pixel_store(Path(folder), detector.geometry)
        keys = [f"{number:064x}" for number in range(size.num_images + NUM_VALID)]
        fill_with_noise(store, keys, batch=32)
        train, valid = (
            Examples(store.open(part), np.arange(len(part)) % 2)
            for part in (keys[: size.num_images], keys[size.num_images :])
        )
        from_store: list[float] = []
        from_memory: list[float] = []
        in_memory = limit(size, device, learning_rate=float(config["learning_rate"]))
        started = time.perf_counter()

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            nonlocal started
            from_store.append(time.perf_counter() - started)
            from_memory.append(in_memory())
            say(f"epoch {epoch} of {repeats + 1}: store {from_store[-1]:.3g} s, memory {from_memory[-1]:.3g} s")
            started = time.perf_counter()

        detector.fit(train, valid, FitSession(on_epoch=on_epoch))
    return from_store[1:], from_memory[1:]


def limit(size: Size, device: str, *, learning_rate: float) -> Callable[[], float]:
    """A function that trains one epoch on tensors in memory and returns its seconds."""
    on_gpu = device == "cuda"
    request = BackboneRequest(size.backbone, "random", policy="squash", size=size.pixels)
    built, preprocessing = timm_classifier(request, len(DETECTION_CLASSES))
    network: nn.Module = built.to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True if on_gpu else None)  # as shipped
    side = preprocessing.size
    dtype = torch.bfloat16 if on_gpu else torch.float32

    def images(count: int) -> torch.Tensor:
        pixels = torch.randn(count, 3, side, side, device=device, dtype=dtype)
        return pixels.contiguous(memory_format=torch.channels_last)

    batches = [
        (images(count), torch.arange(count, device=device) % 2)
        for start in range(0, size.num_images, size.batch_size)
        for count in [min(size.batch_size, size.num_images - start)]
    ]
    valid = images(NUM_VALID)

    def epoch() -> float:
        started = time.perf_counter()
        with torch.backends.cudnn.flags(enabled=True, deterministic=False):
            network.train()
            for pixels, labels in batches:
                optimiser.zero_grad()
                with torch.autocast(
                    device, dtype=torch.bfloat16, enabled=on_gpu
                ):  # its copies of weights last one step
                    logits = network(pixels)
                nn.functional.cross_entropy(logits.float(), labels).backward()
                optimiser.step()
            network.eval()
            with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=on_gpu):
                network(valid).float().cpu()  # waits for the GPU
        return time.perf_counter() - started

    return epoch
