"""A network that trains on the features of a frozen encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from models.configs import TrainingConfig
from models.detector import BuildContext, CamTarget, Encoder, Rows
from models.encoding import FrozenEncoder, cam_through, encoder_key
from models.memory import move
from models.tiles import tiled
from models.training import TrainedDetector, as_tensor


class HeadDetector(TrainedDetector):
    """A frozen encoder, and a network of a method's own that trains on its stored features.

    Args:
        encoder: computes the features, float32 (N, D).
        head: features (N, D) -> logits (N, C); its `embed` gives the embeddings, and its `classify` logits of these.
        config: how the head trains.
        context: classes, seed, device.
        num_features: width of the embeddings.
        resize: the method's setting (see `models.configs.EncoderConfig`).
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        head: nn.Module,
        config: TrainingConfig,
        context: BuildContext,
        num_features: int,
        *,
        resize: str,
    ) -> None:
        super().__init__(head, config, context, num_features=num_features)
        self.backbone = encoder.backbone
        self.encoder: Encoder = tiled(encoder, resize)
        self.geometry = self.encoder.geometry
        self.weights_note = self.backbone.weights_note

    def gather(self, inputs: Rows, index: np.ndarray) -> torch.Tensor:
        """See `TrainedDetector`. Raises `ValueError` for features of another width, or that are not finite."""
        rows = inputs[index]
        if rows.shape[1:] != (self.encoder.num_features,):
            expected = (len(rows), self.encoder.num_features)
            raise ValueError(f"features have shape {rows.shape}, expected {expected}")
        if not np.isfinite(rows).all():
            raise ValueError("features are not finite; the encoder's weights or its precision are at fault")
        return as_tensor(rows)

    def prepared(self, rows: torch.Tensor, mirrored: torch.Tensor | None = None) -> torch.Tensor:
        """See `TrainedDetector`. Features are taken as they are."""
        return rows

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """See `TrainedDetector`."""
        embeddings: torch.Tensor = self._network.embed(x)
        return embeddings

    def classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        """See `TrainedDetector`."""
        logits: torch.Tensor = self._network.classify(embeddings)
        return logits

    def facts(self) -> dict[str, Any]:
        """See `TrainedDetector`. Without the precision, so that a CPU can explain what a GPU has trained."""
        return {"classes": list(self.classes), "encoder": encoder_key(self.backbone)}

    def cam_target(self) -> CamTarget | None:
        """The backbone followed by the fitted head; None for features of tiles."""
        if self.geometry is None:
            return None
        for network in (self.backbone, self._network):
            move(network, self._device)
        return cam_through(self.backbone, self._network.eval())
