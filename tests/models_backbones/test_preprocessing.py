from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from models.preprocessing import Preprocessing
from tests.models_backbones.helpers import clip_backbone, sam_backbone, timm_backbone

PLAIN = Preprocessing(8, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", "squash")


def prepare(preprocessing: Preprocessing, image: np.ndarray) -> torch.Tensor:
    """Both halves of the work, as in a trial: (3, S, S)."""
    return preprocessing.normalise(torch.tensor(preprocessing.geometry.apply(image))[None])[0]


def test_normalise_by_hand() -> None:
    pixels = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    pixels[0, 2, 5] = torch.tensor([255, 51, 0])
    x = PLAIN.normalise(pixels)
    assert x.shape == (1, 3, 8, 8)
    assert x.dtype == torch.float32
    assert x[0, :, 2, 5].tolist() == pytest.approx([0.5 / 0.2, (0.2 - 0.4) / 0.25, -1.0], abs=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert pixels[0, 2, 5].tolist() == [255, 51, 0]


def test_its_constants_are_sent_to_a_device_once_and_let_gradients_through(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = dataclasses.replace(PLAIN, mean=(0.51, 0.41, 0.31))
    pixels = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    with torch.inference_mode():
        first = preprocessing.normalise(pixels)
    monkeypatch.setattr(torch, "tensor", lambda *arguments, **options: pytest.fail("sent again"))
    again = preprocessing.normalise(pixels)
    assert torch.equal(first, again)
    scale = torch.ones(1, requires_grad=True)
    (again * scale).sum().backward()
    assert scale.grad is not None


@pytest.mark.parametrize("pixels", [torch.zeros(1, 8, 8, 3), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_normalise_refuses_other_layouts(pixels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="need uint8"):
        PLAIN.normalise(pixels)


@pytest.mark.parametrize("change", [{"policy": "stretch"}, {"size": 0}, {"crop_fraction": 0.0}, {"crop_fraction": 1.1}])
def test_refuses_senseless_values(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        _ = dataclasses.replace(PLAIN, **change).geometry  # type: ignore[arg-type]


def test_every_field_changes_the_key() -> None:
    changes: dict[str, object] = {
        "size": 9,
        "mean": (0.5, 0.4, 0.31),
        "std": (0.2, 0.25, 0.31),
        "interpolation": "bicubic",
        "policy": "crop",
        "crop_fraction": 0.9,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Preprocessing)}
    keys = {dataclasses.replace(PLAIN, **{name: value}).key for name, value in changes.items()}  # type: ignore[arg-type]
    assert len(keys | {PLAIN.key}) == len(changes) + 1


def test_equals_timms_evaluation_transform(photograph: np.ndarray) -> None:
    from timm.data import create_transform, resolve_data_config

    backbone = timm_backbone("test_efficientnet", weights="random", policy="crop")
    theirs = create_transform(**resolve_data_config(model=backbone.network), is_training=False)
    assert torch.allclose(prepare(backbone.preprocessing, photograph), theirs(Image.fromarray(photograph)), atol=1e-5)


def test_squashing_keeps_the_border_and_cropping_does_not(photograph: np.ndarray) -> None:
    changed = photograph.copy()
    changed[:, :8] = 255 - changed[:, :8]
    for policy, same in [(None, False), ("crop", True)]:
        preprocessing = timm_backbone("test_efficientnet", weights="random", policy=policy).preprocessing
        assert torch.equal(prepare(preprocessing, photograph), prepare(preprocessing, changed)) is same


def test_equals_open_clips_transform(photograph: np.ndarray) -> None:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    backbone = clip_backbone("demo-vit-64", weights="random")
    theirs = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(backbone.network)), is_train=False)
    assert torch.allclose(prepare(backbone.preprocessing, photograph), theirs(Image.fromarray(photograph)), atol=1e-5)


def test_equals_sams_own_preprocessing(photograph: np.ndarray) -> None:
    from segment_anything.modeling import Sam
    from segment_anything.utils.transforms import ResizeLongestSide

    backbone = sam_backbone("demo", weights="random")
    sam = Sam(backbone.network, torch.nn.Identity(), torch.nn.Identity())
    resized = ResizeLongestSide(64).apply_image(photograph)
    theirs = sam.preprocess(torch.tensor(resized).permute(2, 0, 1).float()[None])[0]
    geometry = dataclasses.replace(backbone.preprocessing.geometry, alpha=True)
    ours = backbone.preprocessing.normalise(torch.tensor(geometry.apply(photograph))[None])[0]
    height = resized.shape[0]
    assert height < 64
    assert torch.allclose(ours[:3], theirs, atol=1e-5)
    assert torch.equal(ours[3], torch.arange(64)[:, None].expand(64, 64).lt(height).float())
