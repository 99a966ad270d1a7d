"""The network of RINE (arXiv 2402.19091) on the class tokens of all blocks, and its losses; see `detectors/rine.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from models.backbones.base import seeded
from models.backbones.open_clip_blocks import ClassTokens
from models.detector import BuildContext
from models.encoding import frozen_encoder
from models.heads import HeadDetector
from models.training import Outputs

if TYPE_CHECKING:
    from models.detectors.rine import RineConfig

TEMPERATURE = 0.07  # of the contrastive loss: `SupConLoss` of the authors' `src/utils.py`
PARTS = 3  # of the epochs; in each the learning rate is a tenth of that before: `scripts/best.py`, of 15 epochs


class RineHead(nn.Module):
    """Class tokens of all blocks (N, blocks x D) -> logits (N, C).

    Two classes have one output, the log-odds of the second; each class gets half of it.

    Args:
        num_blocks: number of blocks.
        num_features: D.
        num_classes: C.
        width: of both projections and of the classifier's hidden layers.
        layers: of each projection.
    """

    def __init__(self, num_blocks: int, num_features: int, num_classes: int, *, width: int, layers: int) -> None:
        super().__init__()
        self._shape = (num_blocks, num_features)
        self.importance = nn.Parameter(torch.randn(num_blocks, width))
        self.first = nn.Sequential(nn.Dropout(), *_layers(num_features, width, layers))
        self.second = nn.Sequential(nn.Dropout(), *_layers(width, width, layers))
        self.classifier = nn.Sequential(
            *_layers(width, width, 2), nn.Linear(width, 1 if num_classes == 2 else num_classes)
        )

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Class tokens (N, blocks x D) -> embeddings (N, width)."""
        projected = self.first(tokens.unflatten(1, self._shape))
        embeddings: torch.Tensor = self.second((self.importance.softmax(dim=0) * projected).sum(dim=1))
        return embeddings

    def classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, width) -> logits (N, C)."""
        logits: torch.Tensor = self.classifier(embeddings)
        return torch.cat([-logits, logits], dim=1) / 2 if logits.shape[1] == 1 else logits

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Class tokens (N, blocks x D) -> logits (N, C)."""
        return self.classify(self.embed(tokens))


def _layers(num_inputs: int, width: int, count: int) -> list[nn.Module]:
    return [
        module
        for number in range(count)
        for module in (nn.Linear(width if number else num_inputs, width), nn.ReLU(), nn.Dropout())
    ]


def contrastive_loss(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The supervised contrastive loss of a batch (arXiv 2004.11362, equation 2), its mean over the images.

    Each image's embedding shall be nearer to those of its class than to the others. An image without another of its
    class adds nothing.

    Args:
        embeddings: (N, D), of any length; their directions count.
        labels: (N,).
    """
    directions = functional.normalize(embeddings)
    similarity = directions @ directions.T / TEMPERATURE
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_shares = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    alike = (labels[:, None] == labels) & ~itself
    means = (log_shares * alike).sum(dim=1) / alike.sum(dim=1).clamp(min=1)
    return -means.mean()


class RineDetector(HeadDetector):
    """See `models.detectors.rine`."""

    def __init__(self, config: RineConfig, context: BuildContext) -> None:
        encoder = frozen_encoder(
            "open_clip_blocks", config, context, mean=config.mean, std=config.std, interpolation=config.interpolation
        )
        num_blocks = cast(ClassTokens, encoder.backbone.network).num_blocks
        with seeded(context.seed):
            head = RineHead(
                num_blocks, encoder.num_features // num_blocks, len(context.classes),
                width=config.width, layers=config.layers,
            )  # fmt: skip
        super().__init__(encoder, head, config, context, config.width, resize=config.resize)
        self._contrastive = config.contrastive

    def outputs(self, x: torch.Tensor) -> Outputs:
        """See `TrainedDetector`."""
        embeddings = self.embed(x)
        return Outputs(self.classify(embeddings), embeddings)

    def loss(self, outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """See `TrainedDetector`: that of the authors, a sum over the batch, divided by its number of images."""
        assert outputs.embeddings is not None
        contrast = contrastive_loss(outputs.embeddings.float(), labels)
        return super().loss(outputs, labels) + self._contrastive * contrast / len(labels)

    def learning_rate(self, epoch: int, step: int, num_steps: int) -> float:
        """See `TrainedDetector`."""
        return self.config.learning_rate / 10 ** (PARTS * (epoch - 1) // self.config.epochs)
