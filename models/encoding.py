"""Encoders that compute features with a frozen backbone, and what Grad-CAM needs of one."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from models.backbones import load_backbone
from models.backbones.base import Backbone, BackboneRequest
from models.checks import check_pixels
from models.compute import Compute, compute_on
from models.configs import EncoderConfig
from models.detector import BuildContext, CamTarget
from models.geometry import Geometry
from models.memory import in_batches, move

MOST_AT_ONCE = 32  # pictures per forward pass
# Pixels per forward pass: SAM ViT-B at 1024 x 1024 needs 2.3 GiB for eight pictures in float32, weights included
# (measured on an H200).
PIXELS_AT_ONCE = 8 * 1024**2


class FrozenEncoder:
    """An `Encoder` that computes features with a backbone. Nothing in it trains, so the features may be stored.

    Args:
        backbone: moved to the device when it is first used.
        compute: the device and the precision. Lower precision is faster on a GPU, and has another `key`, because the
            features differ in their third digit.
        batch_size: pictures per forward pass, if they fit into memory; None: at most MOST_AT_ONCE and PIXELS_AT_ONCE.
    """

    def __init__(self, backbone: Backbone, compute: Compute | None = None, *, batch_size: int | None = None) -> None:
        self.backbone = backbone
        self.compute = Compute() if compute is None else compute
        self.device = self.compute.device.type
        self.batch_size = batch_size or pictures_at_once(backbone.preprocessing.size)
        self.num_features = backbone.num_features
        geometry = backbone.preprocessing.geometry
        self.geometry: Geometry | None = dataclasses.replace(geometry, alpha=True) if backbone.alpha else geometry
        self.key = encoder_key(backbone, self.compute)
        self._turn = threading.Lock()

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (N, S, S, 3) -> float32 (N, D), S = the backbone's size. If memory runs out, batches become smaller.

        A fourth channel, as `geometry` may add it, says where pictures were filled up.

        On a GPU, two threads may call it at the same time: one batch is computed while the next is copied and the last
        is read.

        Raises:
            ValueError: the pixels have another type or size.
            MemoryExhausted: not even one image, or not even the backbone, fits into the device's memory.
        """
        with self._turn:
            move(self.backbone, self.compute.device)
        features = np.empty((len(pixels), self.num_features), dtype=np.float32)

        def encode(part: slice) -> None:
            batch = np.asarray(pixels[part])
            check_pixels(batch, self.backbone.preprocessing.size)
            is_filled = batch.shape[3] == 4 and not batch[:, -1, -1, 3].all()  # at the bottom or at the right
            features[part] = self._encode_batch(torch.from_numpy(batch), 4 if is_filled else 3)

        self.batch_size = in_batches(encode, len(pixels), self.batch_size)
        return features

    @torch.inference_mode()
    def _encode_batch(self, batch: torch.Tensor, channels: int) -> np.ndarray:
        if self.compute.device.type != "cuda":
            with self._turn:
                return self._forward(batch[..., :channels]).numpy()
        pinned = batch.pin_memory()  # torch keeps such memory and uses it again
        result = torch.empty((len(batch), self.num_features), pin_memory=True)
        with self._turn:  # one forward pass at a time holds memory
            pixels = pinned.to(self.compute.device, non_blocking=True)[..., :channels]
            result.copy_(self._forward(pixels), non_blocking=True)
            done = torch.cuda.current_stream().record_event()
        done.synchronize()
        return result.numpy()

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.backbone.preprocessing.normalise(pixels)
        with self.compute.autocast(), self.compute.exactly():
            features: torch.Tensor = self.backbone(x)
            return features.float()


def pictures_at_once(size: int) -> int:
    """How many pictures of size x size pixels a forward pass has, if they fit into memory; at least one."""
    return max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // size**2))


def encoder_key(backbone: Backbone, compute: Compute | None = None) -> str:
    """Identifies features: family, architecture, weights, preprocessing, precision; at most 150 safe characters."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", backbone.name)
    if name != backbone.name or len(name) > 60:
        name = f"{name[:51]}-{hashlib.sha256(backbone.name.encode()).hexdigest()[:8]}"
    parts = [backbone.family, name, backbone.weights_digest, backbone.preprocessing.key, backbone.mark]
    return "-".join(filter(None, [*parts, "" if compute is None else compute.key]))


# The last backbone stays in the process: trials that a worker computes one after another mostly share it.
load_backbone_once = lru_cache(maxsize=1)(load_backbone)


def frozen_encoder(
    family: str, config: EncoderConfig, context: BuildContext, *, policy: str | None = None, **preparation: Any
) -> FrozenEncoder:
    """The encoder of a method, with a backbone of a family of `models.backbones`.

    Random weights always have seed 0: a frozen encoder belongs to the method, not to the trial, so all trials share its
    features.

    Args:
        family: of the backbone.
        config: of the method.
        context: of the detector.
        policy: how pictures become square (`models.geometry.Geometry`), in place of the configuration's `resize`.
        preparation: further fields of `BackboneRequest`, where the family takes them.

    Raises:
        ValueError: the family has no such backbone.
        WeightsError: the weights cannot be had or do not fit.
    """
    request = backbone_request(config, context, policy=policy, **preparation)
    return FrozenEncoder(load_backbone_once(family, request), compute_on(context.device, config.precision))


def backbone_request(
    config: EncoderConfig, context: BuildContext, *, policy: str | None = None, **preparation: Any
) -> BackboneRequest:
    """The backbone that a configuration asks for; arguments as of `frozen_encoder`."""
    policy = policy or (None if config.resize == "own" else config.resize)
    size = config.size or None
    return BackboneRequest(
        config.backbone, config.weights, context.weight_files, policy=policy, size=size, **preparation
    )


def cam_through(backbone: Backbone, head: torch.nn.Module) -> CamTarget:
    """A frozen backbone followed by a classifier of its features, on the backbone's device."""
    module = torch.nn.Sequential(backbone, head.to(next(backbone.parameters()).device))
    module.register_forward_pre_hook(_require_gradient)
    layers, reshape = backbone.cam()
    return CamTarget(module.eval(), layers, backbone.preprocessing.normalise, reshape)


def _require_gradient(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """Let gradients flow: no parameter of a frozen backbone requires one, so the picture must."""
    (pictures,) = inputs
    return pictures if pictures.requires_grad else pictures.detach().requires_grad_(torch.is_grad_enabled())
