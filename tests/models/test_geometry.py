from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.geometry import INTERPOLATIONS, POLICIES, Geometry
from tests.corpora import picture


def noisy(height: int, width: int) -> np.ndarray:
    smooth = np.array(Image.fromarray(picture("a")).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noise = np.random.default_rng(0).integers(-40, 40, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (218, 178), (179, 301), (64, 64), (333, 90)])
@pytest.mark.parametrize(("size", "crop_fraction"), [(224, 0.875), (299, 0.903), (299, 1.0)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crop_is_what_timm_does(height: int, width: int, size: int, crop_fraction: float, interpolation: str) -> None:
    create_transform = pytest.importorskip("timm.data").create_transform
    transform = create_transform((3, size, size), interpolation=interpolation, crop_pct=crop_fraction)
    pil_stages = transform.transforms[:2]
    assert [type(stage).__name__ for stage in pil_stages] == ["Resize", "CenterCrop"]
    image = noisy(height, width)
    expected = Image.fromarray(image)
    for stage in pil_stages:
        expected = stage(expected)
    geometry = Geometry(size, interpolation=interpolation, policy="crop", crop_fraction=crop_fraction)
    np.testing.assert_array_equal(geometry.apply(image), np.array(expected))


def test_squash_is_torchvisions_resize_of_a_pil_image() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image = noisy(218, 178)
    bicubic = transforms.InterpolationMode.BICUBIC
    expected = transforms.Resize((299, 299), interpolation=bicubic)(Image.fromarray(image))
    np.testing.assert_array_equal(Geometry(299).apply(image), np.array(expected))


@pytest.mark.parametrize(("height", "width"), [(218, 178), (100, 251)])
def test_pad_is_segment_anythings(height: int, width: int) -> None:
    sam = pytest.importorskip("segment_anything.utils.transforms")
    image = noisy(height, width)
    inner = sam.ResizeLongestSide(128).apply_image(image)
    result = Geometry(128, interpolation="bilinear", policy="pad", fill=(9, 8, 7)).apply(image)
    np.testing.assert_array_equal(result[: inner.shape[0], : inner.shape[1]], inner)
    rest = np.ones((128, 128), dtype=bool)
    rest[: inner.shape[0], : inner.shape[1]] = False
    assert (result[rest] == (9, 8, 7)).all()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_an_image_of_the_right_size_is_left_alone(policy: str, interpolation: str) -> None:
    image = noisy(48, 48)
    np.testing.assert_array_equal(Geometry(48, interpolation=interpolation, policy=policy).apply(image), image)


@settings(max_examples=60)
@given(
    policy=st.sampled_from(POLICIES),
    size=st.integers(1, 40),
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    crop_fraction=st.floats(0.5, 1),
)
def test_the_result_is_always_the_square(policy: str, size: int, height: int, width: int, crop_fraction: float) -> None:
    image = np.full((height, width, 3), 77, dtype=np.uint8)
    result = Geometry(size, policy=policy, crop_fraction=crop_fraction, fill=(77, 77, 77)).apply(image)
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert (result == 77).all()


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    inner = Geometry(16, interpolation="bilinear").apply(stripes)[:, 2:-2]
    assert inner.min() > 100
    assert inner.max() < 155


def test_keys_name_what_the_result_depends_on_and_nothing_else() -> None:
    assert Geometry(299).key == "squash-299-bicubic"
    assert Geometry(299, policy="crop", crop_fraction=0.903).key == "crop-299-bicubic-0.903"
    assert Geometry(64, "bilinear", "pad", fill=(124, 116, 104)).key == "pad-64-bilinear-124.116.104"
    assert Geometry(64, "bilinear", "pad", alpha=True).key == "pad-64-bilinear-0.0.0-alpha"
    assert Geometry(299, crop_fraction=0.5, fill=(1, 1, 1)).key == Geometry(299).key
    assert Geometry(8, policy="crop", crop_fraction=1).key == Geometry(8, policy="crop", crop_fraction=1.0).key
    variants = [Geometry(s, i, p, c) for s in (1, 11) for i in INTERPOLATIONS for p in POLICIES for c in (0.5, 0.25)]
    keys = {geometry.key for geometry in variants}
    assert len(keys) == 2 * 4 * (1 + 2 + 1 + 1)
    assert all(re.fullmatch(r"[a-z0-9.-]+", key) for key in keys)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"policy": "stretch"}, "squash, crop, pad, native"),
        ({"interpolation": "cubic"}, "nearest, bilinear, bicubic, lanczos"),
        ({"size": 0}, "at least one pixel"),
        ({"crop_fraction": 0.0}, "crop_fraction"),
        ({"crop_fraction": math.nan}, "crop_fraction"),
        ({"policy": "crop", "alpha": True}, "fills nothing"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Geometry(**{"size": 8} | settings)  # type: ignore[arg-type]


# Back over the picture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 60), (90, 60), (61, 97), (32, 48)])
@pytest.mark.parametrize("policy", ["squash", "crop", "pad"])
def test_a_map_returns_to_its_place(policy: str, shape: tuple[int, int]) -> None:
    geometry = Geometry(48, "bilinear", policy, crop_fraction=0.875)
    height, width = shape
    for row, column in ((height // 2, width // 2), (height // 3, width // 2), (height // 2, 2 * width // 3)):
        spot = np.zeros(shape)
        spot[row - 3 : row + 4, column - 3 : column + 4] = 1
        picture = np.repeat((255 * spot).astype(np.uint8)[..., None], 3, axis=2)
        cam = geometry.apply(picture)[..., 0] / np.float32(255)
        back = geometry.invert(cam, shape)
        assert back.shape == shape
        assert back.dtype == np.float32
        rows, columns = np.mgrid[:height, :width]
        centre = [(places * back).sum() / back.sum() for places in (rows, columns)]
        assert centre == pytest.approx([row, column], abs=0.6)
        assert np.abs(back - spot).mean() < 0.05


def test_what_was_cut_off_has_no_evidence() -> None:
    geometry = Geometry(32, policy="crop", crop_fraction=0.8)
    back = geometry.invert(np.ones((32, 32), np.float32), (40, 80))
    assert (back[:, :22] == 0).all()
    assert (back[:, -22:] == 0).all()
    assert (back[6:34, 26:54] == 1).all()
    assert (back[:2] == 0).all()


def test_the_filled_part_is_cut_off() -> None:
    cam = np.zeros((32, 32), np.float32)
    cam[16:] = 1  # below the picture, where there is nothing but filling
    np.testing.assert_array_equal(Geometry(32, policy="pad").invert(cam, (50, 100)), np.zeros((50, 100)))


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(16, 16\).*\(32, 32\)"):
        Geometry(32).invert(np.zeros((16, 16)), (50, 50))


@pytest.mark.parametrize("shape", [(48, 48), (61, 80), (50, 301), (33, 20), (20, 90), (90, 21)])
def test_native_is_the_centre_crop_of_torchvision(shape: tuple[int, int]) -> None:
    from torchvision.transforms import CenterCrop

    image = np.random.default_rng(0).integers(1, 256, (*shape, 3), dtype=np.uint8)
    expected = np.asarray(CenterCrop(48)(Image.fromarray(image)))
    np.testing.assert_array_equal(Geometry(48, policy="native").apply(image), expected)


@pytest.mark.parametrize("shape", [(48, 48), (61, 80), (33, 20), (20, 90)])
def test_a_map_returns_to_its_place_without_a_resize(shape: tuple[int, int]) -> None:
    geometry, picture = Geometry(48, policy="native"), np.random.default_rng(0).random(shape, dtype=np.float32)
    as_pixels = np.repeat((255 * picture).astype(np.uint8)[:, :, None], 3, axis=2)
    back = geometry.invert(geometry.apply(as_pixels)[..., 0] / np.float32(255), shape)
    seen = back > 0
    np.testing.assert_array_equal(back[seen], (as_pixels[..., 0] / np.float32(255))[seen])
    assert seen.sum() > 0.98 * min(48, shape[0]) * min(48, shape[1])  # a pixel may be 0
