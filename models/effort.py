"""A transformer whose attention weights train in their last singular directions alone; see `detectors/effort.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from models.training import NetworkDetector, Outputs

if TYPE_CHECKING:
    from models.detectors.effort import EffortConfig

ROUND = 1e-12  # added inside of a root, whose slope at 0 would be infinite; changes a term by at most 1e-6


class LastDirections(nn.Module):
    """A parametrisation of K stacked square matrices (K x D, D): frozen ones plus their last singular directions.

    Until `decompose`, everything is in the frozen part.

    Args:
        weight: (K x D, D).
        rank: number of directions R that train.

    Raises:
        ValueError: the matrices are not square, or have no further direction.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        rows, side = weight.shape
        if rows % side:
            raise ValueError(f"an attention matrix of {rows} x {side} is not square: choose another backbone")
        if rank >= side:
            raise ValueError(f"rank must be below {side}, the number of directions of an attention matrix; got {rank}")
        count = rows // side
        shapes = (count, side, rank), (count, rank), (count, rank, side)
        self.left, self.values, self.right = (nn.Parameter(torch.zeros(shape)) for shape in shapes)
        self.first_left, self.first_values, self.first_right = (nn.Buffer(torch.zeros(shape)) for shape in shapes)

    @torch.no_grad()
    def decompose(self, frozen: torch.Tensor) -> None:
        """Take the last directions out of the frozen matrices (K x D, D), which changes these; once."""
        if self.first_values.any():
            return
        left, values, right = torch.linalg.svd(frozen.unflatten(0, (-1, frozen.shape[1])))
        rank = self.values.shape[1]
        last = left[..., -rank:], values[..., -rank:], right[..., -rank:, :]
        for part, trained, first in zip(
            last,
            (self.left, self.values, self.right),
            (self.first_left, self.first_values, self.first_right),
            strict=True,
        ):
            trained.copy_(part)
            first.copy_(part)
        frozen -= self.residual()

    def residual(self) -> torch.Tensor:
        """The part that trains, (K x D, D)."""
        with torch.autocast(self.left.device.type, enabled=False):
            return ((self.left * self.values[:, None]) @ self.right).flatten(0, 1)

    def forward(self, frozen: torch.Tensor) -> torch.Tensor:
        """The whole weight."""
        return frozen + self.residual()

    def penalty(self, frozen: torch.Tensor) -> torch.Tensor:
        """Summed over the matrices: distance from orthogonality, and the change of the squared Frobenius norm.

        With U all left vectors, the authors' first term is |U U^T - 1| / 2, and the same for the right ones. The frozen
        vectors and the first trained ones are a basis, so U U^T - 1 = V V^T - F F^T, with V the trained vectors and F
        the first ones: no frozen vector is needed.
        """
        right, first_right = self.right.transpose(1, 2), self.first_right.transpose(1, 2)
        orthogonality = _distance(self.left, self.first_left) / 2 + _distance(right, first_right) / 2
        blocks = frozen.unflatten(0, (-1, frozen.shape[1]))
        # |frozen + residual|^2 - |frozen + first residual|^2, whose first two parts are orthogonal
        scaled = self.left * self.values[:, None]
        across = ((blocks @ right) * scaled).sum(dim=(1, 2))
        own = ((scaled.transpose(1, 2) @ scaled) * (self.right @ right)).sum(dim=(1, 2))
        change = 2 * across + own - self.first_values.square().sum(dim=1)
        return (orthogonality + change.abs()).sum()


def _distance(vectors: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """|V V^T - F F^T| of stacked vectors (K, D, R), Frobenius norms (K,), from products of R x R numbers alone."""
    vectors, first = vectors.double(), first.double()
    pairs = ((vectors, vectors), (first, first), (vectors, first))
    own, other, both = ((a.transpose(1, 2) @ b).square().sum(dim=(1, 2)) for a, b in pairs)
    return (own + other - 2 * both + ROUND).clamp(min=ROUND).sqrt().float()


class EffortDetector(NetworkDetector):
    """See `models.detectors.effort`."""

    config: EffortConfig

    def adapt(self, network: Any) -> None:
        """Freeze all but the classifier and the last directions of the attention weights.

        Raises:
            ValueError: the network has no blocks with attention whose matrices are square.
        """
        network.requires_grad_(False)
        blocks = [block for block in getattr(network, "blocks", ()) if hasattr(block, "attn")]
        linears = [module for block in blocks for module in block.attn.modules() if isinstance(module, nn.Linear)]
        if not linears:
            raise ValueError(
                "this method trains attention weights, and its backbone has no blocks with attention: name a vision "
                "transformer of timm, such as vit_large_patch14_clip_quickgelu_224.openai"
            )
        for linear in linears:
            directions = LastDirections(linear.weight, self.config.rank)
            parametrize.register_parametrization(linear, "weight", directions)
        network.get_classifier().requires_grad_(True)

    def loss(self, outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """See `TrainedDetector`."""
        whole = super().loss(outputs, labels)
        if not self.config.regularisation:
            return whole
        return whole + self.config.regularisation * self.penalty()

    def before_training(self) -> None:
        """Take the last directions out of the matrices. Not in the constructor: that takes minutes for ViT-L/14."""
        for weight in self._attention():
            weight[0].decompose(weight.original)
        super().before_training()

    def _attention(self) -> list[Any]:
        linears = [module for module in self._network.modules() if parametrize.is_parametrized(module, "weight")]
        return [cast(Any, linear.parametrizations).weight for linear in linears]

    def penalty(self) -> torch.Tensor:
        """The mean over all attention matrices of `LastDirections.penalty`."""
        weights = self._attention()
        count = sum(len(weight[0].left) for weight in weights)
        return torch.stack([weight[0].penalty(weight.original) for weight in weights]).sum() / count
