"""Encoders that compute features with a frozen backbone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch

from models.backbones.base import Backbone
from models.checks import check_pixels
from models.geometry import Geometry
from models.memory import in_batches


class FrozenEncoder:
    """An `Encoder` that computes features with a backbone. Nothing in it trains, so the features may be stored.

    Args:
        backbone: moved to `device` when it is first used.
        device: torch device string.
        batch_size: pictures per forward pass, if they fit into memory.
        autocast: compute in bfloat16 where torch considers it safe. That is faster on a GPU, and has another `key`,
            because the features differ in their third digit.
    """

    def __init__(
        self, backbone: Backbone, *, device: str = "cpu", batch_size: int = 32, autocast: bool = False
    ) -> None:
        self.backbone = backbone
        self.device = device
        self.batch_size = batch_size
        self.autocast = autocast
        self.num_features = backbone.num_features
        self.geometry: Geometry | None = backbone.preprocessing.geometry
        self.key = encoder_key(backbone, autocast=autocast)

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (N, S, S, 3) -> float32 (N, D), S = the backbone's size. If memory runs out, batches become smaller.

        Raises:
            ValueError: the pixels have another type or size.
            MemoryExhausted: not even one image fits into the device's memory.
        """
        features = np.empty((len(pixels), self.num_features), dtype=np.float32)

        def encode(part: slice) -> None:
            batch = np.asarray(pixels[part])
            check_pixels(batch, self.backbone.preprocessing.size)
            features[part] = self._encode_batch(batch)

        self.batch_size = in_batches(encode, len(pixels), self.batch_size)
        return features

    @torch.inference_mode()
    def _encode_batch(self, batch: np.ndarray) -> np.ndarray:
        x = self.backbone.preprocessing.normalise(torch.tensor(batch, device=self.device))
        device = torch.device(self.device).type
        # Without TF32, torch's default on newer GPUs: features of all devices have the same key.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.autocast), exact:
            return self.backbone.to(self.device)(x).float().cpu().numpy()


def encoder_key(backbone: Backbone, *, autocast: bool = False) -> str:
    """Identifies features: family, architecture, weights, preprocessing, precision; at most 150 safe characters."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", backbone.name)
    if name != backbone.name or len(name) > 60:
        name = f"{name[:51]}-{hashlib.sha256(backbone.name.encode()).hexdigest()[:8]}"
    parts = [backbone.family, name, backbone.weights_digest, backbone.preprocessing.key]
    return "-".join(parts + (["bf16"] if autocast else []))
