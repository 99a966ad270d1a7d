"""The settings of the families of methods. Importing this imports no heavy package."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

Resize = Literal["squash", "crop", "pad", "native"]
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


def channel_numbers(text: str) -> list[int]:
    """Whole numbers from a text "512,256". Raises `ValueError` for other text, and for numbers below 1."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ValueError(f"must be whole numbers above 0, joined by commas, such as 512,256,128,64; got {text!r}")
    return numbers


def _channels(text: str) -> str:
    return ",".join(map(str, channel_numbers(text)))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network trains, with Adam.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step of the optimiser; at least 2, because batch normalisation has no variance over one
            image.
        learning_rate: Adam's learning rate: constant, or where the method's schedule starts.
        weight_decay: weight of Adam's L2 penalty, whose gradient is `weight_decay` times the weights.
        precision: on a GPU, "mixed" computes in 16 bits, "tf32" in 32 bits but with factors of 19 bits, "full" in 32
            bits. A CPU always computes in 32 bits.
        select: keep the "best" epoch by validation loss, or the "last" epoch.
    """

    epochs: Count = 1
    batch_size: Annotated[int, Field(ge=2)] = 32
    learning_rate: Rate = 1e-3
    weight_decay: Penalty = 0.0
    precision: Precision = "mixed"
    select: Literal["best", "last"] = "best"


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(TrainingConfig):
    """A timm network that trains on pixels.

    Attributes:
        backbone: a timm name, with a pretraining tag if needed ("xception41.tf_in1k").
        weights: "random"; "hub", or "hub:TAG" for others of its published ones; a file by `--weights METHOD=FILE`. The
            classifier is always new.
        size: side of the square input in pixels; 0: the backbone's default.
        resize: "squash" the whole image to that size, "crop" its centre as in timm's evaluation, or "pad" it to a
            square. "native": no resize; train on squares cut out at random places, and predict the mean over tiles that
            cover the picture. Where a picture is smaller than the square, the rest is filled with the mean colour.
        flip: mirror half of the training images, chosen anew in each epoch.
        compile: compile the network with torch.compile. It needs a C compiler on the node and takes about a minute at
            the start of a trial, so it pays only in trials of many minutes (by how much is not measured). A resumed
            training then ends equal only up to rounding.
    """

    backbone: str
    weights: str
    size: Size = 0
    resize: Resize = "squash"
    flip: bool = False
    compile: bool = False


@dataclass(frozen=True)
class ProbeConfig:
    """A linear classifier on given features: logistic regression.

    Attributes:
        solver: "lbfgs" finds the optimum on all standardised features, whatever the seed. "adam" starts from random
            weights, takes minibatches of features without standardisation, and keeps the epoch with the best validation
            loss.
        l2: weight of the penalty |W|^2 / 2 beside the *mean* cross-entropy. 0: L-BFGS tries 1, 0.1, 0.01, 0.001
            and 0.0001, the strongest first, until the validation loss rises, and keeps the best; Adam has no penalty.
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


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A frozen backbone.

    Attributes:
        backbone: an architecture of the method's family (timm, open_clip or segment-anything).
        weights: "random"; "hub", or "hub:TAG" for others of its published ones; a file by `--weights METHOD=FILE`.
        size: side of the square input in pixels; 0: the backbone's default.
        resize: "own": the default of the backbone's authors; else "squash" the whole image to that size, "crop" its
            centre, or "pad" it to a square; "native": features are the mean over tiles that cover the picture, without
            a resize.
        precision: of the features, on a GPU: "mixed" computes in 16 bits, "tf32" in 32 bits but with factors of 19
            bits, "full" in 32 bits. A CPU always computes in 32 bits.
    """

    backbone: str = ""
    weights: str = "hub"
    size: Size = 0
    resize: Literal["own", "squash", "crop", "pad", "native"] = "own"
    precision: Precision = "full"


@dataclass(frozen=True, kw_only=True)
class LinearConfig(EncoderConfig, ProbeConfig):
    """A linear classifier on the features of a frozen backbone."""


@dataclass(frozen=True, kw_only=True)
class SamConfig(LinearConfig):
    """A linear classifier on the features of SAM's image encoder.

    Attributes:
        padding: "zero" if the data set has pictures that are not square and `resize` fills them up; the grid sets it.
            It gives these trials and their features another key than in earlier checkouts, where the filled part was in
            the average. It changes nothing else.
    """

    padding: Literal["zero", None] = None


@dataclass(frozen=True, kw_only=True)
class ClipPreparation:
    """How pictures are prepared for an open_clip tower.

    These settings say how the backbone's weights were trained. None, the default: as all published weights of
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


@dataclass(frozen=True, kw_only=True)
class ClipConfig(ClipPreparation, LinearConfig):
    """A linear classifier on the features of an open_clip tower."""


@dataclass(frozen=True)
class EditsConfig(ProbeConfig):
    """A linear classifier that learns from self-edited photographs.

    Attributes:
        edits: edited versions of each photograph, at most.
        most_edits: edited versions of all photographs of a split, at most; there are as many real ones.
    """

    edits: Count = 4
    most_edits: Count = 10_000


@dataclass(frozen=True)
class WindowsConfig:
    """A small network on the statistics of windows, and logistic regression on those of the whole image.

    Attributes:
        edits: edited versions of each photograph for the windows, at most; half of them for each pass of processing.
        most_edits: edited versions of all photographs, at most; there are as many real ones. It bounds the time of
            training.
        whole_edits: as `edits`, for whole images.
        most_whole_edits: as `most_edits`, for whole images.
        most_valid_edits: as `most_edits`, of the validation photographs: the scale, the threshold and the temperature
            rest on these.
        windows: windows of each picture that are learned from, at most.
        top: share of an image's windows whose mean is its score.
        hidden: units of the network's one hidden layer.
        dropout: of its input and of its hidden layer.
        epochs: passes over the windows.
        batch_size: windows per step of AdamW.
        learning_rate: AdamW's, at the start of a cosine.
        weight_decay: AdamW's.
    """

    edits: Count = 36
    most_edits: Count = 2160
    whole_edits: Count = 4
    most_whole_edits: Count = 1000
    most_valid_edits: Count = 300
    windows: Count = 30
    top: float = Field(default=0.1, gt=0, le=1)
    hidden: Annotated[int, Field(ge=1, le=16_384)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    epochs: Count = 4
    batch_size: Count = 256
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.03


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(ClipPreparation, EncoderConfig):
    """Distances between a frozen backbone's features of a picture and of its disturbed versions; nothing is trained.

    Means, deviations and interpolation: only for open_clip.

    Attributes:
        library: of the backbone.
        edits: edited versions of each validation photograph, at most, from which the strength is chosen.
        most_edits: edited versions of all of them, at most.
    """

    library: Literal["timm", "open_clip"] = "timm"
    backbone: str = "vit_large_patch14_dinov2.lvd142m"
    size: Size = 224
    edits: Count = 4
    most_edits: Count = 2000


@dataclass(frozen=True, kw_only=True)
class TokenConfig(ClipPreparation, EncoderConfig):
    """A frozen vision transformer whose patch tokens are read. Means, deviations and interpolation: only for open_clip.

    Attributes:
        family: the library of the backbone.
        depth: share of the backbone's blocks after which tokens are taken, rounded up to a block.
    """

    family: Literal["open_clip", "timm"] = "open_clip"
    backbone: str = "ViT-L-14-quickgelu"
    weights: str = "hub:openai"
    resize: Literal["own", "squash", "crop", "pad"] = "squash"
    depth: Annotated[float, Field(gt=0, le=1)] = 0.875


@dataclass(frozen=True, kw_only=True)
class MaskLinearConfig(TokenConfig):
    """A linear classifier on patch tokens.

    Attributes:
        tokens: at most so many tokens are trained on, as many of each picture; of 1,024 numbers each, 200,000 take 0.8
            GB. A quarter of it for validation.
        l2: weight of the penalty |W|^2 / 2 beside the mean cross-entropy. 0: 1, 0.1, 0.01, 0.001 and 0.0001, the
            strongest first, until the validation loss rises.
        max_iterations: iterations of L-BFGS per value of `l2`.
    """

    tokens: Count = 200_000
    l2: Penalty = 0.0
    max_iterations: Count = 300


@dataclass(frozen=True, kw_only=True)
class MaskDecoderConfig(TokenConfig):
    """A convolutional decoder on patch tokens, with AdamW and cross-entropy per pixel.

    Attributes:
        channels: of the stages, each of which doubles the sides, joined by commas.
        convolutions: per stage.
        epochs: passes over the training images, at most.
        patience: epochs without a better validation loss, after which the learning rate is divided by ten.
        batch_size: images per step of the optimiser.
        learning_rate: of the first epochs. Training ends when it falls below a thousandth of that.
    """

    precision: Precision = "mixed"
    channels: Annotated[str, AfterValidator(_channels)] = "512,256,128,64"
    convolutions: Count = 5
    epochs: Count = 40
    patience: Count = 5
    batch_size: Count = 64
    learning_rate: Rate = 1e-3
