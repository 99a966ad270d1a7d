"""The settings of the two families of methods. Importing this imports no heavy package."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

Resize = Literal["squash", "crop", "pad"]
Precision = Literal["mixed", "tf32", "full"]
Size = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def colours(text: str) -> tuple[float, float, float]:
    """Three numbers from a text "R,G,B". Raises `ValueError` for other text."""
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"must be three numbers R,G,B for pixels from 0 to 1, such as 0.5,0.5,0.5; got {text!r}"
        ) from None
    return red, green, blue


def _mean(text: str | None) -> str | None:
    if text is not None and not all(0 <= value <= 1 for value in colours(text)):
        raise ValueError(f"must be for pixels from 0 to 1, so each of its numbers too; got {text!r}")
    return None if text is None else ",".join(map(str, colours(text)))


def _std(text: str | None) -> str | None:
    if text is not None and not all(0 < value <= 1 for value in colours(text)):
        raise ValueError(f"must be for pixels from 0 to 1, so each of its numbers above 0 and at most 1; got {text!r}")
    return None if text is None else ",".join(map(str, colours(text)))


@dataclass(frozen=True)
class NetworkConfig:
    """A network that trains in full, with Adam and cross-entropy.

    Attributes:
        backbone: a timm name, with a pretraining tag if needed ("xception41.tf_in1k").
        weights: see `models.weights`; the classifier is always new.
        size: side of the square input in pixels; 0: the backbone's default.
        resize: "squash" the whole image to that size, "crop" its centre as in timm's evaluation, or "pad" it to a
            square.
        epochs: passes over the training images.
        batch_size: images per step of the optimiser; at least 2, because batch normalisation has no variance over one
            image.
        learning_rate: Adam's constant learning rate.
        weight_decay: weight of Adam's L2 penalty, whose gradient is `weight_decay` times the weights.
        flip: mirror half of the training images, chosen anew in each epoch.
        precision: on a GPU, "mixed" computes in 16 bits, "tf32" in 32 bits but with factors of 19 bits, "full" in 32
            bits. A CPU always computes in 32 bits.
        select: keep the "best" epoch by validation loss, or the "last" epoch.
        compile: compile the network with torch.compile. It needs a C compiler on the node and takes about a minute at
            the start of a trial, so it pays only in trials of many minutes (by how much is not measured). A resumed
            training then ends equal only up to rounding.
    """

    backbone: str
    weights: str
    size: Size = 0
    resize: Resize = "squash"
    epochs: Count = 1
    batch_size: Annotated[int, Field(ge=2)] = 32
    learning_rate: Rate = 1e-3
    weight_decay: Penalty = 0.0
    flip: bool = False
    precision: Precision = "mixed"
    select: Literal["best", "last"] = "best"
    compile: bool = False


@dataclass(frozen=True)
class ProbeConfig:
    """A linear classifier on given features: logistic regression.

    Attributes:
        solver: "lbfgs" finds the optimum on all standardised features, whatever the seed. "adam" starts from random
            weights, takes minibatches of features without standardisation, and keeps the epoch with the best validation
            loss.
        l2: weight of the penalty |W|^2 / 2 beside the *mean* cross-entropy. 0: L-BFGS tries `models.linear.L2_CHOICES`,
            the strongest first, until the validation loss rises, and keeps the best; Adam has no penalty.
        max_iterations: iterations of L-BFGS per value of `l2`.
        epochs: Adam's passes over the training images.
        batch_size: Adam's images per step.
        learning_rate: Adam's constant learning rate.
    """

    solver: Literal["lbfgs", "adam"] = "lbfgs"
    l2: Penalty = 0.0
    max_iterations: Count = 1000
    epochs: Count = 100
    batch_size: Count = 256
    learning_rate: Rate = 1e-4


def starts_at_random(config: ProbeConfig) -> bool:
    """Whether the fit depends on the seed: L-BFGS finds the same optimum from any seed."""
    return config.solver == "adam"


@dataclass(frozen=True)
class LinearConfig(ProbeConfig):
    """A linear classifier on the features of a frozen backbone.

    Attributes:
        backbone: an architecture of the method's family (timm, open_clip or segment-anything).
        weights: see `models.weights`.
        size: side of the square input in pixels; 0: the backbone's default.
        resize: "own": the default of the backbone's authors; else "squash", "crop" or "pad" (see `NetworkConfig`).
        precision: as in `NetworkConfig`, for the features.
    """

    backbone: str = ""
    weights: str = "hub"
    size: Size = 0
    resize: Literal["own", "squash", "crop", "pad"] = "own"
    precision: Precision = "full"


@dataclass(frozen=True)
class SamConfig(LinearConfig):
    """A linear classifier on the features of SAM's image encoder.

    Attributes:
        padding: "zero" if the data set has pictures that are not square and `resize` fills them up; the grid sets it.
            It gives these trials and their features another key than in earlier checkouts, where the filled part was in
            the average. It changes nothing else.
    """

    padding: Literal["zero", None] = None


@dataclass(frozen=True)
class ClipConfig(LinearConfig):
    """A linear classifier on the features of an open_clip tower.

    The last three settings say how the backbone's weights were trained. None, the default: as all published weights of
    the architecture were; if these differ, or there are none, the settings must be given. Weights from the hub bring
    them, so they cannot be set there.

    Attributes:
        mean: mean of R, G and B for pixels in [0, 1], as "R,G,B".
        std: standard deviation of R, G and B, likewise.
        interpolation: of resizing.
    """

    mean: Annotated[str | None, AfterValidator(_mean)] = None
    std: Annotated[str | None, AfterValidator(_std)] = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", None] = None
