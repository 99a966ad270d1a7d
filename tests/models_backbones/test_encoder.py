from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from models.compute import Compute
from models.encoding import FrozenEncoder, encoder_key
from tests.models_backbones.helpers import load_backbone

BF16 = Compute(dtype=torch.bfloat16)
SMALL = [("timm", "test_resnet"), ("open_clip", "demo-vit-64"), ("sam", "demo")]


@pytest.mark.parametrize(("family", "name"), SMALL)
def test_encodes_as_the_backbone_does(family: str, name: str) -> None:
    backbone = load_backbone(family, name, weights="random", seed=1)
    encoder = FrozenEncoder(backbone, batch_size=2)
    size = backbone.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    pixels.setflags(write=False)  # as a memory map is
    features = encoder.encode(pixels)
    assert features.shape == (5, encoder.num_features)
    assert features.dtype == np.float32
    with torch.no_grad():
        expected = backbone(backbone.preprocessing.normalise(torch.tensor(pixels)))
    assert np.allclose(features, expected, atol=1e-5)
    assert np.array_equal(encoder.encode(list(pixels)), features)
    assert np.array_equal(FrozenEncoder(backbone, batch_size=2).encode(pixels), features)
    assert encoder.encode(pixels[:0]).shape == (0, encoder.num_features)
    assert encoder.geometry is not None
    assert encoder.geometry.apply(pixels[0]).shape == (size, size, 4 if family == "sam" else 3)


def test_refuses_other_sizes_and_types() -> None:
    encoder = FrozenEncoder(load_backbone("sam", "demo", weights="random"))
    for pixels in (np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 3, 64, 64))):
        with pytest.raises(ValueError, match=r"need uint8 \(N, 64, 64, 3\)"):
            encoder.encode(pixels)


def test_the_key_names_what_features_depend_on() -> None:
    def key(family: str = "sam", name: str = "demo", **settings: object) -> str:
        return encoder_key(load_backbone(family, name, weights="random", **settings))  # type: ignore[arg-type]

    keys = [
        key(),
        key(seed=1),
        key(policy="squash"),
        key(size=96),
        key(padding="zero"),
        *[key(*one) for one in SMALL[:2]],
    ]
    assert len(set(keys)) == len(keys)
    assert key() == key()
    backbone = load_backbone("sam", "demo", weights="random")
    keys.append(FrozenEncoder(backbone, BF16).key)
    assert keys[-1] not in keys[:-1]
    backbone.name = "hf-hub:owner/" + "a-very-long-name" * 10
    keys.append(encoder_key(backbone))
    backbone.name = "hf-hub:owner_" + "a-very-long-name" * 10
    keys.append(encoder_key(backbone))
    assert keys[-1] != keys[-2]
    assert all(len(one) <= 150 and re.fullmatch(r"[A-Za-z0-9._-]+", one) for one in keys)


def test_autocast_changes_features_a_little() -> None:
    backbone = load_backbone("open_clip", "demo-vit-64", weights="random")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    full, mixed = (FrozenEncoder(backbone, compute).encode(pixels) for compute in (Compute(), BF16))
    assert mixed.dtype == np.float32
    assert not np.array_equal(full, mixed)
    assert np.allclose(full, mixed, atol=0.1 * np.abs(full).max())


def test_importing_is_light() -> None:
    heavy = ("timm", "open_clip", "segment_anything")
    families = "import sys, models.backbones.timm, models.backbones.open_clip, models.backbones.sam"
    code = f"{families}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("size", "expected"), [(64, 32), (224, 32), (700, 17), (1024, 8), (4096, 1)])
def test_the_default_batch_follows_from_the_pixels(size: int, expected: int) -> None:
    backbone = load_backbone("sam", "demo", weights="random", size=64)
    backbone.preprocessing = dataclasses.replace(backbone.preprocessing, size=size)
    assert FrozenEncoder(backbone).batch_size == expected


def test_a_backbone_is_moved_outside_of_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are moved inside are barred from gradients, which Grad-CAM needs later in the same process."""
    moved: list[bool] = []
    to = torch.nn.Module.to

    def watched(module: torch.nn.Module, *arguments: object) -> torch.nn.Module:
        moved.append(torch.is_inference_mode_enabled())
        return to(module, *arguments)  # type: ignore[arg-type]

    backbone = load_backbone("open_clip", "demo-vit-64", weights="random")
    monkeypatch.setattr(torch.nn.Module, "to", watched)
    FrozenEncoder(backbone).encode(np.zeros((2, 64, 64, 3), dtype=np.uint8))
    assert moved == [False]


def test_two_threads_may_encode_at_the_same_time() -> None:
    encoder = FrozenEncoder(load_backbone("sam", "demo", weights="random"), batch_size=2)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(encoder.encode, np.split(pixels, 6)))
    np.testing.assert_allclose(np.concatenate(parts), encoder.encode(pixels), rtol=1e-4, atol=1e-5)
