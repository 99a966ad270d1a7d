from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import t

from analysis.localisation import (
    METRICS,
    TABLE_COLUMNS,
    THRESHOLDS,
    best_iou_threshold,
    localisation_table,
    localise,
    localise_shuffled,
    mask_prior,
    source_intervals,
)
from models.maps import resized


def squares(count: int = 6, side: int = 12) -> np.ndarray:
    masks = np.zeros((count, side, side), dtype=bool)
    for place, mask in enumerate(masks):
        mask[place : place + 4, 1:7] = True
    return masks


def test_a_perfect_map_finds_all_of_it() -> None:
    masks = squares()
    maps = masks.astype(np.float32)
    assert localise(maps, masks, threshold=best_iou_threshold(maps, masks))[list(METRICS)].to_numpy() == pytest.approx(
        1
    )


def test_an_inverted_map_finds_none_of_it() -> None:
    masks = squares()
    maps = 1 - masks.astype(np.float32)
    found = localise(maps, masks, threshold=best_iou_threshold(maps, masks))
    assert (found[["iou", "iou_fixed", "pointing", "energy"]].to_numpy() == 0).all()
    assert (found["ap"] < found["chance"] + 1e-12).all()


MAP = np.array([[0.9, 0.6, 0.0, 0.0], [0.4, 0.8, 0.0, 0.0], [0.0, 0.0, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0]])
MASK = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)


def test_by_hand() -> None:
    """The mask has 3 of 16 pixels, which the map ranks first (0.9), third (0.6) and fourth (0.4)."""
    (row,) = localise(MAP[None], MASK[None], threshold=0.4).to_dict("records")
    assert row["iou"] == pytest.approx(3 / 4)  # called: .9 .6 .4 .8
    assert row["iou_fixed"] == pytest.approx(2 / 4)  # called: .9 .6 .8
    assert row["pointing"] == 1
    assert row["energy"] == pytest.approx(1.9 / 3.0)
    assert row["ap"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)
    assert row["chance"] == pytest.approx(3 / 16)
    # IoU is 3/4 for thresholds 0.31 ... 0.40 and no other; 3/5 up to 0.30
    assert best_iou_threshold(MAP[None], MASK[None]) == pytest.approx(0.36)


def test_the_highest_pixel_outside_the_mask_misses() -> None:
    flipped = np.flipud(MASK)
    assert localise(MAP[None], flipped[None], threshold=0.5)["pointing"].tolist() == [0]
    tied = np.zeros((4, 4))
    tied[0, 0] = tied[3, 3] = 1
    assert localise(tied[None], MASK[None], threshold=0.5)["pointing"].tolist() == [0.5]


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_map_is_at_chance(value: float) -> None:
    masks = squares()
    maps = np.full(masks.shape, value)
    found = localise(maps, masks, threshold=0.5)
    for metric in METRICS:
        assert found[metric].to_numpy() == pytest.approx(found["chance"].to_numpy())
        assert found["flat"].all()


def test_flat_maps_choose_no_threshold() -> None:
    flat = np.zeros((3, 4, 4))
    both = best_iou_threshold([MAP, *flat], np.stack([MASK] * 4))
    assert both == best_iou_threshold(MAP[None], MASK[None])
    assert not localise(MAP[None], MASK[None], threshold=0.5)["flat"].any()


def test_maps_that_know_nothing_get_what_their_own_grid_gets_and_not_the_masks_area() -> None:
    """Maps of 2 x 2 places have their highest pixel in a corner, where a centred mask never is."""
    rng = np.random.default_rng(0)
    masks = np.zeros((200, 32, 32), dtype=bool)
    for mask in masks:
        top, left = rng.integers(6, 12, 2)
        mask[top : top + 14, left : left + 14] = True
    maps = [resized(small / small.max(), (32, 32)) for small in rng.random((200, 2, 2))]
    found = localise(maps, masks, threshold=0.5).mean()
    shuffled = localise_shuffled(maps, masks, threshold=0.5).mean()
    assert found["pointing"] < 0.5 * found["chance"]
    for metric in METRICS:
        assert shuffled[metric] == pytest.approx(found[metric], abs=0.03)


def test_everybody_gets_another_pictures_mask_and_always_the_same() -> None:
    masks = np.zeros((9, 9, 9), dtype=bool)
    masks[np.arange(9), np.arange(9)] = True  # picture i has row i
    shuffled = localise_shuffled(masks.astype(float), masks, threshold=0.5)
    assert (shuffled[["iou", "pointing", "energy"]].to_numpy() == 0).all()
    assert shuffled.equals(localise_shuffled(masks.astype(float), masks, threshold=0.5))
    sizes = [np.eye(4), np.eye(40)[:, :30]]
    assert localise_shuffled(sizes, [one > 0 for one in sizes], threshold=0.5).notna().all(axis=None)


def test_a_single_picture_has_no_other() -> None:
    alone = localise_shuffled(MAP[None], MASK[None], threshold=0.5)
    assert alone.shape == (1, len(METRICS))
    assert alone.isna().all(axis=None)


def test_no_shuffled_map_beats_chance_by_more_than_luck() -> None:
    rng = np.random.default_rng(0)
    masks = np.repeat(squares(1), 400, axis=0)
    maps = rng.random(masks.shape)
    maps /= maps.max(axis=(1, 2), keepdims=True)
    found = localise(maps, masks, threshold=0.3)
    assert found["iou"].mean() < found["chance"].mean()
    assert found["energy"].mean() == pytest.approx(found["chance"].mean(), abs=0.01)
    assert found["pointing"].mean() == pytest.approx(found["chance"].mean(), abs=0.06)
    assert found["ap"].mean() == pytest.approx(found["chance"].mean(), abs=0.04)


def test_the_best_threshold_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    masks = squares()
    maps = (0.5 * rng.random(masks.shape) + 0.4 * masks).astype(np.float32)
    tried = [localise(maps, masks, threshold=one)["iou"].mean() for one in THRESHOLDS]
    best = best_iou_threshold(maps, masks)
    assert localise(maps, masks, threshold=best)["iou"].mean() == pytest.approx(max(tried))


def test_pictures_may_differ_in_size() -> None:
    maps = [np.eye(4), np.eye(6)[:, :5]]
    found = localise(maps, [one > 0 for one in maps], threshold=0.5)
    assert found["iou"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("maps", "masks", "threshold", "message"),
    [
        (MAP[None], np.zeros((1, 4, 4), bool), 0.5, "picture 0: the mask is empty"),
        (MAP[None], MASK[None].astype(np.uint8), 0.5, "bool mask"),
        (MAP[None, :3], MASK[None], 0.5, "one shape"),
        (MAP[None] * 2, MASK[None], 0.5, r"lie in \[0, 1\]"),
        (MAP[None] * np.nan, MASK[None], 0.5, r"lie in \[0, 1\]"),
        (MAP[None], np.stack([MASK, MASK]), 0.5, "1 and 2"),
        (MAP[:0], MASK[:0], 0.5, "at least one picture"),
        (MAP[None], MASK[None], 0.0, "threshold must lie"),
    ],
)
def test_bad_input(maps: np.ndarray, masks: np.ndarray, threshold: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        localise(maps, masks, threshold=threshold)


def test_the_prior_is_the_mean_mask() -> None:
    masks = squares(2, 8)
    prior = mask_prior(masks)
    assert prior.max() == 1
    assert prior[0, 1] == 0.5
    assert prior[2, 3] == 1
    assert prior[7, 7] == 0
    assert mask_prior([masks[0], np.repeat(np.repeat(masks[0], 2, 0), 2, 1)]).shape == (8, 8)


def test_the_table_splits_right_from_wrong() -> None:
    rows = pd.DataFrame({"run_id": "r", "tested_on": ["lama", "lama", "ldm"], "correct": [True, False, True]})
    for place, metric in enumerate(METRICS):
        rows[metric] = [0.1 * place, 0.2 * place, 0.05]
        rows[f"prior_{metric}"], rows[f"shuffled_{metric}"] = 0.25, [0.1, 0.3, 0.0]
    rows["source_id"] = ["1", "2", "1"]
    rows["flat"] = [True, False, False]
    rows["chance"], rows["threshold"] = [0.2, 0.4, 0.1], 0.35
    runs = pd.DataFrame(
        [{"run_id": "r", "task": "detection", "method": "m", "variant": "m", "trained_on": "lama", "seed": 0, "x": 1}]
    )
    table = localisation_table(rows, runs)
    assert list(table.columns) == TABLE_COLUMNS
    lama = table[(table["tested_on"] == "lama") & (table["metric"] == "iou_fixed")].set_index("subset")
    assert lama["value"].to_dict() == pytest.approx({"all": 0.15, "correct": 0.1, "wrong": 0.2})
    assert lama["chance"].to_dict() == pytest.approx({"all": 0.3, "correct": 0.2, "wrong": 0.4})
    assert lama["shuffled"].to_dict() == pytest.approx({"all": 0.2, "correct": 0.1, "wrong": 0.3})
    assert lama["flat"].to_dict() == {"all": 0.5, "correct": 1, "wrong": 0}
    # two sources that differ by .1: variance .0025, one degree of freedom, on the logit scale
    half = t.ppf(0.975, 1) * 0.05 / (0.15 * 0.85)
    by_hand = [expit(logit(0.15) - half), expit(logit(0.15) + half)]
    assert lama.loc["all", ["low", "high"]].tolist() == pytest.approx(by_hand)
    assert lama.loc[["correct", "wrong"], ["low", "high"]].isna().all(axis=None)
    assert lama["num_images"].to_dict() == {"all": 2, "correct": 1, "wrong": 1}
    assert set(table[table["tested_on"] == "ldm"]["subset"]) == {"all", "correct"}
    assert set(table["threshold"]) == {0.35}
    assert set(table["prior"]) == {0.25}


def test_intervals_are_over_sources_and_not_over_pictures() -> None:
    rng = np.random.default_rng(0)
    per_source = rng.random(50)
    once = pd.DataFrame({"iou": per_source})
    ((low, high),) = source_intervals(once, pd.Series(np.arange(50)))
    assert high - low == pytest.approx(2 * 1.96 * per_source.std() / np.sqrt(50), rel=0.1)
    assert low < per_source.mean() < high
    repeated = pd.DataFrame({"iou": np.repeat(per_source, 4)})  # copies of a picture tell nothing new
    (again,) = source_intervals(repeated, pd.Series(np.repeat(np.arange(50), 4)))
    assert again == pytest.approx([low, high])
