"""The interface of every detector, which is all that the rest of the grid knows of a method."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from models.geometry import Geometry

if TYPE_CHECKING:
    import torch

    from models.open_set import KnownClasses

REAL, FAKE = 0, 1
DETECTION_CLASSES = ("real", "fake")


class Rows(Protocol):
    """A read-only array whose rows are gathered by index, such as a numpy array or the rows of a store."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: np.ndarray) -> np.ndarray: ...


class Masks(Protocol):
    """Read-only masks that are gathered by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: np.ndarray) -> Sequence[np.ndarray | None]: ...


@dataclass(frozen=True)
class Examples:
    """Inputs with their class numbers. A further input of training becomes a field with a default.

    Attributes:
        inputs: features, float32 (N, D), if the detector has an encoder; else pixels, uint8 (N, H, W, 3) in RGB, or
            pictures of their native sizes as an object array (N,), each uint8 (H, W, 3), if it has no geometry.
        labels: int64 (N,), indices into the detector's `classes`.
        masks: the edited area of each picture, bool (H, W) in the picture's native size: nothing for a real picture,
            None for a fake without a mask. None: the method does not ask for them.
        recipes: int64 (N,), for a method that learns from self-edited pictures: by which of its recipes each picture is
            made (see `models.needs.SelfEdits`). None: no such pictures.
    """

    inputs: Rows
    labels: np.ndarray
    masks: Masks | None = None
    recipes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.labels)} labels")
        if self.masks is not None and len(self.masks) != len(self.labels):
            raise ValueError(f"{len(self.masks)} masks but {len(self.labels)} labels")
        if self.recipes is not None and len(self.recipes) != len(self.labels):
            raise ValueError(f"{len(self.recipes)} recipes but {len(self.labels)} labels")


@dataclass(frozen=True)
class Prediction:
    """A detector's outputs for some images.

    Attributes:
        logits: float32 (N, C), C = number of classes.
        embeddings: float32 (N, D), the classifier's inputs.
    """

    logits: np.ndarray
    embeddings: np.ndarray


def fake_scores(logits: np.ndarray) -> np.ndarray:
    """Detection logits (N, 2) -> scores (N,): the log-odds of "fake". Higher means more likely fake; 0 is p = 0.5."""
    return logits[:, FAKE] - logits[:, REAL]


class Encoder(Protocol):
    """A frozen map from pixels to features. Nothing in it trains, so its features may be stored.

    Attributes:
        key: identifies everything on which the features depend (architecture, digest of the weights, preprocessing,
            pooling); at most 150 characters, safe as a folder name.
        num_features: D.
        geometry: the transform from a picture to the square that `encode` takes; None: `encode` takes pictures of their
            native size, as a list of (H, W, 3) arrays.
        device: type of the device that computes, "cpu" or "cuda". On a GPU, two threads call `encode` at the same time,
            so that one batch is copied while another is computed.
    """

    key: str
    num_features: int
    geometry: Geometry | None
    device: str

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (N, H, W, 3) -> float32 (N, D); four channels if the geometry adds one."""
        ...


@dataclass
class FitSession:
    """Callbacks and the state to resume from, for one call of `Detector.fit`.

    Attributes:
        on_epoch: called once after each epoch with (epoch, metrics), epochs from 1; keys such as `train/loss`,
            `valid/loss`, `valid/accuracy`, `learning_rate`.
        checkpoint_due: called between batches; returns True if it is time for another checkpoint.
        save_checkpoint: takes a state that `torch.save` can write and `torch.load(weights_only=True)` can read.
        resume: the last saved state of an interrupted `fit` of the same trial, or None.
    """

    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, metrics: None
    checkpoint_due: Callable[[], bool] = lambda: False
    save_checkpoint: Callable[[dict[str, Any]], None] = lambda state: None
    resume: dict[str, Any] | None = None


@dataclass(frozen=True)
class CamTarget:
    """A detector's parts that Grad-CAM needs.

    Attributes:
        module: normalised float32 (N, 3, H, W) -> logits (N, C), with gradients through every layer.
        layers: the layers whose activations are weighted.
        normalise: uint8 (N, H, W, 3), or four channels if the geometry adds one -> the input of `module`.
        reshape: activations of those layers -> (N, channels, h, w); None: they already have that shape.
    """

    module: torch.nn.Module
    layers: list[torch.nn.Module]
    normalise: Callable[[torch.Tensor], torch.Tensor]
    reshape: Callable[[torch.Tensor], torch.Tensor] | None = None


class Detector(abc.ABC):
    """A classifier of face images: "real" and "fake" for detection, "real" and the generators for attribution.

    Attributes:
        classes: class names; class 0 is always "real".
        geometry: the transform from a picture to the detector's square input; None: it takes pictures of their native
            size.
        encoder: `fit` and `predict` take this encoder's features; None: they take pixels. Without an encoder and
            without a geometry, they take pictures of their native sizes as an object array.
        weights_note: origin of the backbone's weights, in words for a table ("random weights", "ImageNet",
            "weight-free"). Random weights must be named here, unless the method's name promises them.
        batch_halved: whether training ran out of the device's memory and continued with batches in two halves.
        threshold: score above which an image counts as fake, if `fit` chooses it, as for a method trained without
            fakes; None: the grid chooses it on the validation split.
        known: what the known classes are like, set by the grid after `fit` or `load` for a task with images of no
            class; None: no such task.
    """

    classes: tuple[str, ...]
    geometry: Geometry | None
    encoder: Encoder | None = None
    weights_note: str = ""
    batch_halved: bool = False
    threshold: float | None = None
    known: KnownClasses | None = None

    @abc.abstractmethod
    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Train, and keep the state that is best on `valid`. Raises `TrainingDiverged` if the loss is not finite."""

    @abc.abstractmethod
    def predict(self, inputs: Rows) -> Prediction:
        """Score every row once, in order, deterministically, in evaluation mode."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted state into an existing empty folder, so that plain torch can read it (weights_only)."""

    @abc.abstractmethod
    def load(self, folder: Path) -> None:
        """Read a saved state. Raises `ValueError`, which names the file, if it does not fit this detector."""

    def cam_target(self) -> CamTarget | None:
        """The parts for Grad-CAM, or None for a method without a differentiable spatial layer."""
        return None

    def maps(self, pixels: np.ndarray) -> np.ndarray | None:
        """Where pictures are fake, by the detector itself; None for a method that has no maps.

        Args:
            pixels: uint8 (N, H, W, 3): squares of the geometry, or pictures of one native size.

        Returns:
            float32 (N, h, w): the log-odds of fake of each cell of a grid that covers the pixels evenly.
        """
        return None

    def squares(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Decoded pictures, uint8 (H, W, 3) of any sizes -> squares, uint8 (N, S, S, 3); see `Geometry` for alpha.

        Raises:
            ValueError: the detector takes pictures of their native size.
        """
        if self.geometry is None:
            raise ValueError("this detector takes pictures of their native size")
        return np.stack([self.geometry.apply(image) for image in images])

    def inputs(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Decoded pictures, uint8 (H, W, 3) of any sizes -> the inputs of `predict`: pixels or features."""
        pixels = images if self.geometry is None else self.squares(images)
        if self.encoder is not None:
            return self.encoder.encode(pixels)
        return pixels if isinstance(pixels, np.ndarray) else of_native_size(pixels)


def of_native_size(images: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures, uint8 (H, W, 3) of any sizes -> an object array (N,) of them."""
    rows = np.empty(len(images), dtype=object)
    for number, image in enumerate(images):
        rows[number] = image
    return rows


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; the message says when, and what to try."""


class MemoryExhausted(RuntimeError):
    """Even smaller batches do not fit into the device's memory; the message says what to try."""


class WeightsError(RuntimeError):
    """Pretrained weights cannot be had or do not fit; the message says which weights, and what to do."""


@dataclass(frozen=True)
class BuildContext:
    """The arguments of a method's builder, besides its configuration.

    Attributes:
        classes: class names, "real" first.
        seed: the trial's seed, which alone determines initial weights, data order and dropout. Frozen encoders do not
            depend on it, even with random weights.
        device: a torch device string, "cpu" or "cuda".
        weight_files: digest (as in the configuration's `file:<digest>`) -> local path.
        restoring: `Detector.load` will be called, so weights that the checkpoint holds need not be fetched.
    """

    classes: tuple[str, ...]
    seed: int = 0
    device: str = "cpu"
    weight_files: Mapping[str, Path] = field(default_factory=dict)
    restoring: bool = False
