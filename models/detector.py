"""What every detector is: the one interface between a method and the rest of the grid."""

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

REAL, FAKE = 0, 1
DETECTION_CLASSES = ("real", "fake")


class Rows(Protocol):
    """A read-only array whose rows are gathered by index; a numpy array is one, a memory map in shards another."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Examples:
    """Inputs with their class numbers.

    Attributes:
        inputs: pixels, uint8 (N, H, W, 3) in RGB, for a detector without an encoder; else features, float32 (N, D).
        labels: int64 (N,), indices into the detector's `classes`.
    """

    inputs: Rows
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.labels)} labels")


@dataclass(frozen=True)
class Prediction:
    """What one pass over images gives.

    Attributes:
        logits: float32 (N, C), C = number of classes.
        embeddings: float32 (N, D), the representation that the classifier sees.
    """

    logits: np.ndarray
    embeddings: np.ndarray


def fake_scores(logits: np.ndarray) -> np.ndarray:
    """Detection logits (N, 2) -> scores (N,): the log-odds of "fake". Higher means more likely fake; 0 is p = 0.5."""
    return logits[:, FAKE] - logits[:, REAL]


class Encoder(Protocol):
    """A frozen map from pixels to features, whose output may be cached because nothing in it trains.

    Attributes:
        key: names everything that the features depend on (architecture, weights' digest, preprocessing, pooling);
            at most 150 characters, safe as a folder name.
        num_features: D.
        geometry: how a picture becomes the square that `encode` takes; None where pictures come at their native size
            (then `encode` gets a list of (H, W, 3) arrays of any sizes).
    """

    key: str
    num_features: int
    geometry: Geometry | None

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (N, H, W, 3) -> float32 (N, D)."""
        ...


@dataclass
class FitSession:
    """What the caller lends a detector while it trains.

    Attributes:
        on_epoch: called once after each epoch with (epoch, metrics), epochs from 1; keys such as `train/loss`,
            `valid/loss`, `valid/accuracy`, `learning_rate`.
        checkpoint_due: asked between batches; True when enough time has passed for another checkpoint.
        save_checkpoint: takes a state that `torch.save` writes and `torch.load(weights_only=True)` reads.
        resume: the state last saved by an interrupted `fit` of the same trial, or None.
    """

    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, metrics: None
    checkpoint_due: Callable[[], bool] = lambda: False
    save_checkpoint: Callable[[dict[str, Any]], None] = lambda state: None
    resume: dict[str, Any] | None = None


@dataclass(frozen=True)
class CamTarget:
    """What Grad-CAM needs.

    Attributes:
        module: float32 (N, 3, H, W), normalised -> logits (N, C), with gradients through every layer.
        layers: the layers whose activations are weighted.
        normalise: uint8 (N, H, W, 3) -> what `module` takes.
        reshape: activations of those layers -> (N, channels, h, w); None where they already have that shape.
    """

    module: torch.nn.Module
    layers: list[torch.nn.Module]
    normalise: Callable[[torch.Tensor], torch.Tensor]
    reshape: Callable[[torch.Tensor], torch.Tensor] | None = None


class Detector(abc.ABC):
    """A classifier of face images: "real" and "fake" for detection, "real" and the generators for attribution.

    Attributes:
        classes: class names; class 0 is always "real".
        geometry: how a picture becomes the square that this detector sees; None: it sees pictures at their native size.
        encoder: None when the detector trains on pixels; else `fit` and `predict` take this encoder's features.
        weights_note: where the backbone's weights come from, in words fit for a table ("random weights", "ImageNet",
            "weight-free"); random weights that the method's name does not promise must be named here.
        batch_halved: training ran out of the device's memory, and its batches were computed in two halves since.
        threshold: log-odds above which an image is fake, where the method chooses it while it is fitted, as one that is
            trained without fakes must; None: it is chosen on the validation split.
        uses_seed: whether another seed may give another detector.
    """

    classes: tuple[str, ...]
    geometry: Geometry | None
    encoder: Encoder | None = None
    weights_note: str = ""
    batch_halved: bool = False
    threshold: float | None = None
    uses_seed: bool = True

    @abc.abstractmethod
    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Train, and keep the state that is best on `valid`. Raises `TrainingDiverged` when the loss is not finite."""

    @abc.abstractmethod
    def predict(self, inputs: Rows) -> Prediction:
        """Score every row once, in order; deterministic, evaluation mode."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted state into an existing empty folder, so that plain torch reads it (weights_only)."""

    @abc.abstractmethod
    def load(self, folder: Path) -> None:
        """Read what `save` wrote. Raises `ValueError` naming the file when it does not fit this detector."""

    def cam_target(self) -> CamTarget | None:
        """What Grad-CAM needs, or None for a method without a differentiable spatial layer."""
        return None

    def squares(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Decoded pictures, uint8 (H, W, 3) of any sizes -> uint8 (N, S, S, 3), as this detector sees them.

        Raises:
            ValueError: the detector sees pictures at their native size.
        """
        if self.geometry is None:
            raise ValueError("this detector sees pictures at their native size")
        return np.stack([self.geometry.apply(image) for image in images])

    def inputs(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Decoded pictures, uint8 (H, W, 3) of any sizes -> what `predict` takes: pixels or features."""
        pixels = images if self.geometry is None else self.squares(images)
        return np.asarray(pixels) if self.encoder is None else self.encoder.encode(pixels)


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; the message says when and what to try."""


class MemoryExhausted(RuntimeError):
    """Smaller batches do not fit into the device's memory either; the message says what to try."""


class WeightsError(RuntimeError):
    """Pretrained weights could not be had or do not fit; the message says which and what to do."""


@dataclass(frozen=True)
class BuildContext:
    """What a detector is built with besides its configuration.

    Attributes:
        classes: class names, "real" first.
        seed: of the trial; initial weights, data order and dropout follow from it alone. A frozen encoder does not
            depend on it, random weights included.
        device: a torch device string, "cpu" or "cuda".
        weight_files: digest (as in the configuration's `file:<digest>`) -> local path.
        restoring: `Detector.load` follows, so weights that the checkpoint holds need not be fetched.
    """

    classes: tuple[str, ...]
    seed: int = 0
    device: str = "cpu"
    weight_files: Mapping[str, Path] = field(default_factory=dict)
    restoring: bool = False
