"""A small made-up data set with a planted signal, and a small version of each registered method."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from models.configs import NetworkConfig
from models.detector import BuildContext, Detector, Examples, FitSession
from models.registry import create_detector, detector_info, resolve_config, self_edits

DETECTION = ("real", "fake")
ATTRIBUTION = ("real", "lama", "ldm", "repaint", "pluralistic")
SIDE = 64


def make_images(labels: np.ndarray, seed: int) -> np.ndarray:
    """uint8 (N, SIDE, SIDE, 3): smooth noise; class c > 0 has stripes of c + 1 pixels and a tint of its own."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(128, 20, (len(labels), SIDE // 8, SIDE // 8, 3))
    images = coarse.repeat(8, axis=1).repeat(8, axis=2) + generator.normal(0, 6, (len(labels), SIDE, SIDE, 3))
    stripes = 1 + np.arange(SIDE)[:, None] + np.zeros(SIDE, dtype=int)  # no edge at even rows alone: npr sees 2 x 2
    for image, label in zip(images, labels, strict=True):
        if label:
            image += 25.0 * ((stripes // (label + 1)) % 2)[:, :, None]
            image[16:48, 16:48, label % 3] += 30.0 if label < 3 else -30.0
    return images.clip(0, 255).astype(np.uint8)


def make_labels(num_classes: int, num_each: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(num_classes), num_each))


# What makes a network learn the planted signal in a few steps.
QUICK = {"epochs": 4, "batch_size": 16, "learning_rate": 3e-3}
# The other solver of the linear methods: at these sizes, thirty steps instead of thousands.
ADAM = {"solver": "adam", "learning_rate": 0.02, "epochs": 30, "batch_size": 16}


def small(name: str, classes: tuple[str, ...] = DETECTION, seed: int = 0, **overrides: Any) -> Detector:
    """The small form of a method by its name, or with the other solver as "<method>+adam"."""
    name, _, solver = name.partition("+")
    info = detector_info(name)
    own = not isinstance(info.config, NetworkConfig) or "batch_size" in info.small  # its small form says how it trains
    quick = {} if own else QUICK
    config = resolve_config(name, {**info.small, **quick, **(ADAM if solver else {}), **overrides})
    return create_detector(name, config, BuildContext(classes, seed=seed))


class MadeMasks:
    """Masks in memory."""

    def __init__(self, masks: Sequence[np.ndarray | None]) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: np.ndarray) -> list[np.ndarray | None]:
        return [self.masks[int(number)] for number in index]


def make_masks(labels: np.ndarray) -> MadeMasks:
    """Fakes of `make_images` have stripes everywhere; of an eighth, at the top, the masks say nothing."""
    masks = np.zeros((len(labels), SIDE, SIDE), dtype=bool)
    masks[labels > 0, SIDE // 8 :] = True
    return MadeMasks(list(masks))


def examples(detector: Detector, num_each: int, seed: int, *, fakes: bool = True, masks: bool = False) -> Examples:
    labels = make_labels(len(detector.classes) if fakes else 1, num_each, seed)
    inputs = detector.inputs(list(make_images(labels, seed)))
    return Examples(inputs, labels, make_masks(labels) if masks else None)


class Masks(list[np.ndarray | None]):
    """Masks that are gathered by index."""

    def __getitem__(self, index: Any) -> Any:  # a list takes one number alone
        return [super(Masks, self).__getitem__(number) for number in np.arange(len(self))[index]]


def self_edited(detector: Detector, name: str, num_each: int, seed: int, edit_seed: int = 0) -> Examples:
    """Real images, and the same with a region blurred, once per recipe of the method; both seeds make the regions."""
    reals = make_images(np.zeros(num_each, dtype=np.int64), seed)
    rng = np.random.default_rng([seed, edit_seed])
    images, masks = list[np.ndarray](), Masks()
    for real in reals:
        top, left = rng.integers(0, SIDE // 4, size=2)
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        mask[top : top + SIDE // 2, left : left + SIDE // 2] = True
        blurred = gaussian_filter(real, (1.0, 1.0, 0))
        images += [real, np.where(mask[:, :, None], blurred, real)]
        list.extend(masks, [np.zeros_like(mask), mask])
    edits = self_edits(name, resolve_config(name, detector_info(name).small))
    count = len(edits)
    return Examples(
        detector.inputs(images * count),
        np.tile([0, 1], num_each * count),
        Masks(list(masks) * count),
        np.repeat(np.arange(count), len(images)),
    )


class Recorder:
    """A session that keeps what it is told; checkpoints go through a file's worth of bytes, as in earnest."""

    def __init__(self, checkpoint_at: Callable[[int], bool] = lambda count: False, resume: Any = None) -> None:
        self.epochs: list[tuple[int, dict[str, float]]] = []
        self.states: list[bytes] = []
        self.asked = 0
        self._checkpoint_at = checkpoint_at
        self.session = FitSession(
            on_epoch=lambda epoch, metrics: self.epochs.append((epoch, copy.copy(metrics))),
            checkpoint_due=self._due,
            save_checkpoint=self._save,
            resume=resume,
        )

    def _due(self) -> bool:
        self.asked += 1
        return self._checkpoint_at(self.asked)

    def _save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.states.append(buffer.getvalue())


def read_back(state: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(state), weights_only=True)
