"""What several of these tests do with a backbone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from models import backbones
from models.backbones import timm as timm_family
from models.backbones.base import Backbone, BackboneRequest
from models.preprocessing import Preprocessing
from models.weights import file_digest


def load_backbone(family: str, name: str, **request: Any) -> Backbone:
    return backbones.load_backbone(family, BackboneRequest(name, **request))


timm_backbone = partial(load_backbone, "timm")
clip_backbone = partial(load_backbone, "open_clip")
sam_backbone = partial(load_backbone, "sam")


def timm_classifier(name: str, num_classes: int, **request: Any) -> tuple[torch.nn.Module, Preprocessing]:
    return timm_family.timm_classifier(BackboneRequest(name, **request), num_classes)


def as_file_weights(path: Path) -> tuple[str, dict[str, Path]]:
    """The weights string of a file, and the mapping that finds it."""
    digest = file_digest(path)
    return f"file:{digest}", {digest: path}


def picture(backbone: Backbone, count: int = 1) -> torch.Tensor:
    size = backbone.preprocessing.size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def cam_activations(backbone: Backbone, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(features, activations of the CAM layer as the layer returns them, the same as (N, channels, h, w))."""
    seen: list[torch.Tensor] = []
    (layer,), reshape = backbone.cam()
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        features = backbone(x)
    finally:
        handle.remove()
    return features, seen[0], seen[0] if reshape is None else reshape(seen[0])


def assert_places_land(backbone: Backbone, *, within: int = 0) -> None:
    """A change at one place of the picture shows most at the same place of the CAM layer's map, or `within` cells."""
    x = picture(backbone)
    with torch.no_grad():
        before = cam_activations(backbone, x)[2]
        side = before.shape[-1]
        assert before.shape[-2] == side
        assert side > 2
        cell = backbone.preprocessing.size // side
        for row, column in [(0, side - 1), (side - 2, 1), (side // 2, 0)]:
            changed = x.clone()
            changed[:, :, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] += 3
            difference = (cam_activations(backbone, changed)[2] - before).square().sum(dim=(0, 1))
            found_row, found_column = divmod(int(difference.argmax()), side)
            assert max(abs(found_row - row), abs(found_column - column)) <= within


def assert_gradient_reaches(backbone: Backbone) -> None:
    """The features' gradient at the CAM layer is not zero at (nearly) every place of the map."""
    x = picture(backbone).requires_grad_()
    features, raw, _ = cam_activations(backbone, x)
    (gradient,) = torch.autograd.grad(features.square().sum(), raw)
    _, reshape = backbone.cam()
    grid = gradient if reshape is None else reshape(gradient)
    assert (grid.abs().sum(dim=1) > 0).float().mean() > 0.9
