"""What can be set about the two families of methods. Reading this imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

Resize = Literal["squash", "crop", "pad"]
Precision = Literal["mixed", "full"]
Size = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class NetworkConfig:
    """A network of which everything trains, with Adam and cross-entropy.

    Attributes:
        backbone: a timm name, with its pretraining tag where one is meant ("xception41.tf_in1k").
        weights: see `models.weights`; the classifier is always new.
        size: side of the square input, pixels; 0 = the backbone's own.
        resize: "squash" the whole image to that size, "crop" its middle as timm evaluates, or "pad" it to a square.
        epochs: passes over the training images.
        batch_size: images per step of the optimiser; at least 2, as batch normalisation has no variance over one image.
        learning_rate: Adam's, constant.
        weight_decay: added to the gradient times the weight (Adam's L2 penalty).
        flip: mirror half of the training images, drawn anew in each epoch.
        precision: "mixed" computes in 16 bits where a GPU is used, "full" in 32 bits everywhere.
        select: keep the epoch that is "best" by validation loss, or the "last".
        compile: let torch.compile write the training step: about a minute at the start of a trial, for a faster step on
            a GPU (by how much is not measured). A training that was interrupted then ends equal up to rounding.
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
        solver: "lbfgs" finds the optimum on all standardised features at once, whatever the seed; "adam" takes
            minibatches of the features as they come, from a classifier drawn by the seed, and keeps the epoch with the
            best validation loss.
        l2: weight of the penalty |W|^2 / 2 beside the *mean* cross-entropy. With L-BFGS, 0 = choose, by validation
            loss, from `models.linear.L2_CHOICES`, the strongest first, until it rises; with Adam, 0 = none.
        max_iterations: of L-BFGS, for each value of `l2`.
        epochs: of Adam.
        batch_size: of Adam, images.
        learning_rate: of Adam, constant.
    """

    solver: Literal["lbfgs", "adam"] = "lbfgs"
    l2: Penalty = 0.0
    max_iterations: Count = 1000
    epochs: Count = 100
    batch_size: Count = 256
    learning_rate: Rate = 1e-4


@dataclass(frozen=True)
class LinearConfig(ProbeConfig):
    """A linear classifier on the features of a frozen backbone.

    Attributes:
        backbone: a name within the method's family (timm, open_clip or segment-anything).
        weights: see `models.weights`.
        size: side of the square input, pixels; 0 = the backbone's own.
        resize: "own" = as the family's authors do it; else "squash", "crop" or "pad" (see `NetworkConfig`).
        precision: "mixed" computes the features in 16 bits where a GPU is used, "full" in 32 bits everywhere.
    """

    backbone: str = ""
    weights: str = "hub"
    size: Size = 0
    resize: Literal["own", "squash", "crop", "pad"] = "own"
    precision: Precision = "full"
