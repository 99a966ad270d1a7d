from __future__ import annotations

import numpy as np
import pytest

from data.demo.inpainters import get_inpainter, list_inpainters
from data.edits import get_edit, list_edits
from data.pixels import rounded
from data.sources import get_source, list_sources
from tests.corpora import picture

EDITS = list_edits()
# generators of published data sets, and of the photographs that the methods without a generator are tested on
KNOWN = {
    "lama", "ldm", "pluralistic", "repaint", "repaint-p2-9k", "telea", "autoencoder", "realesrgan", "waifu2x",
    "mi-gan", "mat", "zits", "crfill", "madf", "shiftnet", "resshift", "deepfillv2",
}  # fmt: skip


def textured(name: str = "a", size: int = 64) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, (size, size, 3))
    return rounded(picture(name, size) + noise)


def edited(name: str, pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    return rounded(get_edit(name)(pixels, np.random.default_rng(seed)))


def test_there_are_the_eight_classic_operations() -> None:
    assert {"blur", "median", "jpeg", "unsharp", "shift", "down_up", "up_down", "wiener"} <= set(EDITS)


@pytest.mark.parametrize("name", EDITS)
def test_a_texture_changes_and_the_given_picture_does_not(name: str) -> None:
    pixels = textured()
    before = pixels.copy()
    changed = edited(name, pixels)
    assert changed.shape == pixels.shape
    assert (changed != pixels).mean() > 0.1
    np.testing.assert_array_equal(pixels, before)
    # an edit keeps what is in the picture
    assert np.abs(changed.astype(int) - pixels).mean() < 16


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("shape", [(64, 64), (16, 33)])
def test_a_picture_of_one_colour_stays_as_it_is(name: str, grey: int, shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), grey, dtype=np.uint8)
    np.testing.assert_array_equal(edited(name, pixels), pixels)


@pytest.mark.parametrize("name", EDITS)
def test_it_follows_from_the_random_generator(name: str) -> None:
    pixels = textured()
    np.testing.assert_array_equal(edited(name, pixels), edited(name, pixels))
    if name != "median":  # it has no strength
        assert any((edited(name, pixels, seed) != edited(name, pixels)).any() for seed in (1, 2))


@pytest.mark.parametrize("name", EDITS)
def test_it_says_what_it_does(name: str) -> None:
    assert (get_edit(name).__doc__ or "").strip()


def test_no_edit_has_the_name_of_a_generator() -> None:
    generators = {name for source in list_sources() for name in get_source(source).order}
    words = {name.lower().replace("-", "_") for name in KNOWN | generators | set(list_inpainters())}
    assert set(EDITS) & words == set()


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("inpainter", list_inpainters())
def test_no_edit_gives_what_a_generator_of_the_demo_gives(edit: str, inpainter: str) -> None:
    pixels = textured("face", 64)
    mask = np.zeros((64, 64), dtype=bool)
    mask[16:48, 16:48] = True
    fake = get_inpainter(inpainter)(pixels, mask, np.random.default_rng(0))
    # an edit reads the region that it changes, and an inpainter must not
    distance = np.abs(edited(edit, pixels).astype(int) - fake)[mask].mean()
    assert distance > 4
