"""Patch tokens of a frozen backbone: one vector per cell of a grid over the picture."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from models.backbones.base import Backbone


class PatchTokens(nn.Module):
    """A frozen backbone up to one of its blocks.

    Of a convolutional network of timm, the stages count as blocks, and the cells of its feature map as tokens.

    Args:
        backbone: of open_clip or timm.
        depth: share of the blocks, in (0, 1]; the block after which tokens are taken is rounded up.

    Attributes:
        block: the number of that block, from 1.
        width: length of a token.
        cells: rows and columns of the grid.

    Raises:
        ValueError: the network has no such tokens.
    """

    def __init__(self, backbone: Backbone, depth: float) -> None:
        super().__init__()
        network: Any = backbone.network
        network = getattr(network, "trunk", network)  # open_clip wraps timm's networks
        count = _num_blocks(network)
        if not count or not hasattr(network, "forward_intermediates"):
            raise ValueError(
                f"{backbone.name} has no patch tokens that can be read: name a vision transformer of open_clip or "
                "timm, such as ViT-L-14-quickgelu, or vit_base_patch14_reg4_dinov2 with family=timm"
            )
        self.backbone = backbone
        self.block = min(count, math.ceil(depth * count - 1e-9))
        self._network = network
        side = backbone.preprocessing.size
        with torch.inference_mode():
            parameter = next(network.parameters())
            grid = self(torch.zeros(1, 3, side, side, device=parameter.device, dtype=parameter.dtype))
        self.width, self.cells = int(grid.shape[1]), (int(grid.shape[2]), int(grid.shape[3]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised (N, 3, S, S) -> tokens of the patches (N, width, rows, columns), as the block leaves them."""
        found = self._network.forward_intermediates(
            x, indices=[self.block - 1], stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        tokens: torch.Tensor = (found["image_intermediates"] if isinstance(found, dict) else found)[0]
        return tokens


def _num_blocks(network: Any) -> int:
    """Blocks of a vision transformer, or stages of a convolutional network of timm; 0 for any other network."""
    if hasattr(network, "transformer"):
        return len(getattr(network.transformer, "resblocks", ()))
    if hasattr(network, "num_prefix_tokens"):
        return len(getattr(network, "blocks", ()))
    return len(getattr(network, "feature_info", None) or ())
