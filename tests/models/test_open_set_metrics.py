"""Metrics of the open set: by hand, against the definition, and their influences against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.metrics import Answers, Metric
from models.open_set_metrics import (
    FPR_95,
    OPEN_SET_METRICS,
    OSCR,
    UNKNOWN,
    UNKNOWN_AUROC,
    open_set_answers,
    open_set_metrics,
)
from models.scoring import attribution_metrics

CLASSES = ("real", "lama", "ldm")
SEEDS = st.integers(0, 2**32 - 1)


def oscr(known: list[tuple[bool, float]], unknown: list[float]) -> float:
    """Of known images as (answered with their class, score) and unknown images by their scores."""
    numbers = np.array([0] * len(known) + [UNKNOWN] * len(unknown))
    answered = np.array([0 if right else 1 for right, _ in known] + [0] * len(unknown))
    scores = np.array([score for _, score in known] + unknown)
    return OSCR.value(Answers(numbers, answered, CLASSES, scores))


def sample(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class numbers with unknown ones, logits, and scores with ties."""
    rng = np.random.default_rng(seed)
    numbers = np.concatenate([np.arange(-1, 3), rng.integers(-1, 3, count - 4)])
    logits = rng.normal(size=(count, 3))
    logits[np.flatnonzero(numbers >= 0), numbers[numbers >= 0]] += 1
    return numbers, logits, np.round(rng.normal(numbers == UNKNOWN, 1.0), 1)


def answers(metric: Metric, seed: int = 0) -> Answers:
    numbers, logits, scores = sample(seed)
    return open_set_answers(metric, numbers, logits, CLASSES, scores)


# By hand -------------------------------------------------------------------------------------------------------------


def test_oscr_by_hand() -> None:
    """Unknown at .3 and .5: the first known image wins 2 of 2 pairs, the wrong one none, the third 1, the fourth 0."""
    known = [(True, 0.1), (False, 0.2), (True, 0.4), (True, 0.6)]
    assert oscr(known, [0.3, 0.5]) == 3 / 8


def test_equal_scores_count_one_half() -> None:
    assert oscr([(True, 0.3)], [0.3]) == 1 / 2
    assert oscr([(True, 0.3), (True, 0.3), (False, 0.3)], [0.3, 0.9]) == 3 / 6


def test_parted_perfectly_oscr_is_the_accuracy() -> None:
    assert oscr([(True, 0.1), (True, 0.2), (False, 0.3), (True, 0.4)], [5.0, 6.0]) == 3 / 4
    assert oscr([(True, 5.0), (True, 6.0)], [0.1]) == 0.0


def test_the_false_positive_rate_by_hand() -> None:
    """Of 20 known images, 19 pass up to a score of 18; one of four unknown images lies there."""
    numbers = np.array([0] * 20 + [UNKNOWN] * 4)
    scores = np.array([*map(float, range(20)), 18.5, 30.0, 5.0, 19.5])
    given = open_set_answers(FPR_95, numbers, np.eye(3)[np.zeros(24, dtype=int)], CLASSES, scores)
    assert FPR_95.value(given) == 1 / 4


def test_the_auroc_by_hand() -> None:
    numbers, scores = np.array([0, 1, 2, UNKNOWN, UNKNOWN]), np.array([1.0, 2.0, 4.0, 3.0, 4.0])
    given = open_set_answers(UNKNOWN_AUROC, numbers, np.eye(3)[[0, 1, 2, 0, 0]], CLASSES, scores)
    assert UNKNOWN_AUROC.value(given) == pytest.approx((2 + 2.5) / 6, abs=1e-15)


def test_all_metrics_by_hand() -> None:
    numbers = np.array([0, 1, 2, 2, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN])
    logits = np.eye(3)[[0, 1, 2, 1, 0, 0, 0, 2]]  # three of four known images are right; three unknown are called real
    scores = np.array([1.0, 2.0, 3.0, 4.0, 2.5, 3.5, 5.0, 6.0])
    found = open_set_metrics(numbers, logits, CLASSES, {"s": scores})
    assert found["unknown_auroc/s"] == pytest.approx((2 + 3 + 4 + 4) / 16)
    assert found["oscr/s"] == pytest.approx((4 + 4 + 3) / 16)
    assert found["unknown_fpr95/s"] == 2 / 4  # no known image may fail, so all up to 4 pass
    assert {name: value for name, value in found.items() if name.startswith("lands_on")} == {
        "lands_on/real": 3 / 4, "lands_on/lama": 0.0, "lands_on/ldm": 1 / 4,
    }  # fmt: skip
    closed = attribution_metrics(numbers[:4], logits[:4], CLASSES)
    assert closed["accuracy"] == 3 / 4
    assert closed.items() <= found.items()


# Against the definition ----------------------------------------------------------------------------------------------


def area_under_the_curve(numbers: np.ndarray, answered: np.ndarray, scores: np.ndarray) -> float:
    """Correct classification rate over false positive rate, point by point (Dhamija et al. 2018)."""
    unknown = numbers == UNKNOWN
    points = []
    for threshold in [-np.inf, *np.unique(scores)]:
        passes = scores <= threshold
        right = passes & (answered == numbers) & ~unknown
        points.append(((passes & unknown).sum() / unknown.sum(), right.sum() / (~unknown).sum()))
    fpr, ccr = np.array(points).T
    return float(np.trapezoid(ccr, fpr))


@given(SEEDS)
@settings(max_examples=25)
def test_oscr_is_the_area_under_its_curve(seed: int) -> None:
    numbers, logits, scores = sample(seed)
    answered = logits.argmax(axis=1)
    given_answers = open_set_answers(OSCR, numbers, logits, CLASSES, scores)
    assert OSCR.value(given_answers) == pytest.approx(area_under_the_curve(numbers, answered, scores), abs=1e-12)


@given(SEEDS)
@settings(max_examples=25)
def test_oscr_is_at_most_the_accuracy_and_at_most_the_auroc(seed: int) -> None:
    numbers, logits, scores = sample(seed)
    found = open_set_metrics(numbers, logits, CLASSES, {"s": scores})
    assert found["oscr/s"] <= min(found["accuracy"], found["unknown_auroc/s"]) + 1e-12
    assert all(0 <= value <= 1 for value in found.values())
    assert sum(value for name, value in found.items() if name.startswith("lands_on/")) == pytest.approx(1)


@given(SEEDS)
@settings(max_examples=12)
def test_the_order_of_images_and_any_rising_map_of_the_scores_change_nothing(seed: int) -> None:
    numbers, logits, scores = sample(seed)
    order = np.random.default_rng(seed).permutation(len(numbers))
    before = open_set_metrics(numbers, logits, CLASSES, {"s": scores})
    after = open_set_metrics(numbers[order], logits[order], CLASSES, {"s": np.exp(scores[order])})
    assert after == pytest.approx(before, abs=1e-12)


# What an interval is made of -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", OPEN_SET_METRICS, ids=lambda metric: metric.name)
def test_a_weight_counts_an_image_more_than_once(metric: Metric) -> None:
    given_answers, counts = answers(metric), np.random.default_rng(1).integers(0, 3, 40)
    counts[:4] = 1
    index = np.repeat(np.arange(40), counts)
    assert given_answers.scores is not None
    repeated = Answers(
        given_answers.labels[index], given_answers.answered[index], given_answers.classes, given_answers.scores[index]
    )
    assert metric.value(given_answers, counts) == pytest.approx(metric.value(repeated), abs=1e-12)


@pytest.mark.parametrize("metric", [UNKNOWN_AUROC, OSCR], ids=lambda metric: metric.name)
def test_an_influence_is_the_derivative_by_the_images_weight(metric: Metric) -> None:
    given_answers, step = answers(metric), 1e-6
    influence = metric.influences(given_answers, np.arange(40))
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    for image in range(40):
        weights = np.ones(40)
        sides = []
        for sign in (1, -1):
            weights[image] = 1 + sign * step
            sides.append(metric.value(given_answers, weights))
        assert influence[image] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-7)


def test_the_influence_on_the_false_positive_rate_is_that_of_the_found_share_turned_round() -> None:
    influence = FPR_95.influences(answers(FPR_95), np.arange(40))
    unknown = sample(0)[0] == UNKNOWN
    assert np.abs(influence).max() > 0
    assert influence[unknown].sum() == pytest.approx(0, abs=1e-12)


# Errors --------------------------------------------------------------------------------------------------------------


def test_without_unknown_images_or_with_a_score_that_is_no_number_nothing_is_measured() -> None:
    numbers, logits, scores = sample(0)
    known = numbers != UNKNOWN
    with pytest.raises(ValueError, match="no image of an unknown generator"):
        open_set_metrics(numbers[known], logits[known], CLASSES, {"s": scores[known]})
    with pytest.raises(ValueError, match="2 of 40 scores s are not finite"):
        open_set_metrics(numbers, logits, CLASSES, {"s": np.where(np.arange(40) < 2, np.nan, scores)})
    with pytest.raises(ValueError, match="no image of class ldm"):
        open_set_metrics(numbers[numbers != 2], logits[numbers != 2], CLASSES, {"s": scores[numbers != 2]})
