"""A transformer of which the layer normalisations train, with features on a sphere; see `detectors/ln_tuned.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from models.training import NetworkDetector, Outputs

if TYPE_CHECKING:
    from models.detectors.ln_tuned import LnTunedConfig

# `CosineAnnealingWarmRestarts` of `src/model/GenD.py`, with `num_epochs_in_cycle` and `min_lr`.
CYCLE = 10  # epochs
LOWEST_RATE = 1e-6
SPREAD = 2.0  # t of the uniformity: `src/losses/unifalign.py`
SMALLEST = 1e-6  # of the mean inside its logarithm, there


class LnTunedDetector(NetworkDetector):
    """See `models.detectors.ln_tuned`."""

    config: LnTunedConfig

    def adapt(self, network: Any) -> None:
        """Freeze all but layer normalisations and the classifier, whose input is divided by its length.

        Raises:
            ValueError: the network has no layer normalisation, or normalises over batches.
        """
        network.requires_grad_(False)
        norms = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
        if not norms or any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
            raise ValueError(
                "this method trains layer normalisations, and its backbone has none, or others beside them: name a "
                "vision transformer of timm, such as vit_large_patch14_clip_quickgelu_224.openai"
            )
        for module in [*norms, network.get_classifier()]:
            module.requires_grad_(True)
        network.get_classifier().register_forward_pre_hook(_on_sphere)
        # So that a plain timm network, whose logits would be others, does not take a saved state without an error.
        network.register_buffer("features_have_length", torch.ones(()))

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """See `TrainedDetector`. Embeddings have length 1."""
        return functional.normalize(super().embed(x))

    def outputs(self, x: torch.Tensor) -> Outputs:
        """See `TrainedDetector`."""
        embeddings = self.embed(x)
        return Outputs(self.classify(embeddings), embeddings)

    def loss(self, outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """See `TrainedDetector`."""
        assert outputs.embeddings is not None
        points = outputs.embeddings.float()
        whole = super().loss(outputs, labels) + self.config.alignment * alignment(points, labels)
        return whole + self.config.uniformity * uniformity(points)

    def learning_rate(self, epoch: int, step: int, num_steps: int) -> float:
        """See `TrainedDetector`."""
        done = ((epoch - 1) % CYCLE + step / num_steps) / CYCLE
        return LOWEST_RATE + (self.config.learning_rate - LOWEST_RATE) * (1 + math.cos(math.pi * done)) / 2


def _on_sphere(module: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    return functional.normalize(inputs[0])


def alignment(points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean squared distance between two points (N, D) of one class; 0 where no two share a class."""
    first, second = torch.triu_indices(len(labels), len(labels), offset=1, device=labels.device)
    alike = labels[first] == labels[second]
    squares = (points[first[alike]] - points[second[alike]]).square().sum(dim=1)
    return squares.sum() / alike.sum().clamp(min=1)


def uniformity(points: torch.Tensor) -> torch.Tensor:
    """How far points (N, D) are from an even spread: the logarithm of the mean of exp(-2 |x - y|^2) over all pairs."""
    if len(points) < 2:
        return points.sum() * 0
    return torch.pdist(points).square().mul(-SPREAD).exp().mean().clamp(min=SMALLEST).log()
