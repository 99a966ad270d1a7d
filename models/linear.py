"""Logistic regression on the features of a frozen encoder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.backbones.base import Backbone
from models.checks import check_examples, load_tensors, matching_facts, softmax_loss
from models.configs import LinearConfig, ProbeConfig
from models.detector import (
    BuildContext,
    CamTarget,
    Detector,
    Encoder,
    Examples,
    FitSession,
    Prediction,
    Rows,
    TrainingDiverged,
)
from models.encoding import FrozenEncoder, cam_through, encoder_key, frozen_encoder
from models.logistic import Objective, Solution, blocks
from models.memory import in_batches, move
from models.sizes import HELD
from models.tiles import tiled

log = logging.getLogger(__name__)

# Tried in this order until the validation loss rises; if two are equally good, the stronger penalty is kept. The loss
# falls and then rises along this path, and the weakest penalties take the longest.
L2_CHOICES = (1.0, 0.1, 0.01, 0.001, 0.0001)
TOLERANCE = 1e-5  # largest entry of the gradient at which L-BFGS stops
TIGHT = 1e-8  # the same where it stopped too early
SHORT = 0.01  # a fit stopped too early if further iterations move a log-odds by more than this share of the largest
INITIAL_DEVIATION = 0.02  # standard deviation of Adam's initial weights
CONSTANT = 1e-6  # a feature counts as constant if its deviation is below this share of its largest absolute value

ROWS_AT_ONCE = 4096  # rows of features that are read or scored at once; more would only need more memory


Splits = dict[str, tuple[Rows, np.ndarray]]  # "train" and "valid": features, float32 (N, D), and labels (N,)


class LinearDetector(Detector):
    """A frozen encoder and a linear classifier on its features, which is saved as one `torch.nn.Linear(D, C)`.

    Solver "lbfgs": L-BFGS finds the optimum (`models.logistic`), so the seed does not matter. Features are standardised
    with the training set's mean and deviation, which are folded into the weights afterwards.

    Solver "adam": the training loop of Ojha et al. (arXiv 2302.10174) with the constants of their published code: Adam
    without decay, learning rate 1e-4, batches of 256, at most 100 epochs, features without standardisation, initial
    weights from N(0, 0.02). Their loop also augments the images, which is impossible with stored features, and lowers
    the learning rate when the validation accuracy stalls; here the epoch with the best validation loss is kept.

    Args:
        encoder: computes the features.
        classes: C names, "real" first.
        config: settings of the solver.
        weights_note: origin of the encoder's weights.
        backbone: the encoder's network, for Grad-CAM; None if there is none.
        seed: seed of Adam's initial weights and of the order of its batches.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: tuple[str, ...],
        config: ProbeConfig,
        *,
        weights_note: str,
        backbone: Backbone | None = None,
        seed: int = 0,
    ) -> None:
        self.encoder: Encoder = encoder
        self.classes = classes
        self.config = config
        self.geometry = encoder.geometry
        self.weights_note = weights_note
        self._backbone = backbone
        self._seed = seed
        self._weight = np.zeros((len(classes), encoder.num_features), dtype=np.float32)
        self._bias = np.zeros(len(classes), dtype=np.float32)

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Fit without checkpoints, which are not worth it. L-BFGS reports once, as epoch 1.

        L-BFGS holds the features in memory, as float32. Adam reads them from the store batch by batch, if they are
        more than `HELD`.

        Raises:
            ValueError: a class without training images, no validation images, or features that are not finite.
            TrainingDiverged: Adam's loss is not finite.
        """
        check_examples(train, valid, self.classes)
        is_adam = self.config.solver == "adam"
        num_bytes = 4 * self.encoder.num_features * (len(train.labels) + len(valid.labels))
        read = self._checked if is_adam and num_bytes > HELD else self._gather
        splits = {name: (read(part.inputs), part.labels) for name, part in {"train": train, "valid": valid}.items()}
        weight, bias = (self._fit_adam if is_adam else self._fit_lbfgs)(splits, session)
        self._weight, self._bias = weight.astype(np.float32), bias.astype(np.float32)

    def _fit_lbfgs(self, splits: Splits, session: FitSession) -> tuple[np.ndarray, np.ndarray]:
        """Weight (C, D) and bias (C,) at the optimum, with the best penalty if `l2` is 0."""
        features, labels = splits["train"]
        assert isinstance(features, np.ndarray), "they are held in memory"
        objective = Objective(features, labels, len(self.classes), constant=CONSTANT)
        best: tuple[dict[str, float], np.ndarray, np.ndarray] | None = None
        start = objective.start()  # each fit starts from the optimum of the stronger penalty before it
        for l2 in (self.config.l2,) if self.config.l2 else L2_CHOICES:
            start, solution = self._solve(objective, start, l2)
            weight = per_class(torch.from_numpy(solution.coefficients)).numpy() * objective.scale
            bias = per_class(torch.from_numpy(solution.intercept)).numpy() - weight @ objective.mean
            metrics = _metrics(weight, bias, splits) | {"l2": l2}
            log.info("l2 %g: validation loss %.4f", l2, metrics["valid/loss"])
            if best is not None and metrics["valid/loss"] > best[0]["valid/loss"]:
                break
            if best is None or metrics["valid/loss"] < best[0]["valid/loss"]:
                best = metrics, weight, bias
        assert best is not None
        metrics, weight, bias = best
        if not self.config.l2 and metrics["l2"] == L2_CHOICES[-1]:
            log.warning(
                "validation chose the weakest of the penalties that were tried (l2 %g): a weaker one may be better; "
                "set l2 to try one",
                metrics["l2"],
            )
        session.on_epoch(1, metrics)
        return weight, bias

    def _fit_adam(self, splits: Splits, session: FitSession) -> tuple[np.ndarray, np.ndarray]:
        """Weight (C, D) and bias (C,) of the epoch with the best validation loss."""
        features, labels = splits["train"][0], torch.tensor(splits["train"][1])
        num_functions = 1 if len(self.classes) == 2 else len(self.classes)
        generator = torch.Generator().manual_seed(self._seed)
        weight = INITIAL_DEVIATION * torch.randn(num_functions, self.encoder.num_features, generator=generator)
        bias = torch.zeros(num_functions)
        parameters = [weight.requires_grad_(), bias.requires_grad_()]
        optimiser = torch.optim.Adam(parameters, lr=self.config.learning_rate, weight_decay=self.config.l2)
        best: tuple[float, int, np.ndarray, np.ndarray] | None = None
        for epoch in range(1, self.config.epochs + 1):
            order = torch.from_numpy(np.random.default_rng([self._seed, epoch]).permutation(len(labels)))
            for index in order.split(self.config.batch_size):
                optimiser.zero_grad()
                rows = torch.from_numpy(np.asarray(features[index.numpy()], dtype=np.float32))
                logits = torch.nn.functional.linear(rows, *(per_class(part) for part in parameters))
                torch.nn.functional.cross_entropy(logits, labels[index]).backward()
                optimiser.step()
            fitted = tuple(per_class(part).detach().double().numpy() for part in parameters)
            metrics = _metrics(fitted[0], fitted[1], splits)
            if not np.isfinite([metrics["train/loss"], metrics["valid/loss"]]).all():
                raise TrainingDiverged(
                    f"the loss is not finite after epoch {epoch}; "
                    f"try a lower learning_rate (now {self.config.learning_rate:g})"
                )
            if best is None or metrics["valid/loss"] < best[0]:
                best = metrics["valid/loss"], epoch, fitted[0], fitted[1]
            session.on_epoch(epoch, metrics)
        assert best is not None
        log.info("epoch %d of %d is the best on validation", best[1], self.config.epochs)
        return best[2], best[3]

    def _solve(self, objective: Objective, start: Solution, l2: float) -> tuple[Solution, Solution]:
        """Minimise mean cross-entropy + l2 / 2 |W|^2: where the next penalty starts, and the result.

        With a weak penalty the gradient is small long before the optimum, above all where the classes are separable. So
        a fit goes on with a thousandth of the tolerance if it may be short of the optimum, and that result is taken if
        it differs. The next penalty starts from the first result in any case: a fit that was not short is the same as
        if nothing had gone on.
        """
        first = self._iterate(objective, start, l2, TOLERANCE)
        largest = objective.largest_difference(first, objective.start())
        if objective.distance_bound(first, l2) > SHORT * largest:
            further = self._iterate(objective, first, l2, TIGHT)
            if objective.largest_difference(further, first) > SHORT * largest:
                return first, further
        return first, first

    def _iterate(self, objective: Objective, start: Solution, l2: float, tolerance: float) -> Solution:
        """Go on from a solution, with a warning if `max_iterations` are too few."""
        found = objective.minimise(start, l2, tolerance=tolerance, max_iterations=self.config.max_iterations)
        if not found.converged:
            log.warning(
                "logistic regression (l2 %g) had not converged after %d iterations; raise max_iterations, or l2",
                l2,
                self.config.max_iterations,
            )
        return found

    def predict(self, inputs: Rows) -> Prediction:
        """Features, float32 (N, D) -> logits; the embeddings are the features themselves."""
        features = self._gather(inputs)
        weight = self._weight.T.astype(np.float64)
        logits = np.empty((len(features), len(self.classes)), dtype=np.float32)

        def score(part: slice) -> None:
            logits[part] = features[part].astype(np.float64) @ weight + self._bias

        in_batches(score, len(features), ROWS_AT_ONCE)
        return Prediction(logits, features)

    def _gather(self, inputs: Rows) -> np.ndarray:
        """All rows in a new array, float32 (N, D)."""
        features = np.empty((len(inputs), self.encoder.num_features), dtype=np.float32)

        def keep(part: slice, rows: np.ndarray) -> None:
            features[part] = rows

        self._read(inputs, keep)
        return features

    def _checked(self, inputs: Rows) -> Rows:
        """The rows as they are, after a look at all of them."""
        self._read(inputs, lambda part, rows: None)
        return inputs

    def _read(self, inputs: Rows, use: Callable[[slice, np.ndarray], None]) -> None:
        """Read all rows in order. Raises `ValueError` for another width, and for rows that are not finite."""
        num_bad, width = 0, self.encoder.num_features

        def read(part: slice) -> None:
            nonlocal num_bad
            rows = inputs[np.arange(part.start, part.stop)]
            if rows.shape[1:] != (width,):
                raise ValueError(
                    f"features have shape {(len(inputs), *rows.shape[1:])}, expected {(len(inputs), width)}"
                )
            num_bad += int((~np.isfinite(rows)).any(axis=1).sum())
            use(part, rows)

        in_batches(read, len(inputs), ROWS_AT_ONCE)
        if num_bad:
            raise ValueError(
                f"{num_bad} of {len(inputs)} images have features "
                "that are not finite; the encoder's weights or its precision are at fault"
            )

    def save(self, folder: Path) -> None:
        """Write `head.pt`, the state of a `torch.nn.Linear(D, C)` on raw features, and `head.json` about it."""
        torch.save(dict(self._head().state_dict()), folder / "head.pt")
        (folder / "head.json").write_text(json.dumps(self._facts(), indent=2), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read a saved classifier. Raises `ValueError` if it is for other classes or another encoder."""
        matching_facts(folder / "head.json", self._facts())
        head = self._head()
        try:
            head.load_state_dict(load_tensors(folder / "head.pt"))
        except RuntimeError:
            raise ValueError(f"{folder / 'head.pt'} is no classifier of {head.in_features} features") from None
        self._weight, self._bias = head.weight.numpy(), head.bias.numpy()

    def _facts(self) -> dict[str, object]:
        # without the precision, so that Grad-CAM can run on a CPU for a head that was fitted to a GPU's 16-bit features
        key = self.encoder.key if self._backbone is None else encoder_key(self._backbone)
        return {"classes": list(self.classes), "encoder": key, "num_features": self.encoder.num_features}

    def _head(self) -> torch.nn.Linear:
        head = torch.nn.utils.skip_init(torch.nn.Linear, self.encoder.num_features, len(self.classes))
        head.load_state_dict({"weight": torch.from_numpy(self._weight), "bias": torch.from_numpy(self._bias)})
        return head.requires_grad_(False)

    def cam_target(self) -> CamTarget | None:
        """The backbone followed by the fitted classifier, or None for an encoder without gradients, or of tiles."""
        if self._backbone is None or self.geometry is None:
            return None
        if isinstance(self.encoder, FrozenEncoder):
            move(self._backbone, self.encoder.compute.device)
        return cam_through(self._backbone, self._head())


def per_class(functions: torch.Tensor) -> torch.Tensor:
    """Weights or biases of the decision functions -> of the classes' logits.

    Two classes have one decision function: each logit gets half of it, because only the difference matters.
    """
    return torch.cat([-functions, functions]) / 2 if len(functions) == 1 else functions


def _metrics(weight: np.ndarray, bias: np.ndarray, splits: Splits) -> dict[str, float]:
    """`<split>/loss` and `<split>/accuracy` of a classifier (C, D), (C,)."""
    metrics = {}
    for name, (rows, labels) in splits.items():
        loss = right = 0.0
        for part, block in blocks(rows, weight.shape[1]):
            logits = block @ weight.T + bias
            loss += softmax_loss(logits, labels[part]) * len(block)
            right += float((logits.argmax(axis=1) == labels[part]).sum())
        metrics[f"{name}/loss"], metrics[f"{name}/accuracy"] = loss / len(labels), right / len(labels)
    return metrics


def probe_backbone(family: str, config: LinearConfig, context: BuildContext, **preparation: Any) -> LinearDetector:
    """A linear classifier on a frozen backbone; arguments and errors as of `models.encoding.frozen_encoder`."""
    frozen = frozen_encoder(family, config, context, **preparation)
    backbone, encoder = frozen.backbone, tiled(frozen, config.resize)
    note = backbone.weights_note
    return LinearDetector(encoder, context.classes, config, weights_note=note, backbone=backbone, seed=context.seed)
