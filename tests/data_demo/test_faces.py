from __future__ import annotations

import numpy as np
import pytest

from data.demo.faces import add_sensor_noise, draw_face, draw_mask, to_bytes


@pytest.mark.parametrize("size", [32, 64, 97])
def test_a_face_is_a_picture_in_range(size: int) -> None:
    face = draw_face(np.random.default_rng(0), size)
    assert face.shape == (size, size, 3)
    assert face.dtype == np.float32
    assert face.min() >= 0
    assert face.max() <= 1
    assert face.std() > 0.05


def test_faces_follow_from_their_generator_alone() -> None:
    first, again, other = (draw_face(np.random.default_rng(seed), 48) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.02


def test_drawing_leaves_the_global_random_state_alone() -> None:
    np.random.seed(3)  # it is the global state that is tested
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    draw_face(np.random.default_rng(0), 32)
    draw_mask(np.random.default_rng(0), 32)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_sensor_noise_grows_with_the_signal_and_has_no_bias() -> None:
    noise = []
    for level in (0.15, 0.6):
        grey = np.full((96, 96, 3), level, np.float32)
        shots = np.stack([add_sensor_noise(grey, np.random.default_rng(i)) for i in range(12)]).astype(float)
        assert shots.mean() == pytest.approx(255 * level, abs=1.5)
        linear = (shots / 255) ** 2.2
        noise.append(linear.std(axis=(1, 2)).mean())
    assert noise[1] > 1.3 * noise[0]


def test_sensor_noise_is_correlated_between_neighbours_as_a_demosaiced_photograph_is() -> None:
    grey = np.full((128, 128, 3), 0.5, np.float32)
    noise = add_sensor_noise(grey, np.random.default_rng(0)).astype(float)[..., 0]
    noise -= noise.mean()
    assert (noise[:, 1:] * noise[:, :-1]).mean() > 0.2 * noise.var()


@pytest.mark.parametrize("size", [8, 33, 64])
def test_masks_cover_what_they_promise(size: int) -> None:
    masks = [draw_mask(np.random.default_rng(seed), size) for seed in range(60)]
    assert all(mask.shape == (size, size) and mask.dtype == bool for mask in masks)
    assert all(0.15 <= mask.mean() <= 0.45 for mask in masks)
    assert len({mask.tobytes() for mask in masks}) > 40


def test_to_bytes_rounds_and_clips() -> None:
    np.testing.assert_array_equal(to_bytes(np.array([-3.0, 0.4, 0.6, 254.6, 300.0])), [0, 0, 1, 255, 255])
