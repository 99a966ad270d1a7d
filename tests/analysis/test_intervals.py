"""Intervals: against sets of images that are really drawn twice, against theory, and where the answer is obvious."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis import intervals
from analysis.cells import CELL_COLUMNS, cell_table
from analysis.intervals import Resampler, difference_of, interval_of
from grid.tasks import cell_rows
from models.detector import DETECTION_CLASSES
from models.metrics import metrics_for
from models.scoring import attribution_metrics, cell_metrics
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


@pytest.mark.parametrize("metric", DETECTION_METRICS)
def test_a_weight_is_how_often_an_image_is_there(metric: str) -> None:
    cell = random_cell(40)
    resampler = Resampler([cell])
    weights = np.random.default_rng(1).multinomial(40, np.ones(40) / 40, size=5).T
    found = resampler.cell(cell).weighted(metric, 0.3)(weights.astype(np.float32))
    for column, counts in enumerate(weights.T):
        drawn = cell.loc[np.repeat(cell.index, counts[resampler.indices(cell)])]
        metrics = cell_metrics(drawn["label"].to_numpy(), drawn["score"].to_numpy(), 0.3)
        expected = metrics.get(f"{metric}_valid_threshold", metrics[metric])
        assert found[column] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "accuracy/real", "accuracy/ldm"])
def test_the_same_for_attribution(metric: str) -> None:
    cell = random_attribution(30)
    resampler = Resampler([cell])
    weights = np.random.default_rng(1).multinomial(30, np.ones(30) / 30, size=5).T
    found = resampler.cell(cell).weighted(metric)(weights.astype(np.float32))
    classes = ["real", "lama", "ldm"]
    for column, counts in enumerate(weights.T):
        drawn = cell.loc[np.repeat(cell.index, counts[resampler.indices(cell)])]
        truth = drawn["generator"].map(classes.index).to_numpy()
        expected = attribution_metrics(truth, drawn[[f"logit_{name}" for name in classes]].to_numpy(), classes)[metric]
        assert found[column] == pytest.approx(expected, abs=1e-6)


def test_values_computed_by_hand() -> None:
    # three photographs drawn 0, 1 and 2 times; the second's fake is missed, the third's real is accused
    cell = pairs(np.array([-1.0, -2.0, 3.0]), np.array([1.0, -1.0, 2.0]))
    answers, weights = Resampler([cell]).cell(cell), np.array([[0], [1], [2]], dtype=np.float32)
    assert answers.weighted("accuracy")(weights)[0] == pytest.approx((1 + 2) / 6)
    assert answers.weighted("real_accuracy")(weights)[0] == pytest.approx(1 / 3)
    assert answers.weighted("fake_accuracy")(weights)[0] == pytest.approx(2 / 3)
    # fakes -1 once, 2 twice; reals -2 once, 3 twice: of nine pairs (-1 > -2) once and (2 > -2) twice
    assert answers.weighted("auroc")(weights)[0] == pytest.approx(3 / 9)


@pytest.mark.parametrize("metric", RANK_METRICS)
def test_a_perfect_ranking_is_perfect_in_every_resample(metric: str) -> None:
    cell = pairs(np.full(20, -1.0) + np.arange(20) / 100, np.full(20, 1.0) + np.arange(20) / 100)
    assert interval(cell, metric=metric) == ((0, 0) if metric == "eer" else (1, 1))


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
        low, high = interval(cell, metric="accuracy", num_resamples=400)
        hits += low <= 0.8 <= high
    assert 0.92 <= hits / rounds <= 0.98


def test_photographs_are_drawn_and_not_images() -> None:
    cell = random_cell(60)
    copies = pd.concat([cell, cell, cell], ignore_index=True)
    for metric in ("accuracy", "auroc"):
        assert interval(copies, metric=metric) == pytest.approx(interval(cell, metric=metric), abs=1e-6)


def test_real_and_fake_of_one_photograph_stay_together() -> None:
    # what calls everything real is right in exactly one half of every resample
    cell = pairs(np.full(30, -1.0), np.full(30, -1.0))
    resampler = Resampler([cell])
    assert set(resampler.distribution(resampler.cell(cell), "accuracy")) == {0.5}


def test_where_they_share_no_photograph_their_numbers_are_kept() -> None:
    cell = pairs(np.full(30, -1.0), np.full(30, -1.0)).assign(source_id=[f"photo{number}" for number in range(60)])
    resampler = Resampler([cell])
    assert set(resampler.distribution(resampler.cell(cell), "accuracy")) == {0.5}


def test_rare_kinds_of_photographs_are_drawn_together() -> None:
    cell = random_cell(30).drop(index=[30, 31])  # two photographs have no fake
    low, high = interval(cell, metric="real_accuracy")
    assert low < high


def test_order_does_not_matter_and_the_seed_decides() -> None:
    cell = random_cell(50)
    shuffled = cell.iloc[np.random.default_rng(0).permutation(len(cell))]
    assert interval(shuffled, metric="auroc") == interval(cell, metric="auroc")
    assert interval(cell, metric="auroc", seed=1) != interval(cell, metric="auroc")


def test_seeds_are_averaged_within_each_resample() -> None:
    one, other = random_cell(80, 1), random_cell(80, 2)
    both = interval(one, other, metric="accuracy")
    assert interval(one, one, metric="accuracy") == interval(one, metric="accuracy")
    resampler = Resampler([one])
    mean = np.mean([resampler.distribution(resampler.cell(cell), "accuracy") for cell in (one, other)], axis=0)
    assert both == (interval_of(mean).low, interval_of(mean).high)


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
    assert there.p == back.p == pytest.approx(2 / 2001)


def test_pairing_takes_out_what_both_share() -> None:
    cell = random_cell(200, quality=0.5)
    nearly = cell.assign(score=cell["score"] + np.where(np.arange(len(cell)) % 50 == 0, 3.0, 0.0))
    paired, alone = difference(nearly, cell, metric="auroc"), interval(cell, metric="auroc")
    assert paired.high - paired.low < np.diff(alone) / 2


def test_equally_good_methods_differ_by_chance_one_time_in_twenty() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        cells = [pairs(*np.where(rng.random((2, 100)) < 0.75, [[-1], [1]], [[1], [-1]])) for _ in range(2)]
        found.append(difference(*cells, metric="accuracy", num_resamples=400).p < 0.05)
    assert 0.02 <= np.mean(found) <= 0.09


def test_p_is_never_zero_and_never_above_one() -> None:
    assert difference_of(1.0, np.ones(999)).p == pytest.approx(2 / 1000)
    assert difference_of(0.0, np.zeros(999)).p == 1


def test_resamples_in_blocks_are_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = random_cell(100)
    low, _ = interval(cell, metric="auroc")
    monkeypatch.setattr(intervals, "_BLOCK", 30_000)
    for kept in (0, 10**9):
        monkeypatch.setattr(intervals, "_KEPT", kept)
        resampler = Resampler([cell])
        found = resampler.distribution(resampler.cell(cell), "auroc")
        assert len(found) == 2000
        assert len(np.unique(found)) > 500
        assert np.array_equal(found, resampler.distribution(resampler.cell(cell), "auroc"))
        assert interval_of(found).low == pytest.approx(low, abs=0.02)


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
    resampler = Resampler([cell])
    with pytest.raises(ValueError, match="no interval for 'loss'; there are: accuracy, "):
        resampler.distribution(resampler.cell(cell), "loss")
    with pytest.raises(ValueError, match="there are: accuracy, balanced_accuracy, macro_f1, accuracy/lama, "):
        resampler.distribution(resampler.cell(random_attribution(5)), "accuracy/nobody")
    with pytest.raises(ValueError, match="not in the test set, such as 'photo20'"):
        resampler.indices(random_cell(21))
    with pytest.raises(ValueError, match="neither a column `score` nor any"):
        resampler.cell(cell.drop(columns="score"))
    with pytest.raises(ValueError, match="no images to resample"):
        Resampler([cell.iloc[:0]])
    assert set(DETECTION_METRICS) == set(cell_metrics(np.array([0, 1]), np.array([0.0, 1.0])))


def test_a_perfect_score_is_not_certain() -> None:
    """All of 100 sources right: the exact binomial interval begins at 0.025 ** (1 / 100)."""
    cell = one_image_a_source(np.ones(100, dtype=bool))
    assert interval(cell, metric="accuracy", num_resamples=100) == (pytest.approx(0.025 ** (1 / 100)), 1)
    none = one_image_a_source(np.zeros(100, dtype=bool))
    below = interval(none, metric="accuracy", num_resamples=100)
    assert below == (0, pytest.approx(1 - 0.025 ** (1 / 100)))


def test_a_share_far_from_the_ends_keeps_its_resampled_interval() -> None:
    right = np.arange(100) < 70
    cell = one_image_a_source(right)
    resampler = Resampler([cell], num_resamples=400)
    expected = interval_of(resampler.distribution(resampler.cell(cell), "accuracy"))
    assert interval(cell, metric="accuracy", num_resamples=400) == (expected.low, expected.high)


def test_one_answer_for_every_image_is_no_certain_half() -> None:
    """Two images a source, one real and one fake, all called fake: every resample gives exactly a half."""
    frame = pd.DataFrame({"source_id": [f"{n // 2:03d}" for n in range(100)], "label": [0, 1] * 50, "score": 1.0})
    frame["generator"] = np.where(frame["label"] == 0, "real", "lama")
    low, high = interval(frame, metric="accuracy", num_resamples=100)
    assert low < 0.4
    assert high > 0.6


def test_an_accuracy_near_one_is_covered() -> None:
    """Of many test sets of 100 sources, nine in ten intervals and more hold the truth, 0.99."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = interval(one_image_a_source(rng.random(100) < 0.99), metric="accuracy", num_resamples=100)
        held += low <= 0.99 <= high
    assert held / 300 >= 0.93


def one_image_a_source(right: np.ndarray) -> pd.DataFrame:
    """Fakes, each of a source of its own, called fake where `right`."""
    scores = np.where(right, 1.0, -1.0)
    sources = [f"{number:04d}" for number in range(len(right))]
    return pd.DataFrame({"source_id": sources, "generator": "lama", "label": 1, "score": scores})
