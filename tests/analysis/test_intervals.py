"""Intervals: against answers computed by hand, against theory, and where the answer is obvious."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import t

from analysis.cells import CELL_COLUMNS, cell_table
from analysis.intervals import Estimate, Level, Part, Sources, average, mean
from analysis.intervals import difference as difference_of
from analysis.intervals import interval as interval_of
from benchmarks.coverage import Alike, Case, coverage
from grid.tasks import cell_rows
from models.detector import DETECTION_CLASSES
from models.metrics import metrics_for
from models.scoring import cell_metrics
from tests.analysis.scored import Scored, difference, interval

DETECTION_METRICS = [metric.name for metric in metrics_for(DETECTION_CLASSES)]
RANK_METRICS = [metric.name for metric in metrics_for(DETECTION_CLASSES) if metric.ranks]


def pairs(real: np.ndarray, fake: np.ndarray) -> pd.DataFrame:
    """One cell: each photograph once as it is and once repainted."""
    ids = [f"photo{number}" for number in range(len(real))]
    return pd.DataFrame(
        {
            "source_id": ids + ids,
            "generator": ["real"] * len(real) + ["lama"] * len(fake),
            "label": [0] * len(real) + [1] * len(fake),
            "score": np.concatenate([real, fake]),
        }
    )


def random_cell(num: int, seed: int = 0, quality: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(2, num))
    return pairs(real, fake + quality).round(1)  # rounded, so that there are ties


def random_attribution(num: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    classes = ["real", "lama", "ldm"]
    rows = [(f"photo{photo}", name, int(name != "real")) for name in classes for photo in range(num)]
    table = pd.DataFrame(rows, columns=["source_id", "generator", "label"])
    for name in classes:
        table[f"logit_{name}"] = rng.normal(size=len(table)) + (table["generator"] == name)
    return table


def parts(frame: pd.DataFrame, metric: str) -> list[Part]:
    return Sources([frame]).cell(frame).parts(metric)


def test_influences_of_auroc_computed_by_hand() -> None:
    # three photographs; the pairs of a real and a fake that are in the right order: 2 of 3, 3 of 3, 1 of 3 per fake
    cell = pairs(np.array([0.0, 1.0, 2.0]), np.array([1.5, 3.0, 0.5]))
    (part,) = parts(cell, "auroc")
    assert part.value == pytest.approx(6 / 9)
    # per fake (2, 3, 1) / 3 - 6/9, per real (3, 2, 1) / 3 - 6/9, each over 3, and summed per photograph
    assert part.influence == pytest.approx(np.array([0 + 1 / 3, 1 / 3 + 0, -1 / 3 - 1 / 3]) / 3)
    assert part.estimate().variance == pytest.approx((1 + 1 + 4) / 81 * 3 / 2)


def test_the_interval_of_an_auroc_computed_by_hand() -> None:
    level = Level(np.array([0.02, -0.02] * 50), 100)  # variance .04 x 100 / 99, as many degrees of freedom
    low, high = interval_of(0.9, [level])
    half = t.ppf(0.975, 99) * np.sqrt(0.04 * 100 / 99) / (0.9 * 0.1)
    assert (low, high) == pytest.approx((expit(np.log(9) - half), expit(np.log(9) + half)))


def test_few_photographs_that_make_the_variance_are_few_degrees_of_freedom() -> None:
    even, one = np.array([0.01, -0.01] * 50), np.zeros(100)
    one[:2] = 0.05, -0.05
    assert Level(even, 100).degrees_of_freedom == 99
    assert Level(one, 100).degrees_of_freedom == 10  # the fewest
    assert Level(np.array([0.1, -0.1]), 2).degrees_of_freedom == 1


def test_a_share_has_the_exact_binomial_interval() -> None:
    # 70 of 100 independent images: Clopper and Pearson's [.600, .788]
    assert interval(one_image_a_source(np.arange(100) < 70), metric="accuracy") == pytest.approx(
        (0.6002, 0.7876), abs=1e-4
    )


def test_images_of_one_photograph_count_as_few_independent_ones() -> None:
    right = np.repeat(np.arange(25) < 15, 4)  # four images a photograph, right or wrong together
    frame = one_image_a_source(right).assign(source_id=[f"{number // 4:02d}" for number in range(100)])
    alone = interval(one_image_a_source(np.arange(25) < 15), metric="accuracy")
    assert interval(frame, metric="accuracy") == pytest.approx(alone)


@pytest.mark.parametrize("metric", RANK_METRICS)
def test_a_perfect_ranking_of_100_photographs_is_not_certain(metric: str) -> None:
    cell = pairs(np.linspace(-2, -1, 100), np.linspace(1, 2, 100))
    bound = 0.025 ** (1 / 100)
    assert interval(cell, metric=metric) == pytest.approx((0, 1 - bound) if metric == "eer" else (bound, 1))


@pytest.mark.parametrize("metric", ["auroc", "ap"])
def test_the_same_score_for_all_images_is_no_certain_value(metric: str) -> None:
    low, high = interval(pairs(np.zeros(100), np.zeros(100)), metric=metric)
    assert (low, high) == pytest.approx((0.5 * 0.025 ** (1 / 100), 1 - 0.5 * 0.025 ** (1 / 100)))


@pytest.mark.parametrize("shared", [True, False])
def test_all_reals_right_and_all_fakes_wrong_is_a_half_give_or_take_two_in_a_hundred(shared: bool) -> None:
    frame = pairs(np.full(100, -1.0), np.full(100, -1.0))
    if not shared:
        frame["source_id"] = [f"{number:03d}" for number in range(200)]
    for metric in ("accuracy", "balanced_accuracy"):
        assert interval(frame, metric=metric) == pytest.approx((0.4819, 0.5181), abs=1e-4)


def test_one_right_fake_more_changes_that_interval_little() -> None:
    fake = np.full(100, -1.0)
    fake[0] = 1
    assert interval(pairs(np.full(100, -1.0), fake), metric="accuracy") == pytest.approx((0.4863, 0.5272), abs=1e-4)


def test_the_mean_of_equal_cells_has_their_interval_and_their_gap_none() -> None:
    (part,) = parts(random_cell(100), "auroc")
    one = part.estimate()
    both = mean([one, one, one])
    assert (both.value, *both.interval) == pytest.approx((one.value, *one.interval))
    assert difference_of(one, both) == pytest.approx((0, 0, 0, 1))


def test_the_mean_of_independent_cells_is_narrower_by_the_root_of_their_number() -> None:
    wide, rng = 0.02, np.random.default_rng(0)
    noise = rng.permuted(np.tile([1.0, -1.0], (4, 5000)), axis=1) * wide / 100
    cells = [Estimate(0.7, interval_of(0.7, [Level(row, 10_000)]), (Level(row, 10_000),)) for row in noise]
    one, four = (np.diff(estimate.interval)[0] for estimate in (cells[0], mean(cells)))
    assert one / four == pytest.approx(2, rel=0.05)


def test_a_certain_cell_adds_its_width_to_a_difference() -> None:
    perfect = average([parts(pairs(np.linspace(-2, -1, 100), np.linspace(1, 2, 100)), "auroc")])
    other = average([parts(random_cell(100, quality=2.0), "auroc")])
    found = difference_of(perfect, other)
    assert found.difference == pytest.approx(1 - other.value)
    alone = np.sqrt(other.variance)
    assert (found.high - found.low) / 2 > alone * t.ppf(0.975, 99)
    same = difference_of(perfect, perfect)
    assert (same.low, same.difference, same.p) == (pytest.approx(-same.high), 0, 1)
    assert same.high == pytest.approx((1 - 0.025 ** (1 / 100)) / np.sqrt(2))


def test_a_second_level_adds_its_variance_and_its_few_degrees_of_freedom() -> None:
    photographs, seeds = Level(np.array([0.01, -0.01] * 50), 100), Level(np.array([0.03, -0.03]), 2)
    variances = 0.01 * 100 / 99, 0.0018 * 2
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / 99 + variances[1] ** 2 / 1)
    half = t.ppf(0.975, degrees) * np.sqrt(sum(variances)) / (0.6 * 0.4)
    found = interval_of(0.6, [photographs, seeds])
    assert found == pytest.approx((expit(logit(0.6) - half), expit(logit(0.6) + half)))


def test_seeds_pool_their_influences() -> None:
    one, other = random_cell(80, 1), random_cell(80, 2)
    pooled = average([parts(one, "auroc"), parts(other, "auroc")])
    by_hand = (parts(one, "auroc")[0].influence + parts(other, "auroc")[0].influence) / 2
    assert pooled.levels[0].deviations == pytest.approx(by_hand)
    low, high = interval(one, other, metric="auroc")
    assert low < pooled.interval.low  # what the seeds differ by comes on top (test_seeds.py)
    assert high > pooled.interval.high
    assert interval(one, one, metric="accuracy") == pytest.approx(interval(one, metric="accuracy"))


@pytest.mark.parametrize("metric", DETECTION_METRICS)
def test_the_value_lies_in_its_interval(metric: str) -> None:
    for seed in range(5):
        cell = random_cell(25, seed)
        value = cell_metrics(cell["label"].to_numpy(), cell["score"].to_numpy())[metric]
        low, high = interval(cell, metric=metric)
        assert low <= value <= high


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_more_photographs_make_it_narrower_as_the_root_of_their_number(metric: str) -> None:
    small, large = (np.diff(interval(random_cell(num), metric=metric)) for num in (100, 1600))
    assert small / large == pytest.approx(4, rel=0.25)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    hits, rounds = 0, 400
    for _ in range(rounds):
        right = rng.random((2, 150)) < 0.8
        cell = pairs(np.where(right[0], -1, 1), np.where(right[1], 1, -1))
        low, high = interval(cell, metric="accuracy")
        hits += low <= 0.8 <= high
    assert 0.92 <= hits / rounds <= 0.98


def test_photographs_are_drawn_and_not_images() -> None:
    cell = random_cell(60)
    copies = pd.concat([cell, cell, cell], ignore_index=True)
    for metric in ("accuracy", "auroc"):
        assert interval(copies, metric=metric) == pytest.approx(interval(cell, metric=metric))


def test_rare_kinds_of_photographs_are_drawn_together() -> None:
    cell = random_cell(30).drop(index=[30, 31])  # two photographs have no fake
    low, high = interval(cell, metric="real_accuracy")
    assert low < high


def test_order_does_not_matter() -> None:
    cell = random_cell(50)
    shuffled = cell.iloc[np.random.default_rng(0).permutation(len(cell))]
    for metric in DETECTION_METRICS:
        assert interval(shuffled, metric=metric) == pytest.approx(interval(cell, metric=metric))


def test_each_seed_may_have_its_threshold() -> None:
    cell = random_cell(80)
    shifted = cell.assign(score=cell["score"] + 5)
    metric = "accuracy_valid_threshold"
    both = interval(cell, shifted, metric=metric, threshold=[0.05, 5.05])
    assert both == interval(cell, metric=metric, threshold=[0.05])
    assert both != interval(cell, shifted, metric=metric, threshold=[0.05, 0.05])


@pytest.mark.parametrize("metric", DETECTION_METRICS)
def test_a_method_does_not_differ_from_itself(metric: str) -> None:
    cell = random_cell(50)
    found = difference(cell, cell, metric=metric)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_difference_changes_its_sign_with_the_sides() -> None:
    good, bad = random_cell(200, 1, quality=2.0), random_cell(200, 2, quality=0.2)
    there, back = difference(good, bad, metric="accuracy"), difference(bad, good, metric="accuracy")
    assert there.difference == -back.difference > 0
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p == back.p < 1e-6


def test_pairing_takes_out_what_both_share() -> None:
    cell = random_cell(200, quality=0.5)
    nearly = cell.assign(score=cell["score"] + np.where(np.arange(len(cell)) % 50 == 0, 3.0, 0.0))
    paired, alone = difference(nearly, cell, metric="auroc"), interval(cell, metric="auroc")
    assert paired.high - paired.low < np.diff(alone) / 2


@pytest.mark.long
def test_equally_good_methods_differ_by_chance_one_time_in_twenty() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        cells = [pairs(*np.where(rng.random((2, 100)) < 0.75, [[-1], [1]], [[1], [-1]])) for _ in range(2)]
        found.append(difference(*cells, metric="accuracy").p < 0.05)
    assert 0.02 <= np.mean(found) <= 0.09


def test_a_cell_holds_the_generators_fakes_and_the_real_images_that_belong_to_them() -> None:
    rows = [("real", 0), ("lama", 0), ("lama", 1), ("ldm", 0), ("ldm", 1)]
    scores = pd.DataFrame(rows, columns=["generator", "label"])
    assert scores[cell_rows(scores, "lama")].index.tolist() == [0, 1, 2]


def test_without_results_there_is_no_cell() -> None:
    empty = cell_table(Scored({}, "accuracy"))  # type: ignore[arg-type]  # stands in for a store
    assert list(empty.columns) == CELL_COLUMNS
    assert empty.empty


def test_what_cannot_be_asked_is_refused() -> None:
    cell = random_cell(20)
    sources = Sources([cell])
    with pytest.raises(ValueError, match="no interval for 'loss'; there are: accuracy, "):
        sources.cell(cell).parts("loss")
    with pytest.raises(ValueError, match="there are: accuracy, balanced_accuracy, macro_f1, accuracy/lama, "):
        sources.cell(random_attribution(5)).parts("accuracy/nobody")
    with pytest.raises(ValueError, match="not in the test set, such as 'photo20'"):
        sources.indices(random_cell(21))
    with pytest.raises(ValueError, match="neither a column `score` nor any"):
        sources.cell(cell.drop(columns="score"))
    with pytest.raises(ValueError, match="there are no images"):
        Sources([cell.iloc[:0]])
    assert set(DETECTION_METRICS) == set(cell_metrics(np.array([0, 1]), np.array([0.0, 1.0])))


def test_a_perfect_score_is_not_certain() -> None:
    """All of 100 sources right: the exact binomial interval begins at 0.025 ** (1 / 100)."""
    cell = one_image_a_source(np.ones(100, dtype=bool))
    assert interval(cell, metric="accuracy") == (pytest.approx(0.025 ** (1 / 100)), 1)
    none = one_image_a_source(np.zeros(100, dtype=bool))
    below = interval(none, metric="accuracy")
    assert below == (0, pytest.approx(1 - 0.025 ** (1 / 100)))


@pytest.mark.slow
@pytest.mark.long
def test_an_accuracy_near_one_is_covered() -> None:
    """Of many test sets of 100 sources, nine in ten intervals and more hold the truth, 0.99."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = interval(one_image_a_source(rng.random(100) < 0.99), metric="accuracy")
        held += low <= 0.99 <= high
    assert held / 300 >= 0.93


@pytest.mark.parametrize("told_apart", [0.0, 0.01, 0.05])
def test_a_detector_that_answers_a_photograph_and_its_fake_alike_is_covered(told_apart: float) -> None:
    """Hardly any photograph moves its accuracy, which is a half and a little more."""
    assert Alike(100, told_apart, 0.5).coverage(200, seed=0) >= 0.93


@pytest.mark.slow
@pytest.mark.long
def test_an_auroc_near_one_is_covered_and_not_always() -> None:
    """The bootstrap held the truth in .77 of these samples."""
    shares, _ = coverage(Case(0.9977, 100, 0.8), 400, seed=0)
    for name in ("auroc", "ap", "eer", "accuracy"):
        assert 0.93 <= shares[name] <= 0.995, name


def one_image_a_source(right: np.ndarray) -> pd.DataFrame:
    """Fakes, each of a source of its own, called fake where `right`."""
    scores = np.where(right, 1.0, -1.0)
    sources = [f"{number:04d}" for number in range(len(right))]
    return pd.DataFrame({"source_id": sources, "generator": "lama", "label": 1, "score": scores})
