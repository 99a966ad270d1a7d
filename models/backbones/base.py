"""One type for the frozen image encoders of all libraries."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.preprocessing import Preprocessing
from models.weights import WeightsSource

Reshape = Callable[[torch.Tensor], torch.Tensor]
# Output of a network, and (N, 1, S, S) with 1 where the picture is and 0 where it was filled up, or None -> (N, D).
Pool = Callable[[Any, torch.Tensor | None], torch.Tensor]
Cam = tuple[list[nn.Module], Reshape | None]


@dataclass(frozen=True)
class BackboneRequest:
    """The architecture, weights and input of a backbone.

    Attributes:
        name: the family's name of the architecture.
        weights: see `models.weights`.
        weight_files: digest -> local path, for "file:<digest>".
        seed: seed of random initial weights.
        policy: how pictures become square (see `models.geometry.Geometry`); None: the family's default.
        size: side of the input in pixels; None: the size at which the weights were trained.
        mean: mean of R, G and B with which the weights were trained, as "R,G,B" for pixels in [0, 1]; None: the family
            knows it. Only open_clip takes this field and the next two.
        std: standard deviation of R, G and B, likewise.
        interpolation: of resizing, see `models.geometry.Geometry`; None: the family knows it.
        padding: "zero": there are pictures that are not square, whose features differ from those of earlier checkouts;
            goes into the features' key. Only SAM takes it.
    """

    name: str
    weights: str
    weight_files: Mapping[str, Path] = field(default_factory=dict, hash=False)
    seed: int = 0
    policy: str | None = None
    size: int | None = None
    mean: str | None = None
    std: str | None = None
    interpolation: str | None = None
    padding: str | None = None


class Backbone(nn.Module):
    """A frozen image encoder: always in evaluation mode, no parameter requires a gradient.

    Gradients still flow through it to an input that requires them, as Grad-CAM needs: call `x.requires_grad_()`.

    Attributes:
        family: "timm", "open_clip" or "sam".
        name: the library's name of the architecture.
        num_features: D.
        preprocessing: the preprocessing of pixels.
        weights_note: origin of the weights, in words for a table.
        weights_digest: "random-<seed>", or the digest of the file.
        alpha: whether the network wants to know where pictures were filled up (`models.geometry.Geometry.alpha`).
        mark: a further part of the features' key; "" for none.
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
        pool: Pool | None,
        find_cam: Callable[[nn.Module, int], Cam],
        alpha: bool = False,
        mark: str = "",
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.family = family
        self.name = name
        self.num_features = num_features
        self.preprocessing = preprocessing
        self.weights_note = source.note
        self.weights_digest = source.digest
        self.alpha = alpha
        self.mark = mark
        self._pool = pool
        self._find_cam = find_cam
        self.train(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised (N, 3, S, S) -> features (N, D), S = `preprocessing.size`.

        With `alpha` also (N, 4, S, S), whose last channel is 1 where the picture is and 0 where it was filled up.
        """
        present = x[:, 3:] if x.shape[1] == 4 else None
        if present is not None:
            x = x[:, :3].contiguous(memory_format=torch.channels_last)
        features = self.network(x)
        return features if self._pool is None else self._pool(features, present)

    def train(self, mode: bool = True) -> Backbone:
        """Ignore `mode` and stay in evaluation mode: without dropout, with fixed statistics."""
        return super().train(False)

    def cam(self) -> Cam:
        """The layers whose activations Grad-CAM weights, and a function that reshapes these to (N, channels, h, w).

        The function is None if the activations already have that shape.
        """
        return self._find_cam(self.network, self.preprocessing.size)


@dataclass(frozen=True)
class TokenGrid:
    """Tokens of a vision transformer -> (N, channels, h, w); the number of tokens determines h = w.

    grad-cam's own `vit_reshape_transform` assumes 14 x 14 patches and one prefix token; this has no such limits.

    Attributes:
        num_prefix: number of tokens before the patches (class, registers).
        batch_first: whether tokens have the shape (N, L, channels); else (L, N, channels).
    """

    num_prefix: int
    batch_first: bool = True

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, L, channels), or (L, N, channels) -> (N, channels, h, w).

        Raises:
            ValueError: the patches do not form a square.
        """
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        patches = tokens[:, self.num_prefix :]
        side = math.isqrt(patches.shape[1])
        if side * side != patches.shape[1]:
            raise ValueError(f"{patches.shape[1]} patch tokens form no square (prefix of {self.num_prefix} tokens)")
        return patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make initial weights depend only on `seed`, and restore the caller's random generator afterwards.

    Networks are built on the CPU, so only its generator is seeded; `torch.manual_seed` would also reseed CUDA's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def three(values: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers, one per colour. Raises `ValueError` for another count."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def nearest(name: str, names: Sequence[str]) -> str:
    """The names that are most similar to `name`, in words for a message."""
    near = difflib.get_close_matches(name, names, n=6, cutoff=0.5)
    return f"near it: {', '.join(near)}" if near else "nothing is near it"
