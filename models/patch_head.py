"""An Xception that is cut off and scores patches; see `models.detectors.patch_head`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.detector import Examples, FitSession
from models.memory import in_batches, move
from models.patch_masks import UNKNOWN, check_masks, patch_labels
from models.picture_score import PictureScale, top_count
from models.training import NetworkDetector, Outputs, as_tensor

if TYPE_CHECKING:
    from models.detectors.patch_head import PatchHeadConfig

STEM = ("conv1", "bn1", "act1", "conv2", "bn2", "act2")
SCALE, OFFSETS = "scale_of_pictures", "offsets_of_pictures"
INITIAL = 0.02  # gain of Xavier, and deviation of the gains of normalisations: `netutils.py` of the authors


class PatchHeadDetector(NetworkDetector):
    """See `models.detectors.patch_head`. The logits of a cell are those of its patch."""

    config: PatchHeadConfig

    def adapt(self, network: Any) -> None:
        """Cut the network off, with a 1 x 1 convolution in place of the classifier; initial weights as theirs.

        Raises:
            ValueError: the network is no Xception of timm.
        """
        from timm.models.xception import Xception

        if not isinstance(network, Xception):
            raise ValueError("this method cuts an Xception off: name legacy_xception")
        self._layers = [*STEM, *(f"block{number}" for number in range(1, self.config.blocks + 1))]
        last: Any = getattr(network, self._layers[-1])
        width = next(module for module in reversed(list(last.rep)) if isinstance(module, nn.BatchNorm2d)).num_features
        for name in [name for name, _ in network.named_children() if name not in self._layers]:
            delattr(network, name)
        network.fc = nn.Conv2d(width, network.num_classes, kernel_size=1)
        network.num_features = network.head_hidden_size = width
        if self.config.weights == "random":
            network.apply(_initialise)
        if self.config.supervision == "mask":  # buffers, so that they are saved and resumed with the network
            network.register_buffer(SCALE, torch.ones(1))
            network.register_buffer(OFFSETS, torch.zeros(network.num_classes - 1))

    # Training --------------------------------------------------------------------------------------------------------

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """See `TrainedDetector`. Raises `ValueError` too where the method learns from masks, and fakes have none."""
        if self.config.supervision == "mask" and len(train.labels):
            check_masks(train)
        super().fit(train, valid, session)

    def training_rows(
        self, train: Examples, index: np.ndarray, mirrored: np.ndarray, epoch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `TrainedDetector`. Targets are labels of images (N,), or of patches (N, h, w)."""
        rows, labels = super().training_rows(train, index, mirrored, epoch)
        if self.config.supervision == "image":
            return rows, labels
        assert train.masks is not None
        cells = self.cells(*rows.shape[1:3])
        targets = np.zeros((len(index), *cells), dtype=np.int64)
        for target, number, label, flip in zip(targets, index, labels.tolist(), mirrored, strict=True):
            (mask,) = train.masks[np.array([number])] if label else (None,)
            if mask is not None and self.geometry is None:
                mask = self.crop(mask, int(number), epoch)
            target[:] = patch_labels(mask, label, self._square, cells, flip=bool(flip))
        return rows, as_tensor(targets)

    def outputs(self, x: torch.Tensor) -> Outputs:
        """See `TrainedDetector`."""
        return self.scored(self.embed(x))

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """See `TrainedDetector`: the mean over patches that have a label."""
        assert outputs.cells is not None
        cells = outputs.cells.float()
        if targets.ndim == 1:
            targets = targets[:, None, None].expand(-1, *cells.shape[2:])
        total = functional.cross_entropy(cells, targets, ignore_index=UNKNOWN, reduction="sum")
        return total / (targets != UNKNOWN).sum().clamp(min=1)

    def validated(self, valid: Examples) -> np.ndarray:
        """See `TrainedDetector`. With `supervision=mask` it fits the scale of pictures' scores to these images."""
        if self.config.supervision == "image":
            return super().validated(valid)
        state = self._network.get_buffer(SCALE), self._network.get_buffer(OFFSETS)
        state[0].fill_(1)
        state[1].fill_(0)
        scale = PictureScale(len(self.classes) - 1)
        pooled = super().validated(valid)[:, 1:]
        if np.isfinite(pooled).all():  # else the training has diverged, and the loss tells
            scale.fit(pooled, valid.labels)
        state[0].fill_(scale.scale)
        state[1].copy_(torch.from_numpy(scale.offsets))
        return scale.logits(pooled)

    # Inference -------------------------------------------------------------------------------------------------------

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """What the network takes -> features of patches (N, D, h, w)."""
        for name in self._layers:
            x = getattr(self._network, name)(x)
        return x

    def scored(self, embeddings: torch.Tensor) -> Outputs:
        """See `TrainedDetector`: features of patches -> logits and mean features of pictures."""
        cells = self.classify(embeddings)
        return Outputs(self._pooled(cells), embeddings.mean(dim=(2, 3)), cells)

    def _pooled(self, cells: torch.Tensor) -> torch.Tensor:
        """Logits of patches (N, C, h, w) -> logits of pictures (N, C)."""
        if self.config.supervision == "image":
            return mean_probability(cells)
        scaled = highest(cells) * self._network.get_buffer(SCALE) + self._network.get_buffer(OFFSETS)
        return functional.pad(scaled, (1, 0))

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `Detector`. The network sees a picture as a whole, and not in tiles."""
        network = self._network.eval()
        move(network, self._device)
        found = np.empty((len(pixels), *self.cells(*pixels.shape[1:3])), dtype=np.float32)

        @torch.inference_mode()
        def score(part: slice) -> None:
            with self._compute.autocast(), self._compute.exactly():
                features = self.embed(self.prepared(self._to_device(as_tensor(pixels[part]))))
            cells = self.classify(features.float())
            found[part] = (cells[:, 1:].logsumexp(dim=1) - cells[:, 0]).cpu().numpy()

        in_batches(score, len(pixels), self._scored_at_once)
        return found

    def cells(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the map of pixels (height, width)."""
        halvings = min(3, self.config.blocks)

        def count(side: int) -> int:
            side = (side - 3) // 2 + 1 - 2  # both convolutions of the stem, without a border
            for _ in range(halvings):
                side = (side - 1) // 2 + 1
            return side

        return count(height), count(width)

    def cam_target(self) -> None:
        """Nothing: the method has maps of its own."""
        return


def mean_probability(cells: torch.Tensor) -> torch.Tensor:
    """Logits of patches (N, C, h, w) -> logarithms of the mean probabilities, float32 (N, C)."""
    return cells.float().log_softmax(dim=1).flatten(2).logsumexp(dim=2) - math.log(cells.shape[2] * cells.shape[3])


def highest(cells: torch.Tensor) -> torch.Tensor:
    """Logits of patches (N, C, h, w) -> per fake class the mean of the highest tenth of log-odds against real."""
    odds = (cells[:, 1:] - cells[:, :1]).float().flatten(2)
    return odds.topk(top_count(odds.shape[2]), dim=2).values.mean(dim=2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=INITIAL)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, INITIAL)
        nn.init.zeros_(module.bias)
