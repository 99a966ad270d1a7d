"""What can be set about the two families of methods. Reading this imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

RESIZE = ("squash", "crop", "pad")
PRECISION = ("mixed", "full")
SELECT = ("best", "last")
SOLVERS = ("lbfgs", "adam")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:  # a NaN fails too
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}")


@dataclass(frozen=True)
class NetworkConfig:
    """A network of which everything trains, with Adam and cross-entropy.

    Attributes:
        backbone: a timm name, with its pretraining tag where one is meant ("xception41.tf_in1k").
        weights: see `models.weights`; the classifier is always new.
        size: side of the square input, pixels; 0 = the backbone's own.
        resize: "squash" the whole image to that size, "crop" its middle as timm evaluates, or "pad" it to a square.
        epochs: passes over the training images.
        batch_size: images in a step of the optimiser.
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
    size: int = 0
    resize: str = "squash"
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    flip: bool = False
    precision: str = "mixed"
    select: str = "best"
    compile: bool = False

    def __post_init__(self) -> None:
        _one_of("resize", self.resize, RESIZE)
        _one_of("precision", self.precision, PRECISION)
        _one_of("select", self.select, SELECT)
        _at_least("size", self.size, 0)
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_size", self.batch_size, 2)  # batch normalisation has no variance over one image
        _at_least("weight_decay", self.weight_decay, 0)
        _positive("learning_rate", self.learning_rate)


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

    solver: str = "lbfgs"
    l2: float = 0.0
    max_iterations: int = 1000
    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        _one_of("solver", self.solver, SOLVERS)
        _at_least("l2", self.l2, 0)
        for name in ("max_iterations", "epochs", "batch_size"):
            _at_least(name, getattr(self, name), 1)
        _positive("learning_rate", self.learning_rate)


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
    size: int = 0
    resize: str = "own"
    precision: str = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("resize", self.resize, ("own", *RESIZE))
        _one_of("precision", self.precision, PRECISION)
        _at_least("size", self.size, 0)
