"""A frozen backbone as an encoder: pixels in, features out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch

from models.backbones.base import Backbone
from models.geometry import Geometry
from models.memory import in_batches


class FrozenEncoder:
    """A backbone as an `Encoder`: pixels in, features out, nothing trains, so the features may be cached.

    Args:
        backbone: is moved to `device` when it is first needed there: with all features at hand, it never is.
        device: torch device string.
        batch_size: pictures a forward pass, as long as they fit.
        autocast: compute in bfloat16 where torch thinks it safe; faster on a GPU, and another `key`, because the
            features differ in their third digit.
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
        """uint8 (N, S, S, 3) -> float32 (N, D), S = the backbone's size. Fewer at once from where memory runs out.

        Raises:
            ValueError: the pixels have another type or size: a silent resize would change the features.
            MemoryExhausted: not one image fits into the device's memory.
        """
        size = self.backbone.preprocessing.size
        features = np.empty((len(pixels), self.num_features), dtype=np.float32)

        def encode(part: slice) -> None:
            batch = np.asarray(pixels[part])
            if batch.dtype != np.uint8 or batch.shape[1:] != (size, size, 3):
                raise ValueError(f"need uint8 (N, {size}, {size}, 3), got {batch.dtype} {batch.shape}")
            features[part] = self._encode_batch(batch)

        self.batch_size = in_batches(encode, len(pixels), self.batch_size)
        return features

    @torch.inference_mode()
    def _encode_batch(self, batch: np.ndarray) -> np.ndarray:
        x = self.backbone.preprocessing.normalise(torch.tensor(batch, device=self.device))
        device = torch.device(self.device).type
        # without TF32, to which torch by itself rounds on newer GPUs: features of all devices share a key
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.autocast), exact:
            return self.on_device()(x).float().cpu().numpy()

    def on_device(self) -> Backbone:
        """The backbone, where it computes."""
        return self.backbone.to(self.device)


def encoder_key(backbone: Backbone, *, autocast: bool = False) -> str:
    """Names all that features depend on: family, architecture, weights, preprocessing; <= 150 safe characters."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", backbone.name)
    if name != backbone.name or len(name) > 60:
        name = f"{name[:51]}-{hashlib.sha256(backbone.name.encode()).hexdigest()[:8]}"
    parts = [backbone.family, name, backbone.weights_digest, backbone.preprocessing.key]
    return "-".join(parts + (["bf16"] if autocast else []))
