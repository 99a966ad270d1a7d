"""The two intervals over seeds: by hand, their properties, and how often they are right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from analysis.cells import CELL, METHODS, THESE_RUNS, cell_table, compare
from analysis.intervals import NO_SPREAD, UNKNOWN, Interval, Level, Sources, Spread, average, difference
from analysis.seeds import NONE, ONE_SEED, Pool, added, by_train_set, joined, of_sum, pooled
from benchmarks.comparisons import FOUR, ONE, WITHOUT, Case, rejected
from tests.analysis.scored import Scored

T2, T4 = 4.302652729911275, 2.7764451051977987  # Student's t, 97.5 %, 2 and 4 degrees of freedom


def runs(*values: float) -> dict[int, dict[str, float]]:
    """The runs of one training set with one cell."""
    return {seed: {"lama": value} for seed, value in enumerate(values)}


def scores(value: float, seed: int, num: int = 60) -> pd.DataFrame:
    """A real image and a fake of each photograph; fakes score higher by `value`."""
    rng = np.random.default_rng(seed)
    score = rng.standard_normal(2 * num) + np.repeat([0.0, value], num)
    names = [f"p{number}" for number in range(num)] * 2
    labels = np.repeat([0, 1], num)
    generator = np.where(labels == 0, "real", "lama")
    return pd.DataFrame({"source_id": names, "generator": generator, "label": labels, "score": score})


def cells_of(*frames: pd.DataFrame, method: str = "xception_scratch", metric: str = "auroc") -> Any:
    """The one cell of these seeds, as a report has it."""
    store: Any = Scored({method: frames}, metric)
    table = cell_table(store, metrics=[metric])
    (cell,) = table[table["kind"] == CELL].itertuples()
    return cell


# By hand -------------------------------------------------------------------------------------------------------------


def test_both_intervals_of_three_seeds_by_hand() -> None:
    pool = pooled([runs(0.8, 0.9, 1.0)])
    assert pool == pytest.approx(Pool(0.01 / 0.09, 2))  # the variance of .8, .9 and 1 is .01
    spread = pool.of(0.9, 3)
    photographs = Interval(0.85, 0.93)
    half = T2 * math.sqrt(0.01 / 3)
    assert half == pytest.approx(0.248414, abs=1e-6)
    mean = joined(0.9, photographs, spread.of_mean)
    assert mean == pytest.approx((0.9 - math.hypot(0.05, half), 1.0))
    half = T2 * math.sqrt(0.01 * 4 / 3)
    assert half == pytest.approx(0.496827, abs=1e-6)
    one_more = joined(0.9, photographs, spread.of_one_more)
    assert one_more == pytest.approx((0.9 - math.hypot(0.05, half), 1.0))
    assert one_more.low == pytest.approx(0.400663, abs=1e-6)


def test_a_pool_over_training_sets_and_cells_by_hand() -> None:
    """Two training sets with three seeds of two cells: four degrees of freedom, those of the runs."""
    first = {0: {"a": 0.4, "b": 0.8}, 1: {"a": 0.5, "b": 0.8}, 2: {"a": 0.6, "b": 0.8}}
    second = {0: {"a": 0.5, "b": 0.7}, 1: {"a": 0.5, "b": 0.8}, 2: {"a": 0.5, "b": 0.9}}
    pool = pooled([first, second])
    squares = (0.02 + 0) / 2 + (0 + 0.02) / 2
    scales = 2 * (0.25 + 0.16) / 2 * 2
    assert pool == pytest.approx(Pool(squares / scales, 4))
    assert pool.of(0.5, 3).of_one_more == pytest.approx(Spread(squares / scales * 0.25 * 4 / 3, 4))
    assert pool.of(0.5, 3).of_one_more.half == pytest.approx(T4 * math.sqrt(squares / scales * 0.25 * 4 / 3))


def test_a_mean_over_training_sets_by_hand() -> None:
    found = of_sum([(runs(0.8, 0.9, 1.0), {"lama": 0.5}), (runs(0.5, 0.7), {"lama": 0.5})])
    first, second = 0.25 * 0.01 / 3, 0.25 * 0.02 / 2
    degrees = (first + second) ** 2 / (first**2 / 2 + second**2 / 1)
    assert found.of_mean == pytest.approx(Spread(first + second, degrees))
    assert found.of_one_more.variance == pytest.approx(0.25 * 0.01 * 4 / 3 + 0.25 * 0.02 * 3 / 2)


def test_a_report_gives_these_intervals() -> None:
    frames = [scores(value, seed) for seed, value in enumerate((1.0, 1.5, 2.0))]
    cell = cells_of(*frames)
    sources = Sources(frames)
    parts = [sources.cell(frame).parts("auroc") for frame in frames]
    values = [of_seed[0].value for of_seed in parts]
    photographs = average(parts).interval
    value, variance = np.mean(values), np.var(values, ddof=1)
    for share, found in ((1 / 3, (cell.low, cell.high)), (4 / 3, (cell.one_more_low, cell.one_more_high))):
        half = T2 * math.sqrt(variance * share)
        assert found[0] == pytest.approx(max(0.0, value - math.hypot(value - photographs.low, half)))
        assert found[1] == pytest.approx(min(1.0, value + math.hypot(photographs.high - value, half)))
    assert (cell.mean, cell.num_seeds, cell.seeded) == (pytest.approx(value), 3, True)


@pytest.mark.parametrize(("num_seeds", "times"), [(2, 15.562), (3, 4.968), (6, 2.777)])
def test_how_wide_it_is_with_two_three_and_six_seeds(num_seeds: int, times: float) -> None:
    """Half the width of the prediction interval over seeds, in standard deviations of one run."""
    values = 0.5 + 0.01 * np.resize([1.0, -1.0], num_seeds)
    values = 0.5 + (values - values.mean()) * 0.02 / values.std(ddof=1)
    spread = pooled([runs(*values)]).of(0.5, num_seeds).of_one_more
    assert spread.half / 0.02 == pytest.approx(times, abs=5e-4)
    assert times == pytest.approx(t.ppf(0.975, num_seeds - 1) * math.sqrt(1 + 1 / num_seeds), abs=5e-4)


# One seed, and no dependence on it -----------------------------------------------------------------------------------


def test_with_one_seed_there_is_no_prediction_interval() -> None:
    cell = cells_of(scores(1.5, 0))
    alone = average([Sources([scores(1.5, 0)]).cell(scores(1.5, 0)).parts("auroc")]).interval
    assert (cell.low, cell.high) == pytest.approx(alone)
    assert np.isnan([cell.one_more_low, cell.one_more_high]).all()
    assert pooled([runs(0.5)]).of(0.5, 1) == ONE_SEED


def test_a_method_that_does_not_depend_on_the_seed_has_the_variance_zero() -> None:
    cell = cells_of(scores(1.5, 0), method="residual_linear")
    assert not cell.seeded
    assert (cell.low, cell.high) == (cell.one_more_low, cell.one_more_high)
    assert joined(0.5, Interval(0.4, 0.6), NONE.of_one_more) == pytest.approx((0.4, 0.6))


def test_an_unknown_part_makes_the_whole_unknown() -> None:
    assert not added([Spread(1.0, 2), UNKNOWN]).is_known
    assert added([NO_SPREAD, NO_SPREAD]) == NO_SPREAD
    assert np.isnan(joined(0.5, Interval(0.4, 0.6), UNKNOWN)).all()
    assert of_sum([(runs(0.5, 0.6), {"lama": 0.5}), (runs(0.5), {"lama": 0.5})]) == ONE_SEED


# Properties ----------------------------------------------------------------------------------------------------------

VALUES = st.lists(st.floats(0.02, 0.98), min_size=2, max_size=8)


@given(VALUES, st.floats(0, 0.02))
def test_the_prediction_interval_holds_the_confidence_interval_and_that_the_value(
    values: list[float], photographs: float
) -> None:
    value = float(np.mean(values))
    spread = pooled([runs(*values)]).of(value, len(values))
    own = Interval(value - photographs, value + photographs)
    mean, one_more = joined(value, own, spread.of_mean), joined(value, own, spread.of_one_more)
    assert 0 <= one_more.low <= mean.low <= own.low <= value <= own.high <= mean.high <= one_more.high <= 1


@given(VALUES, st.randoms())
def test_the_order_and_the_names_of_seeds_do_not_matter(values: list[float], random: Any) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    assert pooled([runs(*values)]) == pytest.approx(pooled([runs(*shuffled)]))
    renamed = {seed + 7: cells for seed, cells in runs(*values).items()}
    assert pooled([renamed]) == pytest.approx(pooled([runs(*values)]))


@given(VALUES)
def test_more_training_sets_alike_change_the_certainty_and_not_the_variance(values: list[float]) -> None:
    one, four = pooled([runs(*values)]), pooled([runs(*values)] * 4)
    assert four.factor == pytest.approx(one.factor)
    assert four.degrees_of_freedom == 4 * one.degrees_of_freedom
    assert four.of(0.5, len(values)).of_mean.half <= one.of(0.5, len(values)).of_mean.half


def test_the_mean_is_that_of_all_seeds_and_equal_seeds_add_nothing() -> None:
    frame = scores(1.5, 0)
    alone, thrice = cells_of(frame), cells_of(frame, frame, frame)
    assert thrice.mean == pytest.approx(alone.mean)
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high))
    assert (thrice.one_more_low, thrice.one_more_high) == pytest.approx((alone.low, alone.high))


def test_runs_are_those_of_the_seeds_that_all_cells_have() -> None:
    cells = {("a", "x"): {0: 0.1, 1: 0.2}, ("a", "y"): {1: 0.3, 2: 0.4}, ("b", "x"): {5: 0.5}}
    assert by_train_set(cells) == {"a": {1: {"x": 0.2, "y": 0.3}}, "b": {5: {"x": 0.5}}}


# Comparisons ---------------------------------------------------------------------------------------------------------


def compared(a: list[pd.DataFrame], b: list[pd.DataFrame], b_method: str = "xception_pretrained") -> Any:
    store: Any = Scored({"xception_scratch": a, b_method: b}, "auroc")
    table = compare(store, "xception_scratch", b_method, "auroc")
    (cell,) = table[table["kind"] == CELL].itertuples()
    return cell


def test_single_runs_are_compared_as_runs_and_several_seeds_as_methods() -> None:
    many = [scores(1.0 + 0.3 * seed, seed) for seed in range(3)]
    others = [scores(1.2 + 0.3 * seed, seed + 10) for seed in range(3)]
    assert compared(many[:1], others[:1]).about == THESE_RUNS
    assert compared(many, others[:1]).about == THESE_RUNS
    assert compared(many, others).about == METHODS
    assert compared(many, others[:1], "residual_linear").about == METHODS  # one seed tells all of it


def test_the_difference_over_seeds_by_hand() -> None:
    """The variances of both groups by seeds and of the paired photographs, and Satterthwaite's degrees of freedom."""
    distances = {"a": (1.4, 1.7, 2.0), "b": (0.6, 1.0, 1.4)}
    frames = {name: [scores(distance, 5) for distance in group] for name, group in distances.items()}
    found = compared(frames["a"], frames["b"])
    sources = Sources(frames["a"])
    values = {name: [sources.cell(frame).parts("auroc")[0].value for frame in group] for name, group in frames.items()}
    assert found.difference == pytest.approx(np.mean(values["a"]) - np.mean(values["b"]))
    by_seeds = [np.var(group, ddof=1) / 3 for group in values.values()]
    photographs = [average([sources.cell(frame).parts("auroc") for frame in group]) for group in frames.values()]
    alone = difference(*photographs)
    level = photographs[0].levels[0].deviations - photographs[1].levels[0].deviations
    by_photographs = float(np.square(level).sum()) * 60 / 59
    degrees = Level(level, 60).degrees_of_freedom
    variance = sum(by_seeds) + by_photographs
    together = variance**2 / (sum(by**2 / 2 for by in by_seeds) + by_photographs**2 / degrees)
    half = t.ppf(0.975, together) * math.sqrt(variance)
    assert (found.high - found.low) / 2 == pytest.approx(half)
    assert found.p == pytest.approx(2 * t.sf(found.difference / math.sqrt(variance), together))
    assert half > (alone.high - alone.low) / 2


def test_two_groups_of_seeds_of_one_method_are_hardly_ever_called_different() -> None:
    shares = rejected(Case(0.05, 100), 40, seed=0)
    assert max(shares["auroc", ONE], shares["auroc", FOUR]) <= 0.07
    assert shares["auroc", WITHOUT] > 0.3


@pytest.mark.long
@pytest.mark.parametrize("deviation", [0.0, 0.02, 0.05])
def test_so_at_every_deviation(deviation: float) -> None:
    shares = rejected(Case(deviation, 100), 400, seed=0)
    for metric in ("auroc", "accuracy"):
        assert max(shares[metric, ONE], shares[metric, FOUR]) <= 0.07
