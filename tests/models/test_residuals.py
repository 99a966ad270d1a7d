"""Residual statistics against hand-computed answers, and the symmetries that they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models.residuals import (
    KERNELS,
    NUM_FEATURES,
    Kernel,
    ResidualEncoder,
    block_energies,
    cooccurrences,
    describe,
    quantise,
    residual,
    symmetry_classes,
)

NUM_TUPLES, NUM_QUANTILES = 169, 7


def names(kernel: Kernel) -> str:
    return kernel.name


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tuple_counts(features: np.ndarray) -> np.ndarray:
    return features.reshape(len(KERNELS), -1)[:, :NUM_TUPLES]


@pytest.mark.parametrize("kernel", KERNELS, ids=names)
def test_kernels_are_high_pass_and_cannot_overflow(kernel: Kernel) -> None:
    assert kernel.weights.sum() == 0
    assert np.abs(kernel.weights).sum() <= 128
    assert kernel.scale == np.abs(kernel.weights).max()


@pytest.mark.parametrize("kernel", KERNELS, ids=names)
def test_a_constant_image_leaves_nothing(kernel: Kernel) -> None:
    assert not residual(np.full((20, 20), 200, dtype=np.int16), kernel.weights).any()


@pytest.mark.parametrize(("place", "order"), [(0, 1), (1, 2), (2, 3)])
def test_order_of_the_differences(place: int, order: int) -> None:
    columns = np.arange(12)
    ramp = np.tile((columns ** (order - 1)) % 251, (20, 1)).astype(np.int16)[:, :6]
    assert not residual(ramp, KERNELS[place].weights).any(), "a polynomial of lower degree must vanish"


def test_residual_by_hand() -> None:
    channel = np.array([[1, 4, 9], [0, 0, 2]], dtype=np.int16)
    np.testing.assert_array_equal(residual(channel, KERNELS[0].weights), [[3, 5], [0, 2]])
    np.testing.assert_array_equal(residual(channel, KERNELS[1].weights), [[2], [2]])
    np.testing.assert_array_equal(residual(channel, KERNELS[3].weights), [[-1 + 8 - 9 + 0 + 0 + 4]])


def test_extremes_do_not_overflow() -> None:
    weights = KERNELS[-1].weights
    brightest = np.where(weights > 0, 255, 0).astype(np.int16)
    assert residual(brightest, weights)[0, 0] == 255 * weights[weights > 0].sum()
    assert residual(255 - brightest, weights)[0, 0] == 255 * weights[weights < 0].sum()


def test_quantise_by_hand() -> None:
    values = np.array([-9, -6, -5, -2, -1, 0, 1, 2, 5, 6, 9], dtype=np.int16)
    np.testing.assert_array_equal(quantise(values, 4), [-2, -2, -1, -1, 0, 0, 0, 1, 1, 2, 2])


def test_symmetry_classes() -> None:
    classes = symmetry_classes().reshape(5, 5, 5, 5)
    # Burnside: (625 + 1 negation + 25 reversal + 25 both) / 4
    assert classes.max() + 1 == NUM_TUPLES
    for levels in itertools.product(range(5), repeat=4):
        reverse, negative = levels[::-1], tuple(4 - level for level in levels)
        assert classes[levels] == classes[reverse] == classes[negative]
    assert classes[0, 1, 2, 3] != classes[0, 1, 3, 2]


def test_cooccurrences_by_hand() -> None:
    levels = np.array([[0, 1, 0, 0, 0, 0], [0, 0, -1, 0, 2, -2]], dtype=np.int8)
    found = cooccurrences(levels)
    classes = symmetry_classes().reshape(5, 5, 5, 5)

    def count(*quadruple: int) -> float:
        return float(found[classes[tuple(level + 2 for level in quadruple)]])

    assert found.sum() == 6
    assert count(0, 1, 0, 0) == 2  # itself, and (0, 0, -1, 0): reversed and negated
    assert count(1, 0, 0, 0) == 1
    assert count(0, 0, 0, 0) == 1
    assert count(0, -1, 0, 2) == 1
    assert count(-1, 0, 2, -2) == 1


def test_block_energies_by_hand() -> None:
    values = np.zeros((9, 17), dtype=np.int16)
    values[0, 0], values[:8, 8:16], values[8] = 8, 3, 100  # the last row and column belong to no whole block
    np.testing.assert_array_equal(block_energies(values), [1, 9])


def test_flat_image() -> None:
    features = describe(np.full((32, 40, 3), 77, dtype=np.uint8)).reshape(len(KERNELS), -1)
    zero = symmetry_classes()[312]  # the tuple (0, 0, 0, 0), in the middle of 625
    wanted = np.zeros_like(features)
    wanted[:, zero] = 1
    np.testing.assert_array_equal(features, wanted)


def test_mirroring_and_turning_keep_the_cooccurrences() -> None:
    image = noise(37, 52) // 16  # weak noise, so that the truncation does not swallow everything
    wanted = tuple_counts(describe(image))
    for turn, mirror in itertools.product(range(4), (False, True)):
        other = np.rot90(image, turn)
        other = other[:, ::-1] if mirror else other
        np.testing.assert_array_equal(tuple_counts(describe(other)), wanted)


def test_features_are_finite_and_independent_of_size() -> None:
    for image in (noise(16, 16), noise(16, 99), noise(200, 17)):
        features = describe(image)
        assert features.shape == (NUM_FEATURES,)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        np.testing.assert_allclose((tuple_counts(features) ** 2).sum(axis=1), 1, rtol=1e-5)


def test_blur_lowers_the_energies() -> None:
    image = noise(64, 64)
    blurred = ((image[:-1].astype(int) + image[1:]) // 2).astype(np.uint8)
    energies = [describe(one).reshape(len(KERNELS), -1)[:, NUM_TUPLES + NUM_QUANTILES // 2] for one in (image, blurred)]
    assert (energies[1] < energies[0]).all()


def test_encoder_takes_images_of_any_size() -> None:
    encoder, images = ResidualEncoder(), [noise(20, 30), noise(64, 16, seed=1)]
    features = encoder.encode(images)
    assert features.shape == (2, NUM_FEATURES)
    np.testing.assert_array_equal(features[1], describe(images[1]))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((15, 64, 3), dtype=np.uint8), "sides of 16 pixels, got 64 x 15"),
        (np.zeros((64, 64, 3), dtype=np.float32), "float32"),
        (np.zeros((64, 64), dtype=np.uint8), r"\(64, 64\)"),
        (np.zeros((64, 64, 4), dtype=np.uint8), r"\(64, 64, 4\)"),
    ],
)
def test_refusals(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe(image)
