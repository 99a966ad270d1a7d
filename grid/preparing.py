"""Prepares what trials share: pixels and features, before the trials start. Imports neither MLflow nor Ray."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from data.manifest import Manifest
from grid.devices import choose_device, use_device
from grid.plan import Inputs
from grid.settings import RunSettings
from grid.trial import build, fill_inputs, missing_inputs, set_threads


class Board:
    """An actor that collects the progress of preparing tasks for the driver."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, int], int] = {}

    def write(self, key: str, number: int, done: int) -> None:
        """Set the number of images that a task has done: task `number` of the input `key`."""
        self._done[key, number] = done

    def read(self, key: str) -> int:
        """Images done for an input; more than there are if two tasks counted the same image."""
        return sum(done for (name, _), done in self._done.items() if name == key)


@dataclass(frozen=True)
class Survey:
    """The preparation that an input still needs.

    Attributes:
        missing: number of images that are neither decoded nor encoded yet.
        encodes: whether a frozen encoder computes features; otherwise images are decoded, which needs no GPU.
        fits_on_cpu: whether trials can run on a CPU once features exist; false for bf16 features, which only a GPU run
            may use.
        warnings: lines that were logged as warnings.
    """

    missing: int
    encodes: bool
    fits_on_cpu: bool
    warnings: str


def survey_input(inputs: Inputs, settings: RunSettings, share: float) -> Survey:
    """Count what `prepare_input` would compute with the same share of a GPU: an encoder's key may depend on the device.

    Raises:
        ValueError: this node does not see the folder that the driver writes to.
    """
    manifest, device = _manifest(inputs, settings), choose_device(settings, share)
    with kept_warnings() as warnings:
        detector = build(inputs.spec, settings, device)
        missing = missing_inputs(detector, manifest, settings, inputs)
        fits_on_cpu, encoder = False, detector.encoder
        if encoder is not None:
            on_cpu = encoder if device == "cpu" else build(inputs.spec, settings, "cpu").encoder
            fits_on_cpu = on_cpu is not None and on_cpu.key == encoder.key
    return Survey(missing, encoder is not None, fits_on_cpu, warnings.getvalue())


def prepare_input(inputs: Inputs, settings: RunSettings, share: float, progress: Callable[[int, int], None]) -> str:
    """Decode or encode the images of an input that are missing; returns the warnings, one per line.

    Processes that do this at the same time, on any machines with the same cache, share the work.

    Raises:
        ValueError: this node does not see the folder that the driver writes to, or a file has changed.
        MemoryExhausted: one image is too large for the device.
    """
    manifest = _manifest(inputs, settings)
    set_threads(settings)
    with kept_warnings() as warnings:
        detector = build(inputs.spec, settings, use_device(settings, share))
        fill_inputs(detector, manifest, settings, inputs, progress=progress)
    return warnings.getvalue()


@contextmanager
def kept_warnings() -> Iterator[io.StringIO]:
    """Collect the warnings and errors that this process logs, because nobody sees the terminal of a worker."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield text
    finally:
        logging.getLogger().removeHandler(handler)


def _manifest(inputs: Inputs, settings: RunSettings) -> Manifest:
    folder = settings.manifests / inputs.spec.data
    if not folder.is_dir():
        raise ValueError(
            f"the node {os.uname().nodename} does not see {settings.cache}: give --runs (and --cache, where it lies "
            "elsewhere) a folder that all nodes of the cluster share"
        )
    return Manifest.load(folder)
