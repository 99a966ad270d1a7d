"""The class tokens inside every block of a CLIP vision transformer, in place of its one output."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.backbones import register_family
from models.backbones.base import Backbone, BackboneRequest
from models.backbones.open_clip import clip_files, clip_tower, tower_cam


@register_family("open_clip_blocks", files=clip_files)
def blocks_backbone(request: BackboneRequest) -> Backbone:
    """Features are the class tokens after each block's second norm, first block first: (N, blocks x width).

    The second norm is what a block's MLP reads. `models.detectors.rine` says why there. Pictures, weights and errors
    are those of the family `open_clip`.

    Raises:
        ValueError: the tower is no vision transformer of open_clip with a class token.
    """
    tower, preprocessing, source = clip_tower(request)
    if not hasattr(getattr(tower, "transformer", None), "resblocks") or not hasattr(tower, "class_embedding"):
        raise ValueError(
            f"{request.name} has no blocks with a class token: name a vision transformer of open_clip, such as "
            "ViT-L-14-quickgelu"
        )
    network = ClassTokens(tower)
    return Backbone(
        network,
        family="open_clip",
        name=request.name,
        num_features=network.num_blocks * tower.class_embedding.numel(),
        preprocessing=preprocessing,
        source=source,
        pool=None,
        find_cam=lambda module, size: tower_cam(network.tower, size),
        mark="blocks",
    )


class ClassTokens(nn.Module):
    """A CLIP vision transformer whose output is the class token after the second norm of each block."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower
        self.num_blocks = len(tower.transformer.resblocks)
        self._seen: list[torch.Tensor] = []
        for block in tower.transformer.resblocks:
            block.ln_2.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self._seen.append(output[:, 0] if self.tower.transformer.batch_first else output[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised (N, 3, S, S) -> (N, blocks x width)."""
        self._seen.clear()
        self.tower(x)
        tokens = torch.cat(self._seen, dim=1)
        self._seen.clear()
        return tokens
