"""Golden tests: results made by hand, answers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.matrices import (
    ORIENTATION,
    class_table,
    cross_generator_matrix,
    in_domain_cells,
    matrix_means,
    pivots,
)
from data.sources import get_source
from tests.analysis import published
from tests.analysis.tables import detection, published_results, results, row

# trained on lama: 0.9 at home, 0.6 on ldm; trained on ldm: 0.8 at home, 0.7 on lama
ASYMMETRIC = {("lama", "lama"): 0.9, ("lama", "ldm"): 0.6, ("ldm", "ldm"): 0.8, ("ldm", "lama"): 0.7}


def test_rows_are_tested_on_and_columns_trained_on() -> None:
    matrix = cross_generator_matrix(results(detection(ASYMMETRIC)), "m")
    expected = pd.DataFrame([[0.9, 0.7], [0.6, 0.8]], index=["lama", "ldm"], columns=["lama", "ldm"])
    pd.testing.assert_frame_equal(matrix, expected.rename_axis(index="tested on", columns="trained on"))


def test_the_matrix_says_its_orientation_itself() -> None:
    matrix = cross_generator_matrix(results(detection(ASYMMETRIC)), "m")
    assert (matrix.index.name, matrix.columns.name) == ("tested on", "trained on")
    assert ORIENTATION == "rows: tested on, columns: trained on"


@pytest.mark.parametrize("method", published.DETECTION)
def test_the_published_tables_come_out_as_they_were_printed(method: str) -> None:
    matrix = cross_generator_matrix(published_results(), method, generators=published.GENERATORS)
    assert tuple(matrix.index) == tuple(matrix.columns) == published.GENERATORS
    assert {name: tuple(values) for name, values in matrix.T.items()} == published.DETECTION[method]


def test_a_known_cell_stands_where_the_publication_has_it() -> None:
    # CLIP trained on LDM and tested on Pluralistic: 0.951; the other way round 0.977
    matrix = cross_generator_matrix(published_results(), "clip_linear")
    assert matrix.loc["pluralistic", "ldm"] == 0.951
    assert matrix.loc["ldm", "pluralistic"] == 0.977


@pytest.mark.parametrize("method", ["xception_pretrained", "clip_linear"])
def test_read_this_way_in_domain_is_the_best_of_every_row(method: str) -> None:
    matrix = cross_generator_matrix(published_results(), method)
    best = matrix.idxmax(axis=1)
    assert (best == best.index).all()


def test_read_the_other_way_it_would_not_be() -> None:
    matrix = cross_generator_matrix(published_results(), "clip_linear").T
    assert (matrix.idxmax(axis=1) != matrix.index).any()


@pytest.mark.parametrize("method", published.DETECTION)
def test_the_means_are_the_published_ones(method: str) -> None:
    means = matrix_means(cross_generator_matrix(published_results(), method))
    in_domain, cross_generator = published.MEANS[method]
    assert round(means.in_domain + 1e-9, 3) == in_domain
    assert round(means.cross_generator + 1e-9, 3) == cross_generator
    assert means.gap == means.in_domain - means.cross_generator


def test_means_computed_by_hand() -> None:
    means = matrix_means(cross_generator_matrix(results(detection(ASYMMETRIC)), "m"))
    assert means.in_domain == pytest.approx(0.85)
    assert means.cross_generator == pytest.approx(0.65)
    assert means.gap == pytest.approx(0.2)


def test_a_missing_cell_is_missing_and_leaves_the_means_alone() -> None:
    cells = {place: value for place, value in ASYMMETRIC.items() if place != ("lama", "ldm")}
    matrix = cross_generator_matrix(results(detection(cells)), "m")
    assert math.isnan(matrix.loc["ldm", "lama"])
    means = matrix_means(matrix)
    assert (means.in_domain, means.cross_generator) == pytest.approx((0.85, 0.7))


def test_a_generator_that_nobody_trained_on_yet_keeps_an_empty_column() -> None:
    cells = {("lama", name): 0.6 for name in ("lama", "ldm", "repaint")}
    matrix = cross_generator_matrix(results(detection(cells)), "m")
    assert list(matrix.columns) == ["lama", "ldm", "repaint"]
    assert matrix[["ldm", "repaint"]].isna().all(axis=None)


def test_columns_become_matrices_of_means_and_what_is_no_row_of_them_is_left_out() -> None:
    rows = [
        ("lama", "lama", 1.0, 10), ("lama", "lama", 3.0, 20), ("ldm", "lama", 5.0, 30), ("sd2", "lama", 7.0, 40),
        ("lama", "ldm+lama", 9.0, 50),
    ]  # fmt: skip
    cells = pd.DataFrame(rows, columns=["tested_on", "trained_on", "mean", "num_images"])
    found = pivots(cells, ["mean", "num_images"], generators=["ldm", "lama"], planned=["ldm"])
    expected = {
        "mean": [[math.nan, 5.0, math.nan], [math.nan, 2.0, math.nan]],
        "num_images": [[math.nan, 30, math.nan], [math.nan, 15, math.nan]],
    }
    assert list(found) == list(expected)
    for name, matrix in found.items():
        assert (list(matrix.index), list(matrix.columns)) == (["ldm", "lama"], ["ldm", "lama", "lama+ldm"])
        assert (matrix.index.name, matrix.columns.name) == ("tested on", "trained on")
        np.testing.assert_array_equal(matrix.to_numpy(), expected[name])


def test_means_of_which_there_is_no_cell_are_missing_and_not_zero() -> None:
    means = matrix_means(cross_generator_matrix(results(detection({("lama", "lama"): 0.9})), "m"))
    assert means.in_domain == 0.9
    assert math.isnan(means.cross_generator)
    assert math.isnan(means.gap)


def test_means_of_nothing_are_missing() -> None:
    means = matrix_means(cross_generator_matrix(results(detection(ASYMMETRIC)), "another method"))
    assert math.isnan(means.in_domain)
    assert math.isnan(means.cross_generator)


def test_a_detector_trained_on_several_generators_has_a_column_of_their_names() -> None:
    cells = ASYMMETRIC | {("lama+ldm", "lama"): 0.95, ("lama+ldm", "ldm"): 0.85, ("lama+ldm", "repaint"): 0.5}
    matrix = cross_generator_matrix(results(detection(cells)), "m")
    assert list(matrix.columns) == ["lama", "ldm", "repaint", "lama+ldm"]
    assert matrix["lama+ldm"].tolist() == [0.95, 0.85, 0.5]


def test_such_a_column_is_in_domain_for_each_generator_in_it() -> None:
    cells = {("lama+ldm", "lama"): 0.9, ("lama+ldm", "ldm"): 0.7, ("lama+ldm", "repaint"): 0.5}
    means = matrix_means(cross_generator_matrix(results(detection(cells)), "m"))
    assert (means.in_domain, means.cross_generator) == pytest.approx((0.8, 0.5))


def test_a_name_that_is_part_of_another_is_not_in_domain_for_it() -> None:
    cells = {("ldm", "ldm"): 0.9, ("ldm-v2", "ldm"): 0.5, ("ldm", "ldm-v2"): 0.5, ("ldm-v2", "ldm-v2"): 0.9}
    means = matrix_means(cross_generator_matrix(results(detection(cells)), "m"))
    assert (means.in_domain, means.cross_generator) == pytest.approx((0.9, 0.5))


def test_a_cell_is_the_mean_over_the_seeds() -> None:
    rows = [
        *detection(ASYMMETRIC, seed=0),
        *detection({place: value - 0.2 for place, value in ASYMMETRIC.items()}, seed=1),
        *detection({("lama", "lama"): 0.2}, seed=2),
    ]
    matrix = cross_generator_matrix(results(rows), "m")
    assert matrix.loc["lama", "lama"] == pytest.approx((0.9 + 0.7 + 0.2) / 3)
    assert matrix.loc["ldm", "lama"] == pytest.approx(0.5)


def test_other_methods_metrics_and_tasks_stay_out() -> None:
    rows = [
        *detection(ASYMMETRIC),
        *detection(dict.fromkeys(ASYMMETRIC, 0.1), metric="auroc"),
        *detection(dict.fromkeys(ASYMMETRIC, 0.1), method="n"),
        *detection(dict.fromkeys(ASYMMETRIC, 0.1), task="attribution"),
    ]
    assert cross_generator_matrix(results(rows), "m").loc["lama", "ldm"] == 0.7
    assert cross_generator_matrix(results(rows), "m", "auroc").eq(0.1).all(axis=None)


def test_the_order_of_the_results_does_not_matter() -> None:
    table = published_results()
    shuffled = table.iloc[np.random.default_rng(0).permutation(len(table))]
    for method in published.DETECTION:
        pd.testing.assert_frame_equal(
            cross_generator_matrix(shuffled, method), cross_generator_matrix(table, method), check_exact=True
        )


def test_published_generators_come_first_and_the_others_in_alphabetical_order() -> None:
    ordered = get_source("dolos").ordered
    assert ordered({"zeta", "pluralistic", "alpha", "ldm", "lama", "repaint"}) == [
        "lama", "ldm", "repaint", "pluralistic", "alpha", "zeta",
    ]  # fmt: skip
    assert ordered(set()) == []


def test_attribution_has_a_row_a_method_and_a_column_a_class() -> None:
    table = class_table(published_results(), "attribution", published.GENERATORS)
    assert list(table.columns) == ["overall", "real", *published.GENERATORS]
    assert list(table.index) == list(published.ATTRIBUTION)
    for method, classes in published.ATTRIBUTION.items():
        assert table.loc[method, "overall"] == published.OVERALL[method]
        assert table.loc[method, list(classes)].tolist() == list(classes.values())


def test_attribution_is_the_mean_over_the_seeds() -> None:
    rows = [row("m", "lama", "all", "accuracy", value, task="attribution", seed=value) for value in (0.5, 0.7)]
    assert class_table(results(rows), "attribution").loc["m", "overall"] == pytest.approx(0.6)


def test_a_class_that_is_missing_is_missing() -> None:
    rows = [row("m", "lama", "all", "accuracy", 0.5, task="attribution")]
    assert math.isnan(class_table(results(rows), "attribution").loc["m", "real"])


def test_a_method_without_attribution_has_no_row() -> None:
    rows = [*detection(ASYMMETRIC), row("n", "lama", "all", "accuracy", 0.5, task="attribution")]
    assert list(class_table(results(rows), "attribution").index) == ["n"]


# Without generators, and conditions ----------------------------------------------------------------------------------


def test_trained_without_generators_every_cell_is_unseen() -> None:
    cells = ASYMMETRIC | {("none", "lama"): 0.5, ("none", "ldm"): 0.4}
    matrix = cross_generator_matrix(results(detection(cells)), "m")
    assert list(matrix.columns) == ["none", "lama", "ldm"]
    assert in_domain_cells(matrix).tolist() == [[False, True, False], [False, False, True]]
    means = matrix_means(matrix)
    assert (means.in_domain, means.cross_generator) == pytest.approx((0.85, (0.6 + 0.7 + 0.5 + 0.4) / 4))


@pytest.mark.parametrize(
    ("trained_on", "named"),
    [
        (["none"], {"cross-generator mean": 0.5}),
        (["lama+ldm"], {"in-domain mean": 0.5}),
        (["lama"], {"in-domain mean": 0.5, "cross-generator mean": 0.5, "gap": 0.0}),
        (["none", "lama+ldm"], {"in-domain mean": 0.5, "cross-generator mean": 0.5, "gap": 0.0}),
    ],
)
def test_means_are_named_as_far_as_there_are_cells_for_them(trained_on: list[str], named: dict[str, float]) -> None:
    cells = {(trained, tested): 0.5 for trained in trained_on for tested in ("lama", "ldm")}
    matrix = cross_generator_matrix(results(detection(cells)), "m", planned=[])
    assert matrix_means(matrix).named(matrix) == named


def test_a_matrix_is_of_one_condition() -> None:
    lower = {place: value - 0.3 for place, value in ASYMMETRIC.items()}
    table = results([*detection(ASYMMETRIC), *detection(lower, condition="jpeg-75")])
    clean, jpeg = (cross_generator_matrix(table, "m", condition=name) for name in ("clean", "jpeg-75"))
    pd.testing.assert_frame_equal(jpeg, clean - 0.3)
    pd.testing.assert_frame_equal(cross_generator_matrix(table, "m"), clean)
    assert cross_generator_matrix(table, "m", condition="jpeg-50").isna().all(axis=None)


def test_rows_and_columns_come_in_the_order_of_the_corpus() -> None:
    cells = {(trained, tested): 0.5 for trained in ("c", "a", "b", "a+b") for tested in "abc"}
    matrix = cross_generator_matrix(results(detection(cells)), "m", generators=["b", "c", "a"], planned=[])
    assert (list(matrix.index), list(matrix.columns)) == (["b", "c", "a"], ["b", "c", "a", "a+b"])
