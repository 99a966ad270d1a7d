"""Numbers beside the pictures, against answers by hand: calibration, confusion, how classes part."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.special import logit
from sklearn.manifold import TSNE
from sklearn.metrics import roc_curve, silhouette_score

from analysis.cells import attribution_with_intervals, cell_table
from analysis.curves import calibration_table
from analysis.embeddings import EmbeddingError, project, separation
from analysis.figures.attribution import confusion_figure
from analysis.figures.curves import (
    MOST_POINTS,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    score_figure,
    thinned,
)
from analysis.figures.embeddings import embedding_figure
from grid.confusion import confusion_table
from grid.samples import drawn_images
from models.calibration import expected_calibration_error, reliability
from tests.analysis.scored import Scored


def test_calibration_error_by_hand() -> None:
    # two bins: three images at 0.25 of which one is fake, one image at 0.75 which is fake
    labels, scores = np.array([0, 0, 1, 1]), logit(np.array([0.25, 0.25, 0.25, 0.75]))
    bins = reliability(labels, scores, num_bins=2)
    assert bins["num_images"].tolist() == [3, 1]
    assert bins["fake"].tolist() == pytest.approx([1 / 3, 1])
    expected = 3 / 4 * abs(1 / 3 - 0.25) + 1 / 4 * abs(1 - 0.75)
    assert expected_calibration_error(labels, scores, num_bins=2) == pytest.approx(expected)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not() -> None:
    labels = np.array([0, 1])
    assert expected_calibration_error(labels, np.array([-50.0, 50.0])) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(labels, np.array([50.0, -50.0])) == pytest.approx(1)


def detection_scores() -> pd.DataFrame:
    rows = [("real", 0, -2.0), ("real", 0, 0.5), ("lama", 1, 1.0), ("lama", 1, -1.0), ("ldm", 1, 2.0), ("ldm", 1, 3.0)]
    table = pd.DataFrame(rows, columns=["generator", "label", "score"])
    return table.assign(source_id=["a", "b", "a", "b", "a", "b"], trained_on="lama", seed=0)


def test_curves_end_where_they_must() -> None:
    scores = detection_scores().iloc[:4]
    _, roc = (line.get_xydata() for line in roc_figure(scores, title="m").axes[0].lines)  # the first is the diagonal
    assert roc[0].tolist() == [0, 0]
    assert roc[-1].tolist() == [1, 1]
    curve, guessing = (line.get_xydata() for line in precision_recall_figure(scores, title="m").axes[0].lines)
    assert curve[curve[:, 0] == 1, 1].min() == pytest.approx(0.5)
    assert set(guessing[:, 1]) == {0.5}
    table = calibration_table(detection_scores())
    assert table[["trained_on", "tested_on"]].to_numpy().tolist() == [["lama", "lama"], ["lama", "ldm"]]


@pytest.mark.parametrize("figure", [roc_figure, precision_recall_figure, reliability_figure, score_figure])
def test_curves_are_drawn_with_their_title(figure) -> None:
    drawn = figure(detection_scores(), title="a method")
    texts = [drawn.get_suptitle(), *(axes.get_title() for axes in drawn.axes)]
    assert any("a method" in text for text in texts)


def attribution_scores() -> pd.DataFrame:
    truth = ["real", "real", "lama", "lama", "ldm", "ldm"]
    called = ["real", "lama", "lama", "lama", "real", "ldm"]
    table = pd.DataFrame({"generator": truth, "label": [int(name != "real") for name in truth]})
    table["source_id"] = ["a", "b", "a", "b", "a", "b"]
    for name in ("real", "lama", "ldm"):
        table[f"logit_{name}"] = [1.0 if one == name else 0.0 for one in called]
    return table


def test_confusion_and_accuracy_by_hand() -> None:
    counts = confusion_table(attribution_scores())
    assert counts.loc["real"].to_dict() == {"real": 1, "lama": 1, "ldm": 0}
    assert counts.loc["ldm"].to_dict() == {"real": 1, "lama": 0, "ldm": 1}
    metrics = ["accuracy", "accuracy/real", "accuracy/lama", "accuracy/ldm"]
    store = Scored({"m": [attribution_scores()]}, *metrics)
    cells = cell_table(store)  # type: ignore[arg-type]
    found = attribution_with_intervals(store, cells).set_index("class")  # type: ignore[arg-type]
    assert found["mean"].to_dict() == pytest.approx({"overall": 4 / 6, "real": 0.5, "lama": 1.0, "ldm": 0.5})
    # both right: the exact binomial interval of two of two
    assert found.loc["lama", ["low", "high"]].tolist() == pytest.approx([0.025**0.5, 1])
    assert confusion_figure(counts, title="a method").axes


def test_purity_and_silhouette_by_hand() -> None:
    apart = np.array([[0.0, 0], [0, 1], [10, 0], [10, 1]])
    classes, sources = np.array(["real", "real", "lama", "lama"]), np.arange(4)
    found = separation(apart, classes, sources, num_neighbours=1)
    assert found.purity == 1
    assert found.chance == pytest.approx(1 / 3)
    far = (10 + np.sqrt(101)) / 2
    assert found.silhouette == pytest.approx(1 - 1 / far, abs=1e-6)
    assert separation(apart, classes[[0, 2, 1, 3]], sources, num_neighbours=1).purity == 0


def test_versions_of_one_photograph_are_not_compared() -> None:
    # on a line: real a 0, fake a 1, real b 10, fake b 12, real c 30; the nearest image is the other version each time
    line = np.array([[0.0], [1], [10], [12], [30]])
    classes, sources = np.array(["real", "fake", "real", "fake", "real"]), np.array(["a", "a", "b", "b", "c"])
    found = separation(line, classes, sources, num_neighbours=1)
    # nearest of other photographs: real b, real b, fake a, fake a, fake b
    assert found.purity == pytest.approx(2 / 5)
    # own class among the images of other photographs: 2 of 3, 1 of 3, 2 of 3, 1 of 3, 2 of 4
    assert found.chance == pytest.approx((2 / 3 + 1 / 3 + 2 / 3 + 1 / 3 + 2 / 4) / 5)
    # mean distances: real a 20 and 12; fake a 11 and 19; real b 15 and 9; fake b 11 and 15; real c 25 and 23.5
    silhouettes = [12 / 20 - 1, 1 - 11 / 19, 9 / 15 - 1, 1 - 11 / 15, 23.5 / 25 - 1]
    assert found.silhouette == pytest.approx(np.mean(silhouettes), abs=1e-6)


def test_classes_that_part_no_photographs_have_the_purity_of_chance() -> None:
    rng = np.random.default_rng(0)
    photographs = np.repeat(rng.normal(size=(60, 8)), 5, axis=0)
    versions = photographs + 0.01 * rng.normal(size=photographs.shape)  # five versions of each, in five classes
    classes, sources = np.tile(list("abcde"), 60), np.repeat(np.arange(60), 5)
    found = separation(versions, classes, sources)
    assert found.chance == pytest.approx(59 / (59 * 5))
    assert found.purity == pytest.approx(found.chance, abs=0.02)
    assert found.silhouette == pytest.approx(0, abs=0.01)
    # without the exclusion, each image's own versions, all of other classes, are its nearest neighbours
    assert separation(versions, classes, np.arange(300), num_neighbours=4).purity == 0


def test_without_versions_the_silhouette_is_that_of_scikit_learn() -> None:
    points = np.random.default_rng(0).normal(size=(70, 6))
    classes = np.array(["a", "b", "b", "c", "c", "c", "c"] * 10)
    expected = silhouette_score(points, classes)
    assert separation(points, classes, np.arange(70)).silhouette == pytest.approx(expected, abs=1e-6)


def test_a_class_of_one_photograph_alone_has_no_silhouette_and_one_photograph_nothing_to_compare() -> None:
    points, classes = np.array([[0.0], [1], [5], [7]]), np.array(["a", "a", "b", "b"])
    found = separation(points, classes, np.array([0, 0, 1, 1]))
    assert (found.silhouette, found.purity, found.chance, found.num_neighbours) == (0, 0, 0, 2)
    with pytest.raises(EmbeddingError, match="one photograph"):
        separation(points, classes, np.zeros(4))


def test_the_same_embeddings_lie_in_the_same_places_and_say_how_they_were_laid() -> None:
    embeddings = np.random.default_rng(0).normal(size=(40, 60)).astype(np.float16)
    first, second = project(embeddings, num_iterations=250), project(embeddings, num_iterations=250)
    np.testing.assert_array_equal(first.points, second.points)
    assert first.points.shape == (40, 2)
    assert first.note.startswith("PCA from 60 to 40 dimensions first, which keeps 100% of the variance; ")
    assert first.note.endswith("; perplexity 13, angle 0.8, 250 iterations, seed 0")  # no KL divergence, see `project`
    finer = TSNE(perplexity=13, angle=0.5, max_iter=250, init="pca", random_state=0)
    coarse = TSNE(perplexity=13, angle=0.8, max_iter=250, init="pca", random_state=0)
    narrow = embeddings[:, :20]  # needs no PCA
    points = project(narrow, num_iterations=250).points
    np.testing.assert_allclose(points, coarse.fit_transform(narrow.astype(np.float32)), rtol=1e-3, atol=1e-3)
    assert not np.allclose(points, finer.fit_transform(narrow.astype(np.float32)), rtol=1e-3, atol=1e-3)
    with pytest.raises(EmbeddingError, match="not finite"):
        project(np.full((10, 3), np.nan))


def test_a_picture_of_embeddings_has_classes_in_order_beside_it_and_clear_of_a_long_title() -> None:
    embeddings = np.random.default_rng(0).normal(size=(40, 3))
    classes = np.array(["zeta", "real", "lama", "ldm"] * 10)
    projection, apart = project(embeddings), separation(embeddings, classes, np.arange(40))
    title = "a method with a long name [weights from somewhere]: t-SNE of 40 test embeddings"
    figure = embedding_figure(projection, classes, title=title, separation=apart, order=["real", "ldm", "lama"])
    (legend,) = (axes.get_legend() for axes in figure.axes)
    assert [text.get_text() for text in legend.get_texts()] == ["real (10)", "ldm (10)", "lama (10)", "zeta (10)"]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (heading,) = (text for text in figure.texts if " ".join(text.get_text().split()) == title)
    above, beside = heading.get_window_extent(), legend.get_window_extent()
    assert not above.overlaps(beside)
    assert not figure.axes[0].get_window_extent().overlaps(beside)


def test_a_long_curve_is_drawn_with_few_points_and_without_a_visible_change() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 4000)
    scores = pd.DataFrame(
        {"generator": np.where(labels == 1, "lama", "real"), "label": labels, "score": random.normal(labels, 1.0),
         "trained_on": "lama", "seed": 0}
    )  # fmt: skip
    _, drawn = (line.get_xydata() for line in roc_figure(scores, title="m").axes[0].lines)
    across, up, _ = roc_curve(labels, scores["score"])
    assert len(drawn) <= MOST_POINTS < len(across)
    assert (drawn[0], drawn[-1]) == (pytest.approx([0, 0]), pytest.approx([1, 1]))
    assert np.abs(np.interp(across + up, drawn.sum(axis=1), drawn[:, 1]) - up).max() < 0.005  # a pixel of 2.7 inches


def test_a_short_curve_keeps_all_its_points() -> None:
    across = np.linspace(0, 1, MOST_POINTS)
    assert thinned(across, across**2) == (pytest.approx(across), pytest.approx(across**2))


def test_of_many_images_a_projection_shows_a_sample_with_the_shares_of_all_classes() -> None:
    classes = np.array(["real"] * 600 + ["lama"] * 300 + ["ldm"] * 3)
    chosen = drawn_images(classes, most=300)
    names, counts = np.unique(classes[chosen], return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"lama": 100, "ldm": 1, "real": 199}
    assert np.array_equal(chosen, np.unique(chosen))
    assert np.array_equal(chosen, drawn_images(classes, most=300))
    assert np.array_equal(drawn_images(classes), np.arange(903))
