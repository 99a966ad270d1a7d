"""Detectors that come trained, as a file: a frozen encoder with a linear classifier that somebody else has trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from models.backbones.base import seeded
from models.configs import ProbeConfig
from models.detector import DETECTION_CLASSES, BuildContext, Examples, FitSession, WeightsError
from models.encoding import FrozenEncoder
from models.linear import LinearDetector, per_class
from models.tiles import tiled
from models.weights import local_source, read_state_dict, without_wrappers

AT_HALF = 0.0  # log-odds of p = 0.5, the threshold of published detectors


class ReadyDetector(LinearDetector):
    """A frozen encoder and a given linear classifier. `fit` trains nothing, and the threshold is p = 0.5.

    Args:
        encoder: computes the features.
        weights: of the classifier: a file, or random ones from seed 0 (see `models.weights`).
        context: classes, weight files.
        names: the classifier's weight and bias in the file.
        fake: which of two outputs is "fake". With one output, that is its log-odds.
        resize: the method's setting, where it is one of `models.configs.EncoderConfig`.

    Raises:
        WeightsError: the file cannot be had, or holds no such classifier.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        weights: str,
        context: BuildContext,
        *,
        names: tuple[str, str],
        fake: int = 1,
        resize: str = "",
    ) -> None:
        note, backbone = encoder.backbone.weights_note, encoder.backbone
        super().__init__(tiled(encoder, resize), context.classes, ProbeConfig(), weights_note=note, backbone=backbone)
        self.threshold = AT_HALF
        if context.restoring:
            return
        source = local_source(weights, weight_files=context.weight_files, seed=0)
        if source is None:
            raise WeightsError(f"there is no classifier to download as {weights!r}: give a file, --weights METHOD=FILE")
        if source.path is None:
            with seeded(0):
                linear = nn.Linear(encoder.num_features, 1)
            state = dict[str, torch.Tensor](zip(names, linear.parameters(), strict=True))
        else:
            state = read_state_dict(source.path, averaged=source.averaged)
            state = without_wrappers(state, names, source=source.path)
            if source.digest != encoder.backbone.weights_digest:
                self.weights_note += f", classifier: {source.note}"
        weight, bias = _classifier(state, names, encoder.num_features, str(source.path))
        order = [1 - fake, fake] if len(weight) == 2 else [0]
        self._weight, self._bias = (per_class(part[order]).numpy() for part in (weight, bias))

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Nothing: the classifier is given. Raises `ValueError` for other classes than those of detection."""
        if self.classes != DETECTION_CLASSES:
            raise ValueError(f"this method comes trained to tell real from fake, not {', '.join(self.classes)}")


def _classifier(
    state: Mapping[str, torch.Tensor], names: tuple[str, str], num_features: int, source: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (1 or 2, D) and bias (1 or 2,), float32."""
    missing = [name for name in names if name not in state]
    if missing:
        held = ", ".join(list(state)[:5])
        raise WeightsError(f"{source} has no {' and no '.join(missing)}, the classifier's tensors (it holds: {held})")
    weight, bias = (state[name].detach().float() for name in names)
    shape = weight.shape
    if len(shape) != 2 or shape[0] not in (1, 2) or shape[1] != num_features or bias.shape != shape[:1]:
        raise WeightsError(
            f"{source}: the classifier needs a weight of shape (1 or 2, {num_features}) and a bias of as many; it has "
            f"{tuple(shape)} and {tuple(bias.shape)}"
        )
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise WeightsError(f"{source}: the classifier holds NaN or infinity")
    return weight, bias
