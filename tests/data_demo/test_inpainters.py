"""What every stand-in must keep to; a new one is tested by being registered."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data.demo.faces import add_sensor_noise, draw_face, draw_mask
from data.demo.inpainters import get_inpainter, list_inpainters, register_inpainter

PASTED_EXACTLY = {"fourier_fill", "patch_sample"}

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def photograph(size: int = 64, seed: int = 0) -> Image:
    return add_sensor_noise(draw_face(np.random.default_rng([1, seed]), size), np.random.default_rng([2, seed]))


def run(name: str, image: Image, mask: Mask, seed: int = 0) -> Image:
    return get_inpainter(name)(image, mask, np.random.default_rng(seed))


def outside_change(name: str, num_pictures: int = 6) -> NDArray[np.int64]:
    """Absolute change of the known pixels, (N, 3) levels, over a few pictures."""
    changes = []
    for seed in range(num_pictures):
        image, mask = photograph(seed=seed), draw_mask(np.random.default_rng(seed), 64)
        changes.append(np.abs(run(name, image, mask, seed).astype(int) - image)[~mask])
    return np.concatenate(changes)


@pytest.mark.parametrize("name", list_inpainters())
@pytest.mark.parametrize("shape", [(64, 64), (45, 71), (37, 33)])
def test_shape_dtype_and_arguments(name: str, shape: tuple[int, int]) -> None:
    image = photograph(80)[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    mask[10:25, 8:30] = True
    image_before, mask_before = image.copy(), mask.copy()
    out = run(name, image, mask)
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert not np.shares_memory(out, image)
    np.testing.assert_array_equal(image, image_before)
    np.testing.assert_array_equal(mask, mask_before)
    assert (out[mask] != image[mask]).mean() > 0.5


@pytest.mark.parametrize("name", list_inpainters())
def test_the_hidden_pixels_are_not_read(name: str) -> None:
    image, mask = photograph(), draw_mask(np.random.default_rng(5), 64)
    other = image.copy()
    other[mask] = np.random.default_rng(9).integers(0, 256, (mask.sum(), 3))
    np.testing.assert_array_equal(run(name, image, mask), run(name, other, mask))


@pytest.mark.parametrize("name", list_inpainters())
def test_a_wish_is_what_the_region_shows(name: str) -> None:
    image, mask = photograph(), draw_mask(np.random.default_rng(5), 64)
    wish = draw_face(np.random.default_rng(11), 64) * np.float32(255)
    before = wish.copy()
    out = get_inpainter(name)(image, mask, np.random.default_rng(0), wish)
    np.testing.assert_array_equal(wish, before)
    inside = np.abs(out - wish)[mask].mean()
    assert 0 < inside < 12
    assert inside < np.abs(out.astype(float) - image)[mask].mean()
    outside = np.abs(out.astype(int) - image)[~mask]
    assert outside.max() == 0 if name in PASTED_EXACTLY else outside.mean() < 5


@pytest.mark.parametrize("name", list_inpainters())
def test_the_hidden_pixels_are_not_read_with_a_wish(name: str) -> None:
    image, mask = photograph(), draw_mask(np.random.default_rng(5), 64)
    other = image.copy()
    other[mask] = np.random.default_rng(9).integers(0, 256, (mask.sum(), 3))
    wish = draw_face(np.random.default_rng(11), 64) * np.float32(255)
    first, second = (get_inpainter(name)(seen, mask, np.random.default_rng(0), wish) for seen in (image, other))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", list_inpainters())
def test_the_same_randomness_gives_the_same_picture(name: str) -> None:
    image, mask = photograph(), draw_mask(np.random.default_rng(5), 64)
    first = run(name, image, mask)
    run(name, photograph(seed=3), mask, seed=4)  # nothing is remembered
    np.testing.assert_array_equal(first, run(name, image, mask))


@pytest.mark.parametrize("name", list_inpainters())
@pytest.mark.parametrize("region", ["corner", "left edge", "all but a corner", "everything"])
def test_masks_at_the_border(name: str, region: str) -> None:
    mask = np.zeros((48, 48), bool)
    if region == "corner":
        mask[:15, :12] = True
    elif region == "left edge":
        mask[:, :20] = True
    else:
        mask[:] = True
        mask[40:, 40:] = region == "everything"
    image = photograph(48)
    out = run(name, image, mask)
    assert out.shape == image.shape
    assert out[mask].std() > 1  # a picture, not a blank


@pytest.mark.parametrize("name", list_inpainters())
def test_an_empty_mask_repaints_nothing(name: str) -> None:
    image = photograph()
    change = np.abs(run(name, image, np.zeros((64, 64), bool)).astype(int) - image)
    assert change.mean() < 3
    if name in PASTED_EXACTLY:
        assert change.max() == 0


@pytest.mark.parametrize("name", sorted(PASTED_EXACTLY))
def test_pasted_exactly(name: str) -> None:
    assert outside_change(name).max() == 0


def test_the_autoencoder_leaves_about_half_of_the_known_pixels_changed_a_little() -> None:
    change = outside_change("autoencoder")
    assert change.max() <= 8
    assert 0.35 < (change.max(axis=1) > 0).mean() < 0.65


def test_the_diffusion_shifts_nearly_every_known_pixel_by_about_two_levels() -> None:
    change = outside_change("renoise")
    assert (change.max(axis=1) > 0).mean() > 0.95
    assert 1.3 < change.mean() < 2.8


@pytest.mark.parametrize("name", ["autoencoder", "patch_sample", "renoise"])
def test_another_draw_is_another_fill(name: str) -> None:
    image, mask = photograph(), draw_mask(np.random.default_rng(5), 64)
    first, second = (run(name, image, mask, seed)[mask].astype(int) for seed in (0, 1))
    assert np.abs(first - second).mean() > 1


def test_inpainters_are_registered_by_name() -> None:
    assert {"autoencoder", "fourier_fill", "patch_sample", "renoise"} <= set(list_inpainters())
    with pytest.raises(ValueError, match="registered already"):
        register_inpainter("renoise")(get_inpainter("renoise"))
    with pytest.raises(KeyError, match=r"no inpainter named 'lama'.*fourier_fill"):
        get_inpainter("lama")
