"""One type for every frozen image encoder, whatever library it comes from."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from models.preprocessing import Preprocessing
from models.weights import WeightsSource

Reshape = Callable[[torch.Tensor], torch.Tensor]
Cam = tuple[list[nn.Module], Reshape | None]


@dataclass(frozen=True)
class BackboneRequest:
    """Which backbone is wanted.

    Attributes:
        name: as the family calls the architecture.
        weights: see `models.weights`.
        weight_files: digest -> local path, for "file:<digest>".
        seed: of random initial weights.
        policy: how pictures become square (see `Preprocessing`); None: the family's default.
        size: side of the input in pixels; None: the one that the weights were trained at.
    """

    name: str
    weights: str
    weight_files: Mapping[str, Path] = field(default_factory=dict, hash=False)
    seed: int = 0
    policy: str | None = None
    size: int | None = None


class Backbone(nn.Module):
    """A frozen image encoder: evaluation mode, no parameter asks for a gradient.

    For Grad-CAM, gradients still flow through it to whatever input asks for them: `x.requires_grad_()` is needed,
    because no parameter does.

    Attributes:
        family: "timm", "open_clip" or "sam".
        name: as that library calls the architecture.
        num_features: D.
        preprocessing: what the pixels must look like.
        weights_note: where the weights come from, in words for a table.
        weights_digest: "random-<seed>", or the digest of the file.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        family: str,
        name: str,
        num_features: int,
        preprocessing: Preprocessing,
        source: WeightsSource,
        pool: Reshape | None,
        find_cam: Callable[[nn.Module, int], Cam],
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.family = family
        self.name = name
        self.num_features = num_features
        self.preprocessing = preprocessing
        self.weights_note = source.note
        self.weights_digest = source.digest
        self._pool = pool
        self._find_cam = find_cam
        self._cam: Cam | None = None
        self.train(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised (N, 3, S, S) -> features (N, D), S = `preprocessing.size`."""
        features = self.network(x)
        return features if self._pool is None else self._pool(features)

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode whatever is asked: a frozen backbone has no dropout and fixed statistics."""
        return super().train(False)

    def cam_layers(self) -> list[nn.Module]:
        """The layers whose activations Grad-CAM weights."""
        return self._found_cam()[0]

    @property
    def cam_reshape(self) -> Reshape | None:
        """Activations of those layers -> (N, channels, h, w); None where they already have that shape."""
        return self._found_cam()[1]

    def _found_cam(self) -> Cam:
        if self._cam is None:
            self._cam = self._find_cam(self.network, self.preprocessing.size)
        return self._cam


@dataclass(frozen=True)
class TokenGrid:
    """Tokens of a vision transformer -> (N, channels, h, w), h = w from the number of tokens.

    grad-cam's own `vit_reshape_transform` assumes 14 x 14 patches and one prefix token; this works for any.

    Attributes:
        num_prefix: tokens before the patches (class, registers).
        batch_first: whether tokens come as (N, L, channels); else (L, N, channels).
    """

    num_prefix: int
    batch_first: bool = True

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, L, channels), or (L, N, channels) -> (N, channels, h, w).

        Raises:
            ValueError: the patches make no square.
        """
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        patches = tokens[:, self.num_prefix :]
        side = math.isqrt(patches.shape[1])
        if side * side != patches.shape[1]:
            raise ValueError(f"{patches.shape[1]} patch tokens make no square (prefix of {self.num_prefix} tokens)")
        return patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights follow from `seed` alone, and the caller's generator is as it was before.

    Networks are built on the CPU, so only its generator is touched; `torch.manual_seed` would also reseed CUDA's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def three(values: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers, one per colour. Raises `ValueError` for another count."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def nearest(name: str, names: Sequence[str]) -> str:
    """Which known names are like this one, in words for a message."""
    near = difflib.get_close_matches(name, names, n=6, cutoff=0.5)
    return f"near it: {', '.join(near)}" if near else "nothing is near it"
