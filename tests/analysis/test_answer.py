"""Which method carries best, on values that were set by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.answer import Standing, best_of, best_of_cells, standings
from analysis.cells import CELL, CELL_COLUMNS
from analysis.figures.answer import answer_figure, fits_phone
from analysis.figures.matrices import colour_span
from analysis.strip import median_photograph
from analysis.tables import in_words
from analysis.variants import ORIGIN, add_origins, label_of, label_rows
from grid.means import CROSS_GENERATOR, IN_DOMAIN

GENERATORS = ["lama", "ldm"]
Matrix = dict[tuple[str, str], float]  # (tested on, trained on) -> AUROC


def cells(**of_variant: Matrix) -> pd.DataFrame:
    """Rows of `cell_table` with the means that follow."""
    rows = []
    for variant, matrix in of_variant.items():
        shared = {"task": "detection", "variant": variant, "metric": "auroc", "low": np.nan, "high": np.nan}
        kinds: dict[str, list[float]] = {}
        for (tested_on, trained_on), value in matrix.items():
            rows.append(shared | {"kind": CELL, "tested_on": tested_on, "trained_on": trained_on, "mean": value})
            kinds.setdefault(IN_DOMAIN if tested_on in trained_on.split("+") else CROSS_GENERATOR, []).append(value)
        for kind, values in kinds.items():
            mean = sum(values) / len(values)
            rows.append(shared | {"kind": kind, "tested_on": "", "trained_on": "", "mean": mean,
                                  "low": mean - 0.01, "high": mean + 0.01})  # fmt: skip
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def square(own: float, unseen: float) -> Matrix:
    return {(a, b): own if a == b else unseen for a in GENERATORS for b in GENERATORS}


def order(standing: list[Standing]) -> list[str]:
    return [one.variant for one in standing]


def test_methods_are_sorted_by_the_mean_over_unseen_generators() -> None:
    found = standings(cells(first=square(0.99, 0.6), second=square(0.7, 0.8), third=square(0.9, 0.7)), GENERATORS)
    assert order(found) == ["second", "third", "first"]
    assert [one.unseen.value for one in found if one.unseen] == pytest.approx([0.8, 0.7, 0.6])
    assert [one.own.value for one in found if one.own] == pytest.approx([0.7, 0.9, 0.99])
    assert order(best_of(found)) == ["second"]
    assert order(best_of(found, "own")) == ["first"]


def test_equal_means_are_all_the_best_in_the_order_of_the_plan() -> None:
    found = standings(cells(b=square(0.9, 0.8), a=square(0.9, 0.8), c=square(1.0, 0.7)), GENERATORS)
    assert order(found) == ["b", "a", "c"]
    assert order(best_of(found)) == ["b", "a"]


def test_methods_without_a_generator_have_no_own_mean_and_methods_that_lack_cells_come_last() -> None:
    without = {("lama", "none"): 0.95, ("ldm", "none"): 0.85}
    partly = {("lama", "lama"): 1.0, ("ldm", "lama"): 0.99}
    found = standings(cells(partly=partly, full=square(0.9, 0.8), again=square(0.9, 0.7), free=without), GENERATORS)
    assert order(found) == ["free", "full", "again", "partly"]
    free, full, _, last = found
    assert (free.own, free.learns, free.ranked) == (None, False, True)
    assert free.unseen is not None
    assert free.unseen.value == pytest.approx(0.9)
    assert (full.learns, full.ranked, last.learns, last.ranked) == (True, True, True, False)


def test_cells_that_several_methods_share_are_ranked_before_those_of_one_alone() -> None:
    partly = {("lama", "lama"): 1.0, ("ldm", "lama"): 0.9}
    worse = {("lama", "lama"): 1.0, ("ldm", "lama"): 0.8}
    found = standings(cells(full=square(0.9, 0.8), worse=worse, partly=partly), GENERATORS)
    assert order(found) == ["partly", "worse", "full"]
    assert [one.ranked for one in found] == [True, True, False]


def test_the_best_of_each_cell_names_all_that_are_equal() -> None:
    found = standings(
        cells(first={**square(0.9, 0.6), ("ldm", "lama"): 0.7}, second={**square(0.9, 0.5), ("lama", "ldm"): 0.8}),
        GENERATORS,
    )
    table = best_of_cells(found, GENERATORS).set_index(["tested_on", "trained_on"])
    assert table["mean"].to_dict() == {
        ("lama", "lama"): 0.9, ("lama", "ldm"): 0.8, ("ldm", "lama"): 0.7, ("ldm", "ldm"): 0.9,
    }  # fmt: skip
    assert {where: set(names) for where, names in table["variants"].items()} == {
        ("lama", "lama"): {"first", "second"}, ("ldm", "ldm"): {"first", "second"}, ("lama", "ldm"): {"second"},
        ("ldm", "lama"): {"first"},
    }  # fmt: skip


def test_without_a_cell_nothing_stands() -> None:
    assert standings(cells(), GENERATORS) == []
    assert best_of([]) == []
    assert best_of_cells([], GENERATORS).empty


@pytest.mark.parametrize("count", [1, 5])
def test_the_figure_says_every_method_with_its_backbone_and_every_value(count: int) -> None:
    methods = {f"method_{number}": square(0.9, 0.6 + number / 100) for number in range(count)}
    found = standings(cells(**methods), GENERATORS)
    figure = answer_figure(found, GENERATORS, labels={"method_0": "xception41, ImageNet, small form"})
    texts = [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]
    together = " ".join(" ".join(texts).split())
    assert together.count("[xception41, ImageNet, small form]") == 2  # beside the bars and above its matrix
    for number in range(count):
        assert f"{count - number}. method_{number}" in together
        assert f"unseen {0.6 + number / 100:.3f} [{0.59 + number / 100:.3f}, {0.61 + number / 100:.3f}]" in together
    assert "AUROC from 0.10 to 0.90" in together  # equally far to both sides of chance
    assert sum(text.startswith("★") for text in texts) == 2 + 2 * count  # own values are equal, unseen ones are not


def test_colours_use_the_range_of_the_values() -> None:
    assert colour_span([0.45, 0.62], "auroc") == pytest.approx((0.35, 0.65))
    assert colour_span([0.5], "auroc") == pytest.approx((0.45, 0.55))
    assert colour_span([0.98, float("nan")], "accuracy") == (0, 1)
    assert colour_span([0.02, 0.13], "IoU at 0.5") == pytest.approx((0, 0.15))
    assert colour_span([0.2], "eer") == pytest.approx((0.15, 0.25))
    assert colour_span([], "eer") == (0, 1)


# The strip ------------------------------------------------------------------------------------------------------------


def scores(rows: list[tuple[str, str, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["source_id", "generator", "score"])
    return table.assign(label=(table["generator"] != "real").astype(int))


def test_the_photograph_is_the_one_whose_fakes_have_the_median_score() -> None:
    rows = [(name, generator, value + shift) for name, value in (("a", 5.0), ("b", -1.0), ("c", 2.0))
            for generator, shift in (("lama", -1.0), ("ldm", 1.0))]  # fmt: skip
    reals = [(name, "real", 0.0) for name in "abc"]
    assert median_photograph(scores([*rows, *reals]), GENERATORS) == "c"
    assert median_photograph(scores([*rows[:4], *reals]), GENERATORS) == "b"  # of two, the lower
    assert median_photograph(scores([*rows, ("d", "lama", 2.0), *reals]), GENERATORS) == "c"  # d lacks a fake
    assert median_photograph(scores([*rows, *reals[:1]]), GENERATORS) == "a"  # the others have no real picture
    assert median_photograph(scores(reals), GENERATORS) is None


# Backbone and weights -------------------------------------------------------------------------------------------------


def test_a_label_says_the_backbone_and_the_weights_once() -> None:
    rows = pd.DataFrame({"config": ['{"backbone": "xception41"}', "{}"], "weights": ["ImageNet", "ImageNet"]})
    assert label_of("m", rows) == "m [xception41, ImageNet]"
    assert label_of("m", rows.assign(config="{}", weights="")) == "m"


def test_every_csv_says_them_and_a_matrix_stays_a_matrix() -> None:
    origins = {"m": "xception41, ImageNet"}
    long = add_origins(pd.DataFrame({"method": ["m", "other"], "value": [1, 2]}), origins)
    assert long[ORIGIN].tolist() == ["xception41, ImageNet", ""]
    matrix = pd.DataFrame([[1]], index=["real"], columns=["real"]).rename_axis(index="true", columns="predicted")
    wide = add_origins(matrix, origins, variant="m")
    assert wide.index.name == "true / predicted; of m [xception41, ImageNet]"
    assert list(wide.columns) == ["real"]
    shown = label_rows(pd.DataFrame({"variant": ["m", "other"]}), origins)
    assert shown["variant"].tolist() == ["m [xception41, ImageNet]", "other"]
    assert add_origins(long.drop(columns=ORIGIN), {}).columns.tolist() == ["method", "value"]


def test_a_deviation_of_one_seed_is_none_and_not_missing() -> None:
    table = pd.DataFrame({"mean": [0.5, 0.6, np.nan], "std": [np.nan, 0.1, np.nan]})
    assert in_words(table, GENERATORS)["deviation over seeds"].tolist()[:2] == ["none", 0.1]
    assert pd.isna(in_words(table, GENERATORS)["deviation over seeds"].iloc[2])  # the value itself is missing
    assert list(in_words(table.assign(std=np.nan), GENERATORS)) == ["mean"]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize("narrow", [False, True])
def test_long_names_of_generators_are_shortened_in_the_middle(narrow: bool) -> None:
    long = f"stable_diffusion_{'very_' * 30}end"
    names = [long, "ldm"]
    matrix = {(a, b): 0.9 if a == b else 0.6 for a in names for b in names}
    figure = answer_figure(standings(cells(one=matrix, two=matrix), names), names, labels={}, narrow=narrow)
    assert long not in texts(figure)
    shown = "stable_…ry_end" if narrow else "stable_diffu…ry_very_end"
    assert shown in texts(figure)
    for axes in figure.axes:
        assert 0 <= axes.get_position().x0 <= axes.get_position().x1 <= 1


def test_a_phone_has_a_picture_of_its_own_while_its_matrices_fit() -> None:
    found = {}
    for number in (4, 5, 6, 12):
        names = [f"generator{n}" for n in range(number)]
        matrix = {(a, b): 0.9 if a == b else 0.6 for a in names for b in names}
        found[number] = fits_phone(standings(cells(one=matrix), names), names)
    assert found == {4: True, 5: True, 6: False, 12: False}


@pytest.mark.parametrize("narrow", [False, True])
def test_a_method_with_other_cells_has_no_place(narrow: bool) -> None:
    part = {("lama", "lama"): 1.0, ("ldm", "lama"): 1.0}
    found = standings(cells(first=square(0.9, 0.7), second=square(0.9, 0.6), third=part), GENERATORS)
    assert [one.ranked for one in found] == [True, True, False]
    shown = texts(answer_figure(found, GENERATORS, labels={}, narrow=narrow))
    assert {"1. first", "2. second", "third"} <= set(shown)
    assert not any("3. third" in text for text in shown)
    assert "unseen 1.000 [0.990, 1.010]\nother cells: not ranked" in shown
