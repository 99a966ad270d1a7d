"""What each method of the published experiment does most of the time: train on images, or encode them.

It is the shipped code that works here: `fit` of a method that trains its network, `encode` of a frozen encoder's. The
images are noise that lies in memory, and weights are random in place of downloaded ones; neither changes how much
memory or time a step takes. Needs neither Ray nor MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from grid.experiments.dolos import dolos
from grid.spec import Scalar
from models.configs import NetworkConfig
from models.detector import DETECTION_CLASSES, BuildContext, Detector, Examples, FitSession
from models.registry import create_detector, detector_info, resolve_config

Config = dict[str, Scalar]

NUM_VALID = 2
SIDE = 256  # of an image of the published data set, pixels: what an encoder that takes images as they are is given
_ENDLESS = 10**9  # epochs


class _EnoughError(Exception):
    pass


def settings(method: str, overrides: Mapping[str, Scalar] | None = None) -> Config:
    """The method's configuration as published, with these changes, and random weights where it has any."""
    config = resolve_config(method, {**dolos.methods[method], **(overrides or {})})
    return config | ({"weights": "random"} if "weights" in config else {})


def small(method: str) -> Config:
    """Settings with which the work takes seconds: the small ones and, for a training, one epoch in batches of four."""
    return {**detector_info(method).small, **({"epochs": 1, "batch_size": 4} if trains(method) else {})}


def alike() -> dict[str, list[str]]:
    """Method -> the methods that do the same work, itself included; those that share it are listed once.

    Work is the same where only weights and learning rate differ.
    """
    groups: dict[tuple[object, ...], list[str]] = {}
    for method in dolos.methods:
        config = {name: value for name, value in settings(method).items() if name not in ("weights", "learning_rate")}
        config["backbone"] = str(config.get("backbone", "")).partition(".")[0]  # without timm's tag of weights
        kind = type(detector_info(method).config)
        groups.setdefault((kind, *sorted(config.items())), []).append(method)
    return {methods[0]: methods for methods in groups.values()}


def trains(method: str) -> bool:
    """Whether the method trains on images; else it encodes each image once."""
    return isinstance(detector_info(method).config, NetworkConfig)


def uses_gpu(method: str) -> bool:
    """Whether its trials ask for a share of a GPU."""
    return detector_info(method).gpu_share > 0


def build(method: str, config: Config, device: str) -> Detector:
    """The detector, which computes on `device`."""
    return create_detector(method, config, BuildContext(DETECTION_CLASSES, device=device))


def noise(detector: Detector, num_images: int) -> np.ndarray:
    """Random pixels of the detector's size, uint8 (N, S, S, 3)."""
    side = SIDE if detector.geometry is None else detector.geometry.size
    return np.random.default_rng(0).integers(0, 256, (num_images, side, side, 3), dtype=np.uint8)


def examples(images: np.ndarray) -> Examples:
    """The images with both classes by turns."""
    return Examples(images, np.arange(len(images)) % len(DETECTION_CLASSES))


def work(method: str, config: Config, device: str, num_images: int, go_on: Callable[[], bool]) -> bool:
    """Train on so many images, or encode them, again and again until `go_on`, asked after each time, says no.

    The device has finished its work when `go_on` is asked. A training scores two validation images each time besides.

    Returns:
        whether memory was enough for whole batches.

    Raises:
        MemoryExhausted: it was not enough for the smallest either.
    """
    detector = build(method, config | ({"epochs": _ENDLESS} if trains(method) else {}), device)
    images = noise(detector, num_images)
    if detector.encoder is not None:
        pictures: np.ndarray | Sequence[np.ndarray] = list(images) if detector.geometry is None else images
        at_once = getattr(detector.encoder, "batch_size", None)
        detector.encoder.encode(pictures)
        while go_on():
            detector.encoder.encode(pictures)
        return getattr(detector.encoder, "batch_size", None) == at_once

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if not go_on():
            raise _EnoughError

    with suppress(_EnoughError):
        detector.fit(examples(images), examples(images[:NUM_VALID]), FitSession(on_epoch=on_epoch))
    return not detector.batch_halved
