"""Statistics of windows, and the classifier that learns from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.detector import FitSession, TrainingDiverged
from models.residuals import describe
from models.window_classifier import WindowClassifier, edited_shares, of_cells, one_scale
from models.windows import CELL, MIN_SIDE, NUM_FEATURES, WholeEncoder, grid_of, window_statistics
from tests.models.toys import SIDE, make_images, self_edited, small


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_there_are_1635_statistics_as_measured() -> None:
    assert NUM_FEATURES == 1635


@given(st.tuples(st.integers(MIN_SIDE, 100), st.integers(MIN_SIDE, 100)), st.integers(0, 3))
@settings(max_examples=20)
def test_any_size_from_two_cells_on(shape: tuple[int, int], seed: int) -> None:
    windows, whole = window_statistics(noise(*shape, seed))
    assert windows.shape == (*grid_of(shape), NUM_FEATURES)
    assert windows.shape[:2] == (shape[0] // CELL - 1, shape[1] // CELL - 1)
    assert whole.shape == (NUM_FEATURES,)
    assert windows.dtype == whole.dtype == np.float32
    assert np.isfinite(windows).all()
    assert np.isfinite(whole).all()


@pytest.mark.parametrize("grey", [0, 77, 255])
@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (64, 160)])
def test_pictures_of_one_colour_have_finite_statistics_and_scores(grey: int, shape: tuple[int, int]) -> None:
    windows, whole = window_statistics(np.full((*shape, 3), grey, dtype=np.uint8))
    assert np.isfinite(windows).all()
    np.testing.assert_allclose(windows, np.broadcast_to(whole, windows.shape), atol=1e-4)
    classifier = WindowClassifier(hidden=4, dropout=0.0, seed=0).eval()
    assert np.isfinite(classifier.map_of(windows, whole)).all()


def test_a_picture_of_one_window_is_that_window() -> None:
    windows, whole = window_statistics(noise(MIN_SIDE, MIN_SIDE))
    np.testing.assert_allclose(windows[0, 0], whole, atol=1e-6)


def test_frequencies_of_the_whole_are_those_of_the_residual_statistics() -> None:
    image = make_images(np.array([1]), seed=0)[0]
    known, (_, whole) = describe(image), window_statistics(image)
    for kernel in range(6):
        np.testing.assert_allclose(
            whole[170 * kernel : 170 * kernel + 169], known[176 * kernel : 176 * kernel + 169], atol=1e-6
        )


def test_a_change_reaches_the_windows_that_see_it_and_no_other() -> None:
    image = noise(96, 96)
    changed = image.copy()
    changed[:8, :8] = 0
    before, after = window_statistics(image)[0], window_statistics(changed)[0]
    differs = (before != after).any(axis=2)
    assert differs[0, 0]
    assert not differs[2:].any()
    assert not differs[:, 2:].any()


@pytest.mark.parametrize("wrong", [noise(31, 64), noise(64, 64)[:, :, 0], noise(64, 64).astype(np.float32)])
def test_other_pictures_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="need"):
        window_statistics(wrong)


def test_the_encoder_takes_pictures_of_several_sizes() -> None:
    images = [noise(32, 40), noise(64, 33)]
    features = WholeEncoder().encode(images)
    np.testing.assert_array_equal(features[1], window_statistics(images[1])[1])


def test_shares_of_edited_pixels() -> None:
    mask = np.zeros((48, 48), dtype=bool)
    mask[:16, :32] = True  # two cells of the first row
    np.testing.assert_allclose(edited_shares(mask), [[0.5, 0.25], [0, 0]])


def test_pixels_beyond_the_last_cell_belong_to_it_in_shares_as_in_statistics() -> None:
    mask = np.zeros((32, 63), dtype=bool)
    mask[:, 48:] = True  # the last 15 of 63 columns: the third cell has the columns 32 to 62
    np.testing.assert_allclose(edited_shares(mask), [[0, 15 / 47]])


def test_maps_lie_where_the_windows_do() -> None:
    cells = of_cells(np.array([[0.0, 1.0]], dtype=np.float32), (32, 63))
    # cells 0, .5, 1 have their middles at 8, 24 and 47.5 pixels; even cells of 21 pixels have them at 10.5, 31.5, 52.5
    np.testing.assert_allclose(cells[0], [0.5 * 2.5 / 16, 0.5 + 0.5 * 7.5 / 23.5, 1.0], rtol=1e-6)


def test_cells_are_means_of_the_windows_around_them() -> None:
    found = of_cells(np.array([[0.0, 4.0]], dtype=np.float32), (32, 48))
    np.testing.assert_allclose(found, [[0, 2, 4], [0, 2, 4]])
    assert found.dtype == np.float32


def test_two_scores_come_to_one_scale() -> None:
    labels = np.array([0, 1] * 20)
    rng = np.random.default_rng(0)
    parts = np.stack([labels + rng.normal(0, 0.5, 40), 1000 * (labels + rng.normal(0, 0.5, 40))])
    factors = one_scale(parts, labels)
    assert factors[0] == pytest.approx(1000 * factors[1], rel=0.5)  # neither outweighs the other
    score = factors[:2] @ parts + factors[2]
    assert (score[labels == 1].mean() > 0) & (score[labels == 0].mean() < 0)
    assert ((score > 0) == labels).mean() > 0.8


def test_the_unit_of_a_score_changes_no_log_odds() -> None:
    labels = np.array([0, 1] * 20)
    scores = labels + np.random.default_rng(0).normal(0, 0.5, 40)
    expected = (factors := one_scale(scores[None], labels))[:1] @ scores[None] + factors[1]
    assert ((expected > 0) == labels).mean() > 0.8
    for unit, shift in ((1e-3, 0.0), (1e-6, 1e-5), (1e3, -7.0)):  # cosine distances are that small
        other = unit * scores + shift
        factors = one_scale(other[None], labels)
        np.testing.assert_allclose(factors[:1] @ other[None] + factors[1], expected, atol=1e-3)


def test_a_constant_score_takes_no_part() -> None:
    labels = np.array([0, 1] * 20)
    parts = np.stack([labels + np.random.default_rng(0).normal(0, 0.5, 40), np.full(40, 3.0)])
    factors = one_scale(parts, labels)
    alone = one_scale(parts[:1], labels)
    np.testing.assert_allclose(factors[:2] @ parts + factors[2], alone[:1] @ parts[:1] + alone[1], atol=1e-6)


def test_scores_that_say_nothing_keep_their_order(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.array([0, 1] * 20)
    parts = np.stack([-labels, -labels]).astype(float)
    factors = one_scale(parts, labels)
    assert (factors[:2] > 0).all()
    assert "say nothing about edits" in caplog.text


def test_maps_show_where_a_picture_was_edited() -> None:
    detector = small("self_edited_windows")
    detector.fit(
        self_edited(detector, "self_edited_windows", 24, 1),
        self_edited(detector, "self_edited_windows", 6, 2),
        FitSession(),
    )
    test = self_edited(detector, "self_edited_windows", 8, 3)
    fakes = np.flatnonzero((test.labels == 1) & (test.recipes == 0))
    assert test.masks is not None
    inside, outside = [], []
    for number in fakes:
        maps = detector.maps(np.stack([test.inputs[number]]))
        assert maps is not None
        found = maps[0]
        cells = test.masks[np.array([number])][0].reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).mean(axis=(1, 3))
        inside.append(found[cells > 0.9].mean())
        outside.append(found[cells == 0].mean())
    assert np.mean(inside) > 0 > np.mean(outside)


def test_a_last_step_that_diverges_is_told() -> None:
    detector = small("self_edited_windows", weight_decay=100.0, learning_rate=1e30)
    given = self_edited(detector, "self_edited_windows", 4, 1)
    with pytest.raises(TrainingDiverged, match="not finite"):
        detector.fit(given, given, FitSession())


def test_training_needs_masks() -> None:
    detector = small("self_edited_windows")
    given = self_edited(detector, "self_edited_windows", 2, 1)
    with pytest.raises(ValueError, match="with their masks"):
        detector.fit(dataclasses.replace(given, masks=None), given, FitSession())
