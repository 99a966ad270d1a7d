"""Logistic regression on the features of a frozen encoder."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from models.backbones import Backbone, FrozenEncoder, encoder_key, load_backbone
from models.checks import check_examples, load_tensors, matching_facts, softmax_loss
from models.configs import LinearConfig, ProbeConfig
from models.detector import BuildContext, CamTarget, Detector, Encoder, Examples, FitSession, Prediction, Rows

log = logging.getLogger(__name__)

L2_CHOICES = (1.0, 0.1, 0.01, 0.001, 0.0001)  # from the strongest; of equals on validation the stronger is kept
CONSTANT = 1e-6  # a feature whose deviation is below this part of its largest value holds only rounding noise


class LinearDetector(Detector):
    """A frozen encoder and a linear classifier, which scikit-learn fits to the optimum: the seed does not matter to it.

    Features are standardised with the training set's mean and deviation, and those are folded into the weights
    afterwards, so that what is saved is one `torch.nn.Linear(D, C)` on raw features.

    Args:
        encoder: what makes the features.
        classes: C names, "real" first.
        config: how the classifier is fitted.
        weights_note: where the encoder's weights come from.
        backbone: the encoder's network, for Grad-CAM; None where there is none.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: tuple[str, ...],
        config: ProbeConfig,
        *,
        weights_note: str,
        backbone: Backbone | None = None,
    ) -> None:
        self.encoder: Encoder = encoder
        self.classes = classes
        self.config = config
        self.geometry = encoder.geometry
        self.weights_note = weights_note
        self._backbone = backbone
        self._weight = np.zeros((len(classes), encoder.num_features), dtype=np.float32)
        self._bias = np.zeros(len(classes), dtype=np.float32)

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Fit to the optimum; reports once, as epoch 1. Nothing here lasts long enough to be worth a checkpoint.

        Raises:
            ValueError: a class without training images, no validation images, or features that are not finite.
        """
        check_examples(train, valid, self.classes)
        features, held_out = self._gather(train.inputs), self._gather(valid.inputs)
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        varies = deviation > CONSTANT * np.abs(features).max(axis=0)
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        features, held_out = (features - mean) * scale, (held_out - mean) * scale

        best: tuple[float, float, np.ndarray, np.ndarray] | None = None
        for l2 in (self.config.l2,) if self.config.l2 else L2_CHOICES:
            weight, bias = self._solve(features, train.labels, l2)
            loss = softmax_loss(held_out @ weight.T + bias, valid.labels)
            log.info("l2 %g: validation loss %.4f", l2, loss)
            if best is None or loss < best[0]:
                best = loss, l2, weight, bias
        assert best is not None
        valid_loss, l2, weight, bias = best
        metrics = {"valid/loss": valid_loss, "train/loss": softmax_loss(features @ weight.T + bias, train.labels)}
        for name, rows, labels in (("train", features, train.labels), ("valid", held_out, valid.labels)):
            metrics[f"{name}/accuracy"] = float(((rows @ weight.T + bias).argmax(axis=1) == labels).mean())
        self._weight = (weight * scale).astype(np.float32)
        self._bias = (bias - (weight * scale) @ mean).astype(np.float32)
        session.on_epoch(1, metrics | {"l2": l2})

    def _solve(self, features: np.ndarray, labels: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
        """The minimum of mean cross-entropy + l2 / 2 |W|^2: weight (C, D), bias (C,)."""
        # scikit-learn minimises C * sum of cross-entropies + |W|^2 / 2
        model = LogisticRegression(C=1 / (l2 * len(labels)), max_iter=self.config.max_iterations, tol=1e-5)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(features, labels)
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            log.warning(
                "logistic regression (l2 %g) had not converged after %d iterations; raise max_iterations, or l2",
                l2,
                self.config.max_iterations,
            )
        if len(self.classes) == 2:  # one decision function: half of it to each logit, the difference is what counts
            return np.concatenate([-model.coef_, model.coef_]) / 2, np.concatenate(
                [-model.intercept_, model.intercept_]
            ) / 2
        return model.coef_, model.intercept_

    def predict(self, inputs: Rows) -> Prediction:
        """Features, float32 (N, D) -> logits; the embeddings are the features themselves."""
        features = self._gather(inputs)
        logits = features @ self._weight.T.astype(np.float64) + self._bias
        return Prediction(logits.astype(np.float32), features.astype(np.float32))

    def _gather(self, inputs: Rows) -> np.ndarray:
        """All rows, float64 (N, D)."""
        features = np.asarray(inputs[np.arange(len(inputs))], dtype=np.float64)
        if features.shape != (len(inputs), self.encoder.num_features):
            raise ValueError(
                f"features have shape {features.shape}, wanted ({len(inputs)}, {self.encoder.num_features})"
            )
        if not np.isfinite(features).all():
            raise ValueError(
                f"{(~np.isfinite(features)).any(axis=1).sum()} of {len(features)} images have features "
                "that are not finite; the encoder's weights or its precision are at fault"
            )
        return features

    def save(self, folder: Path) -> None:
        """Write `head.pt`, the state of a `torch.nn.Linear(D, C)` on raw features, and `head.json` about it."""
        torch.save({"weight": torch.from_numpy(self._weight), "bias": torch.from_numpy(self._bias)}, folder / "head.pt")
        (folder / "head.json").write_text(json.dumps(self._facts(), indent=2))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. Raises `ValueError` when it is of other classes or another encoder."""
        matching_facts(folder / "head.json", self._facts())
        state = load_tensors(folder / "head.pt")
        if {name: tuple(tensor.shape) for name, tensor in state.items()} != {
            "weight": self._weight.shape,
            "bias": self._bias.shape,
        }:
            raise ValueError(f"{folder / 'head.pt'} is no classifier of {self._weight.shape[1]} features")
        self._weight, self._bias = state["weight"].numpy(), state["bias"].numpy()

    def _facts(self) -> dict[str, object]:
        # without the precision, so that what a GPU fitted in 16 bits can be explained on a CPU
        key = self.encoder.key if self._backbone is None else encoder_key(self._backbone)
        return {"classes": list(self.classes), "encoder": key, "num_features": self.encoder.num_features}

    def _head(self) -> torch.nn.Linear:
        head = torch.nn.Linear(self.encoder.num_features, len(self.classes))
        head.load_state_dict({"weight": torch.from_numpy(self._weight), "bias": torch.from_numpy(self._bias)})
        return head.requires_grad_(False)

    def cam_target(self) -> CamTarget | None:
        """The backbone followed by the fitted classifier, or None for an encoder without gradients."""
        if self._backbone is None:
            return None
        module = _Classified(self._backbone, self._head()).eval()
        return CamTarget(module, self._backbone.cam_layers(), self._backbone.cam_reshape)


class _Classified(torch.nn.Module):
    """Backbone and classifier in one; no parameter asks for gradients, so the picture must, or none would flow."""

    def __init__(self, backbone: Backbone, head: torch.nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head.to(next(backbone.parameters()).device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised float32 (N, 3, H, W) -> logits (N, C)."""
        if torch.is_grad_enabled() and not x.requires_grad:
            x = x.detach().requires_grad_()
        return self.head(self.backbone(x))


def probe_backbone(family: str, config: LinearConfig, context: BuildContext) -> LinearDetector:
    """A linear classifier on a frozen backbone of a family of `models.backbones`.

    Raises:
        ValueError: the family has no such backbone.
        WeightsError: the weights cannot be had or do not fit.
    """
    backbone = load_backbone(
        family,
        config.backbone,
        weights=config.weights,
        weight_files=context.weight_files,
        seed=0,  # a frozen encoder with random weights is part of the method, not of the trial: its features are shared
        policy=None if config.resize == "own" else config.resize,
        size=config.size or None,
    )
    autocast = config.precision == "mixed" and torch.device(context.device).type == "cuda"
    encoder = FrozenEncoder(backbone, device=context.device, autocast=autocast)
    return LinearDetector(encoder, context.classes, config, weights_note=backbone.weights_note, backbone=backbone)
