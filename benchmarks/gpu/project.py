"""All that the checks assume of the project besides the interface of detectors. A change there changes this file."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, get_args

import numpy as np
import torch

from benchmarks import heavy, packing
from benchmarks.gpu.findings import Place
from benchmarks.gpu.running import is_ours
from benchmarks.measure import ROOT
from grid.devices import bound_memory
from grid.spec import Scalar
from models import memory
from models.configs import Precision
from models.detector import Detector

TRAINED = "xception_scratch"
ENCODERS = ("clip_linear", "sam_linear")
FULL, MIXED, TF32 = "full", "mixed", "tf32"


def precisions() -> list[str]:
    """Values of `precision` that methods take, the most exact first."""
    return [name for name in (FULL, TF32, MIXED) if name in get_args(Precision)]


def built(place: Place, method: str, **changes: Scalar) -> Detector:
    """A detector with random weights as published, or small, with these changes of its configuration."""
    small = heavy.small(method) if place.toy else {}
    return heavy.build(method, heavy.settings(method, {**small, **changes}), place.device)


def encode_at_once(detector: Detector, number: int) -> None:
    """Set how many pictures a frozen encoder takes in one forward pass."""
    encoder: Any = detector.encoder
    encoder.batch_size = number


def at_once(detector: Detector) -> int:
    """How many pictures a frozen encoder takes in one forward pass; fewer after memory ran out."""
    encoder: Any = detector.encoder
    return int(encoder.batch_size)


def encode(detector: Detector, pixels: np.ndarray) -> np.ndarray:
    """Features of a frozen encoder, float32 (N, D)."""
    assert detector.encoder is not None
    return detector.encoder.encode(pixels)


def hold_share(place: Place, share: float) -> None:
    """Bound this process to a share of the card's memory, as a trial is bound."""
    if place.on_gpu:
        bound_memory(share)


def neighbour(place: Place, method: str, size: packing.Size, free_before: float, share: float) -> packing.Found:
    """One of the processes of `benchmarks.packing`, with a share of the card's memory."""
    return packing.neighbour(method, size, place.device, free_before, share)


def hear_failures(texts: list[str]) -> None:
    """From now on, add the text of each error that `models.memory.fits` sees, which turns some into smaller batches."""
    fits = memory.fits

    def listening(compute: Callable[[], None]) -> bool:
        def heard() -> None:
            try:
                compute()
            except Exception as error:
                texts.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}")
                raise

        return fits(heard)

    for name, module in list(sys.modules.items()):
        if name.startswith("models.") and getattr(module, "fits", None) is fits:
            module.fits = listening  # type: ignore[attr-defined]


@contextmanager
def waits(place: Place) -> Iterator[Counter[str]]:
    """Count the calls within that wait for the GPU, by the line of the project that made them."""
    found: Counter[str] = Counter()

    def heard(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if "called a synchronizing CUDA operation" in str(message):
            found[_line()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = heard
        if place.on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if place.on_gpu:
                torch.cuda.set_sync_debug_mode("default")


def _line() -> str:
    """The innermost line of the project, benchmarks apart."""
    for frame in reversed(traceback.extract_stack()):
        if is_ours(frame.filename):
            path = Path(frame.filename).relative_to(ROOT)
            if path.parts[0] != "benchmarks":
                return f"{path}:{frame.lineno}"
    return "outside the project"
