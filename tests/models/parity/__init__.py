"""Forward passes and losses beside those of the authors' published code, on the same random weights (README.md)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent


def numbers(name: str, *shape: int) -> torch.Tensor:
    """Standard normal float32 numbers that follow from a name; the stream of `RandomState` is frozen by numpy."""
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32))


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors that follow from their names: gains of normalisations near 1, biases near 0, matrices by their fan-in.

    Running variances are above one half; counts of batches are 0.
    """
    made = {}
    for name, shape in shapes.items():
        values = numbers(name, *shape)
        if name.endswith(("running_var", "num_batches_tracked")):
            made[name] = values.abs() + 0.5 if shape else torch.zeros((), dtype=torch.int64)
            continue
        is_gain = name.endswith("weight") and len(shape) == 1
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 25
        made[name] = (1 if is_gain else 0) + values * fan_in**-0.5
    return made


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a module's state dict, by name."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def published(name: str) -> dict[str, Any]:
    """What the authors' code gave, as float32 tensors and numbers."""
    values = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return {key: torch.tensor(value) if isinstance(value, list) else value for key, value in values.items()}


def pixels(name: str, *shape: int) -> torch.Tensor:
    """uint8 pixels that follow from a name."""
    return (128 + 40 * numbers(name, *shape)).clamp(0, 255).to(torch.uint8)
