"""Figures of merit against hand-computed answers, and what must hold for any scores."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.scoring import attribution_metrics, cell_metrics, choose_threshold

THRESHOLD_FREE = ("auroc", "ap", "eer")


def test_by_hand() -> None:
    # by falling score: fake 2, real 1, fake 0.5, real -1, real -2, fake -3
    labels = np.array([1, 0, 1, 0, 0, 1])
    scores = np.array([2.0, 1.0, 0.5, -1.0, -2.0, -3.0])
    metrics = cell_metrics(labels, scores)
    assert metrics["real_accuracy"] == pytest.approx(2 / 3)
    assert metrics["fake_accuracy"] == pytest.approx(2 / 3)
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == pytest.approx(2 / 3)
    assert metrics["auroc"] == pytest.approx((3 + 2 + 0) / 9)  # reals below each fake
    assert metrics["ap"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)  # precision at each fake
    assert metrics["eer"] == pytest.approx(1 / 3)


def test_unequal_classes_by_hand() -> None:
    metrics = cell_metrics(np.array([0, 1, 1, 1]), np.array([1.0, 2.0, 3.0, -4.0]))
    assert metrics["accuracy"] == 0.5
    assert metrics["real_accuracy"] == 0.0
    assert metrics["fake_accuracy"] == pytest.approx(2 / 3)
    assert metrics["balanced_accuracy"] == pytest.approx(1 / 3)
    assert metrics["auroc"] == pytest.approx(2 / 3)
    assert metrics["eer"] == pytest.approx(1 / 3)  # the curve rises to (0, 2/3), then runs to (1, 2/3)


def test_perfect_and_inverted() -> None:
    labels, scores = np.array([0, 0, 1, 1]), np.array([-2.0, -1.0, 1.0, 2.0])
    perfect = dict.fromkeys(cell_metrics(labels, scores), 1.0) | {"eer": 0.0}
    assert cell_metrics(labels, scores) == perfect
    inverted = cell_metrics(labels, -scores)
    assert inverted["auroc"] == inverted["accuracy"] == 0.0
    assert inverted["eer"] == 1.0


def test_ties_count_half_and_are_called_real_at_the_threshold() -> None:
    metrics = cell_metrics(np.array([0, 1, 1, 0]), np.zeros(4))
    assert (metrics["auroc"], metrics["ap"], metrics["eer"]) == (0.5, 0.5, 0.5)
    assert (metrics["real_accuracy"], metrics["fake_accuracy"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("labels", "scores", "wanted"),
    [
        ([0, 0, 1, 1], [-2, -1, 3, 4], 1.0),  # the middle of the gap that separates
        ([0, 1, 0, 1], [0, 2, 3, 7], 5.0),  # 0|2 and 3|7 are equally good: the wider one
        ([0, 1, 0, 1], [0, 2, 3, 5], 1.0),  # and equally wide: the lower one
        ([1, 0], [0, 1], 1.0),  # inverted: nothing beats "all real"
        ([1, 0], [4, 4], 4.0),  # one value only
        ([0, 1], [1.0, np.nextafter(1.0, 2.0)], 1.0),  # no float between them
    ],
)
def test_threshold_by_hand(labels: list[int], scores: list[float], wanted: float) -> None:
    assert choose_threshold(np.array(labels), np.array(scores)) == wanted


def test_cell_has_both_thresholds() -> None:
    labels, scores = np.array([0, 0, 1, 1]), np.array([3.0, 4.0, 6.0, 7.0])
    metrics = cell_metrics(labels, scores, 5.0)
    assert metrics["accuracy"] == 0.5
    assert metrics["accuracy_valid_threshold"] == metrics["fake_accuracy_valid_threshold"] == 1.0
    assert {name for name in metrics if name.endswith("_valid_threshold")} == {
        f"{name}_valid_threshold" for name in ("accuracy", "balanced_accuracy", "real_accuracy", "fake_accuracy")
    }


def test_attribution_by_hand() -> None:
    labels = np.array([0, 0, 1, 2, 2, 2])
    logits = np.eye(3)[[0, 1, 1, 2, 2, 0]]
    metrics = attribution_metrics(labels, logits, ("real", "lama", "ldm"))
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert [metrics[f"accuracy/{name}"] for name in ("real", "lama", "ldm")] == pytest.approx([1 / 2, 1, 2 / 3])
    assert metrics["balanced_accuracy"] == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
    assert metrics["macro_f1"] == pytest.approx((2 / 4 + 2 / 3 + 4 / 5) / 3)


def test_first_of_equal_logits() -> None:
    metrics = attribution_metrics(np.array([0, 1, 2]), np.zeros((3, 3)), ("real", "lama", "ldm"))
    assert [metrics[f"accuracy/{name}"] for name in ("real", "lama", "ldm")] == [1, 0, 0]
    assert metrics["macro_f1"] == pytest.approx(2 / 4 / 3)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.0, 1.0], "no real image"),
        ([0, 0], [0.0, 1.0], "no fake image"),
        ([], [], "no real and no fake"),
        ([0, 1], [0.0, np.nan], "1 of 2 scores are not finite"),
        ([0, 1], [np.inf, 0.0], "not finite"),
        ([0, 2], [0.0, 1.0], r"got \[2\] too"),
        ([0, 1, 1], [0.0, 1.0], "shape"),
    ],
)
def test_refusals(labels: list[int], scores: list[float], message: str) -> None:
    for function in (cell_metrics, choose_threshold):
        with pytest.raises(ValueError, match=message):
            function(np.array(labels), np.array(scores))


def test_attribution_refusals() -> None:
    with pytest.raises(ValueError, match="no image of class ldm"):
        attribution_metrics(np.array([0, 1]), np.eye(3)[:2], ("real", "lama", "ldm"))
    with pytest.raises(ValueError, match="no image of class real, ldm among the 2 scored ones"):
        attribution_metrics(np.array([1, 1]), np.eye(3)[:2], ("real", "lama", "ldm"))
    with pytest.raises(ValueError, match="1 of 2 rows"):
        attribution_metrics(np.array([0, 1]), np.array([[0.0, np.nan], [0.0, 1.0]]), ("real", "lama"))
    for label in (2, -1):
        with pytest.raises(ValueError, match="out of range: there are 2 classes"):
            attribution_metrics(np.array([0, 1, label]), np.zeros((3, 2)), ("real", "lama"))
    for labels in (np.array([0]), np.array([0, 1]), np.array([[0, 1]])):
        with pytest.raises(ValueError, match="shape"):
            attribution_metrics(labels, np.zeros((1, 2)), ("real", "lama", "ldm"))


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both classes, scores with ties."""
    labels = [0, 1, *draw(st.lists(st.integers(0, 1), max_size=20))]
    scores = draw(st.lists(st.integers(-8, 8), min_size=len(labels), max_size=len(labels)))
    return np.array(labels), np.array(scores, dtype=np.float64)


@given(scored())
def test_swapping_the_classes_and_negating_the_scores_is_the_same(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = case
    metrics, swapped = cell_metrics(labels, scores), cell_metrics(1 - labels, -scores)
    assert metrics["auroc"] == pytest.approx(swapped["auroc"])
    assert metrics["eer"] == pytest.approx(swapped["eer"])


@given(scored())
def test_negating_the_scores_inverts(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = case
    metrics, negated = cell_metrics(labels, scores), cell_metrics(labels, -scores)
    assert metrics["auroc"] + negated["auroc"] == pytest.approx(1)
    assert metrics["eer"] + negated["eer"] == pytest.approx(1)


@given(scored())
def test_a_monotone_map_keeps_what_needs_no_threshold(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = case
    metrics, mapped = cell_metrics(labels, scores), cell_metrics(labels, np.exp(scores) + scores**3)
    assert [metrics[name] for name in THRESHOLD_FREE] == pytest.approx([mapped[name] for name in THRESHOLD_FREE])


@given(scored())
def test_auroc_is_the_share_of_pairs_in_order(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = case
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    pairs = ((difference > 0) + 0.5 * (difference == 0)).mean()
    assert cell_metrics(labels, scores)["auroc"] == pytest.approx(pairs)


@given(scored(), st.floats(-10, 10))
def test_no_threshold_beats_the_chosen_one(case: tuple[np.ndarray, np.ndarray], other: float) -> None:
    labels, scores = case
    chosen = choose_threshold(labels, scores)
    assert np.isfinite(chosen)
    best, others = (cell_metrics(labels, scores, at)["balanced_accuracy_valid_threshold"] for at in (chosen, other))
    assert best >= others - 1e-12
    assert best >= 0.5


@given(scored(), st.randoms())
def test_order_of_the_images_does_not_matter(case: tuple[np.ndarray, np.ndarray], random: Random) -> None:
    labels, scores = case
    order = list(range(len(labels)))
    random.shuffle(order)
    assert choose_threshold(labels, scores) == choose_threshold(labels[order], scores[order])
    assert cell_metrics(labels, scores) == pytest.approx(cell_metrics(labels[order], scores[order]))
