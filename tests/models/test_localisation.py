"""Maps beside masks: values worked out by hand, and what holds for every map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from models.geometry import Geometry
from models.localisation import (
    RankedMap,
    best_threshold,
    candidates,
    chance,
    metric_names,
    other_pictures,
    scaled_mask,
)
from models.maps import UNSEEN, cell_shares, over_picture
from models.picture_score import top_mean

MASK = np.array([[True, True, False], [False, False, False]])
VALUES = np.array([[3.0, -1.0, 2.0], [-2.0, -3.0, -4.0]])


def test_by_hand() -> None:
    """Above 0 lie one marked pixel and one other; the ranking is marked, other, marked, others."""
    found = RankedMap(VALUES).measure(MASK, {"fixed": 0.0, "low": -1.5, "nothing": 3.0})
    assert found["iou_fixed"] == pytest.approx(1 / 3)  # 1 of the 2 marked and the 1 other
    assert found["f1_fixed"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["iou_low"] == pytest.approx(2 / 3)
    assert found["f1_low"] == pytest.approx(4 / 5)
    assert found["iou_nothing"] == found["f1_nothing"] == 0.0  # a pixel at the threshold is not above it
    assert found["ap"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found["auroc"] == pytest.approx(7 / 8)  # of 8 pairs, one has the other pixel first


masks = arrays(bool, (4, 5)).filter(lambda mask: 0 < mask.sum() < mask.size)
maps = arrays(np.float64, (4, 5), elements=st.integers(-3, 3).map(float))


@given(maps, masks, st.integers(-4, 3))
def test_as_in_scikit_learn(values: np.ndarray, mask: np.ndarray, threshold: int) -> None:
    found = RankedMap(values).measure(mask, {"t": float(threshold)})
    truth, called = mask.ravel(), (values > threshold).ravel()
    assert found["ap"] == pytest.approx(average_precision_score(truth, values.ravel()))
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, values.ravel()))
    assert found["iou_t"] == pytest.approx(jaccard_score(truth, called))
    assert found["f1_t"] == pytest.approx(f1_score(truth, called))
    assert set(found) == set(metric_names(["t"]))
    assert all(0 <= value <= 1 for value in found.values())


@given(masks, st.sampled_from([-2.0, 0.0, 1.5]))
def test_a_constant_map_knows_nothing(mask: np.ndarray, value: float) -> None:
    found = RankedMap(np.full(mask.shape, value)).measure(mask, {"fixed": 0.0})
    area = float(mask.mean())
    assert (found["ap"], found["auroc"]) == pytest.approx((chance("ap", area), chance("auroc", area)))
    everything = (chance("iou", area), chance("f1", area))
    assert (found["iou_fixed"], found["f1_fixed"]) == pytest.approx(everything if value > 0 else (0.0, 0.0))


@pytest.mark.parametrize("mask", [np.zeros((2, 3), bool), np.ones((2, 3), bool)])
def test_an_empty_and_a_full_mask_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="empty or full"):
        RankedMap(VALUES).measure(mask, {})


@given(st.lists(st.tuples(maps, masks), min_size=1, max_size=4))
def test_no_threshold_is_better_than_the_best(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    def mean_iou(threshold: float) -> float:
        return float(np.mean([RankedMap(v).measure(m, {"t": threshold})["iou_t"] for v, m in pairs]))

    tried = candidates([values for values, _ in pairs])
    best = best_threshold(iter(pairs), tried)
    assert best in tried
    assert mean_iou(best) == pytest.approx(max(mean_iou(float(threshold)) for threshold in tried))


def test_one_candidate_lies_below_every_value() -> None:
    assert candidates([VALUES])[0] < VALUES.min()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_shuffled_no_picture_keeps_its_own(count: int) -> None:
    other = other_pictures(count)
    assert sorted(other) == list(range(count))
    assert (other != np.arange(count)).all()


def test_a_mask_in_another_size_is_neither_empty_nor_full() -> None:
    mask = np.zeros((40, 40), bool)
    mask[0, 0] = True
    for small in (scaled_mask(mask, (3, 4)), scaled_mask(~mask, (3, 4))):
        assert 0 < small.sum() < small.size


# Cells and pixels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["squash", "crop", "pad"])
def test_what_lies_in_a_cell_comes_back_there(policy: str) -> None:
    """A square in a picture of any shape -> shares of cells -> over the picture: it lies where it lay."""
    mask = np.zeros((64, 96), bool)
    mask[16:32, 32:56] = True
    geometry = Geometry(32, policy=policy, fill=(200, 100, 50), alpha=policy == "pad")
    shares = cell_shares(mask, geometry, (32, 32))
    assert shares.dtype == np.float32
    assert shares.min() >= 0
    assert shares.max() == pytest.approx(1.0)
    back = over_picture(np.where(shares > 0.5, 4.0, -4.0), geometry, (64, 96)) > 0
    assert RankedMap(back.astype(float)).measure(mask, {"t": 0.5})["iou_t"] > 0.75


def test_the_share_of_a_cell_is_that_of_its_pixels() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:4, :3] = True
    np.testing.assert_allclose(cell_shares(mask, Geometry(8), (2, 2)), [[0.75, 0], [0, 0]])


def test_what_was_cut_off_is_not_found() -> None:
    wide = over_picture(np.full((4, 4), 5.0), Geometry(32, policy="crop"), (32, 96))
    assert (wide[:, 40:56] == 5).all()
    assert (wide[:, :20] == UNSEEN).all()


def test_without_a_square_a_map_covers_the_picture() -> None:
    found = over_picture(np.array([[-1.0, 1.0]]), None, (10, 20))
    assert found.shape == (10, 20)
    assert (found[:, :5] == -1).all()
    assert (found[:, 15:] == 1).all()


def test_the_score_is_the_mean_of_the_highest_tenth() -> None:
    values = np.arange(40, dtype=float).reshape(1, 2, 4, 5)
    np.testing.assert_allclose(top_mean(values), [[18.5, 38.5]])
    np.testing.assert_allclose(top_mean(values[:, :, :1, :2]), [[1, 21]])  # at least one
