"""Scores of "unknown", by hand and by what must not change them; and the choice of the number of neighbours."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf

from models.detector import Detector, Examples, FitSession, Prediction, Rows
from models.open_set import (
    MOST_PER_CLASS,
    NUM_NEIGHBOURS,
    UNKNOWN_SCORES,
    KnownClasses,
    choose_num_neighbours,
    energy_score,
    fit_known,
    knn_score,
    mahalanobis_score,
    softmax_score,
    unknown_scores,
)

SEEDS = st.integers(0, 2**32 - 1)


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def drawn(seed: int, count: int = 40, dimensions: int = 5) -> KnownClasses:
    """Three classes with a covariance that is not round."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    mixing = rng.normal(size=(dimensions, dimensions))
    embeddings = (rng.normal(size=(count, dimensions)) + 2 * labels[:, None]) @ mixing + 5
    return KnownClasses(embeddings.astype(np.float32), labels, 3)


# By hand -------------------------------------------------------------------------------------------------------------


def test_the_softmax_score_by_hand() -> None:
    logits = np.array([[0.0, 0.0], [np.log(3), 0.0], [0.0, np.log(3)], [0.0, np.log(2)]])
    assert softmax_score(logits) == pytest.approx([np.log(2), np.log(4 / 3), np.log(4 / 3), np.log(3 / 2)], abs=1e-15)


def test_the_softmax_score_still_orders_probabilities_that_round_to_1() -> None:
    surest, sure, unsure = softmax_score(np.array([[60.0, 0.0, 0.0], [50.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    assert 0 < surest < sure < unsure
    assert surest == pytest.approx(2 * np.exp(-60), rel=1e-12)


def test_the_energy_by_hand() -> None:
    logits = np.array([[0.0, 0.0], [np.log(3), 0.0], [np.log(3), np.log(5)], [1000.0, 1000.0]])
    assert energy_score(logits) == pytest.approx([-np.log(2), -np.log(4), -np.log(8), -1000 - np.log(2)], abs=1e-12)


def test_the_mahalanobis_distance_by_hand() -> None:
    """Classes {-3, -1} and {1, 3}: means -2 and 2, and a deviation of 1 within both."""
    known = KnownClasses(column(-3, -1, 1, 3), np.array([0, 0, 1, 1]))
    distances = mahalanobis_score(column(-2, 0, 2, 3, 7, -10), known)
    assert distances == pytest.approx([0, 2, 0, 1, 5, 8], abs=1e-6)


def test_the_covariance_is_within_the_classes_and_not_over_all() -> None:
    """The same classes further apart: what is 1 away from a mean stays 1 deviation away."""
    for apart in (2.0, 20.0, 200.0):
        known = KnownClasses(column(-apart - 1, -apart + 1, apart - 1, apart + 1), np.array([0, 0, 1, 1]))
        assert mahalanobis_score(column(apart + 1), known) == pytest.approx([1], abs=1e-4)


def test_the_mahalanobis_distance_is_that_of_scikit_learns_covariance() -> None:
    known, points = drawn(0), drawn(1).embeddings
    train = known.embeddings.astype(float)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scaled, means = (train - mean) / deviation, []
    centred = scaled.copy()
    for number in range(3):
        means.append(scaled[known.labels == number].mean(axis=0))
        centred[known.labels == number] -= means[-1]
    fitted = LedoitWolf(assume_centered=True).fit(centred)
    expected = [np.sqrt(fitted.mahalanobis((points - mean) / deviation - of_class)) for of_class in means]
    assert fitted.shrinkage_ > 0
    assert known.mahalanobis(points) == pytest.approx(np.min(expected, axis=0), rel=1e-9)


CORNERS = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=np.float32)  # mean 0 and deviation 1 in both dimensions


@pytest.mark.parametrize(("k", "distance"), [(1, 0.0), (2, np.sqrt(2)), (3, np.sqrt(2)), (4, 2.0), (50, 2.0)])
def test_the_distance_to_the_kth_neighbour_by_hand(k: int, distance: float) -> None:
    """Along a corner, however far out: the corner itself, its two neighbours, the opposite one."""
    known = KnownClasses(CORNERS, np.array([0, 0, 1, 1]), k)
    assert knn_score(np.array([[5.0, 5.0], [0.1, 0.1]]), known) == pytest.approx([distance] * 2, abs=1e-7)


def test_between_two_neighbours_by_hand() -> None:
    known = KnownClasses(CORNERS, np.array([0, 0, 1, 1]), 1)
    assert knn_score(np.array([[3.0, 0.0]]), known) == pytest.approx([np.sqrt(2 - np.sqrt(2))], abs=1e-7)


# What must not change a score ----------------------------------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=12)
def test_a_shift_of_all_logits_moves_the_energy_alone(seed: int) -> None:
    rng, known = np.random.default_rng(seed), drawn(3)
    logits, embeddings = rng.normal(size=(6, 4)), rng.normal(size=(6, 5))
    before = unknown_scores(logits, embeddings, known)
    after = unknown_scores(logits + 2.5, embeddings, known)
    for name in ("softmax", "mahalanobis", "knn"):
        np.testing.assert_allclose(after[name], before[name], atol=1e-12)
    np.testing.assert_allclose(after["energy"], before["energy"] - 2.5, atol=1e-12)


@given(SEEDS)
@settings(max_examples=12)
def test_the_order_of_images_and_of_classes_changes_no_score(seed: int) -> None:
    rng, known = np.random.default_rng(seed), drawn(4)
    logits, embeddings = rng.normal(size=(6, 4)), rng.normal(size=(6, 5))
    before = unknown_scores(logits, embeddings, known)
    images, train = rng.permutation(6), rng.permutation(len(known.labels))
    numbers = rng.permutation(3)
    turned = KnownClasses(known.embeddings[train], numbers[known.labels[train]], known.num_neighbours)
    after = unknown_scores(logits[images][:, rng.permutation(4)], embeddings[images], turned)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values[images], rtol=1e-6, atol=1e-7)


@given(SEEDS)
@settings(max_examples=12)
def test_the_units_of_the_dimensions_change_no_distance(seed: int) -> None:
    rng, known = np.random.default_rng(seed), drawn(5)
    points, scale, shift = rng.normal(size=(6, 5)), np.float32(2.0) ** rng.integers(-3, 4, 5), rng.integers(-4, 5, 5)
    moved = KnownClasses((known.embeddings * scale + shift).astype(np.float32), known.labels, known.num_neighbours)
    for name in ("mahalanobis", "knn"):
        values = UNKNOWN_SCORES[name].values
        logits = np.zeros((6, 2))
        np.testing.assert_allclose(
            values(logits, points * scale + shift, moved), values(logits, points, known), rtol=1e-3, atol=1e-4
        )


def test_far_away_every_distance_is_larger_and_an_unsure_answer_has_the_higher_scores() -> None:
    known = drawn(6)
    near, far = known.embeddings[:1], known.embeddings[:1] * -30
    sure, unsure = np.array([[9.0, 0.0, 0.0]]), np.array([[0.1, 0.0, 0.0]])
    known_image, unknown_image = unknown_scores(sure, near, known), unknown_scores(unsure, far, known)
    assert all(unknown_image[name] > known_image[name] for name in UNKNOWN_SCORES)


def test_a_dimension_without_variance_does_not_count() -> None:
    known, points = drawn(7), drawn(8).embeddings
    constant = np.full((len(points), 1), 3, dtype=np.float32)
    more = KnownClasses(np.hstack([known.embeddings, constant]), known.labels, known.num_neighbours)
    elsewhere = np.hstack([points, constant + 1])
    np.testing.assert_allclose(more.mahalanobis(elsewhere), more.mahalanobis(np.hstack([points, constant])))
    np.testing.assert_allclose(knn_score(elsewhere, more), knn_score(points, known), atol=1e-7)


def test_more_dimensions_than_images_have_finite_distances() -> None:
    distances = drawn(9, count=12, dimensions=30).mahalanobis(drawn(10, count=8, dimensions=30).embeddings)
    assert np.isfinite(distances).all()
    assert (distances > 0).all()


# Errors, and the file ------------------------------------------------------------------------------------------------


def test_embeddings_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\), expected \(N, 5\)"):
        drawn(0).mahalanobis(np.zeros((2, 3)))


def test_classes_that_are_points_have_no_distance_in_deviations() -> None:
    with pytest.raises(ValueError, match="all training embeddings of each class are equal"):
        KnownClasses(column(1, 1, 2, 2), np.array([0, 0, 1, 1])).mahalanobis(column(1))


def test_one_training_image_per_class_is_said() -> None:
    with pytest.raises(ValueError, match=r"each class has one training image, .* take more training images"):
        KnownClasses(column(1, 2, 3), np.array([0, 1, 2])).mahalanobis(column(1))


def test_from_its_file_it_gives_the_same_scores(tmp_path: Path) -> None:
    known, points = drawn(11), drawn(12).embeddings
    known.save(tmp_path / "known.npz")
    again = KnownClasses.load(tmp_path / "known.npz")
    assert again.num_neighbours == 3
    for name, score in UNKNOWN_SCORES.items():
        logits = points[:, :3]
        np.testing.assert_array_equal(score.values(logits, points, again), score.values(logits, points, known), name)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "known.npz"
    drawn(0).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"known\.npz is damaged"):
        KnownClasses.load(path)
    np.savez(path, embeddings=np.zeros((3, 2)), labels=np.zeros(2), num_neighbours=1)
    with pytest.raises(ValueError, match=r"known\.npz is damaged: its arrays do not fit together"):
        KnownClasses.load(path)
    with pytest.raises(FileNotFoundError):
        KnownClasses.load(tmp_path / "other.npz")


# Fitting -------------------------------------------------------------------------------------------------------------


class Itself(Detector):
    """Its embeddings are its inputs."""

    classes = ("real", "a", "b")
    geometry = None

    def __init__(self) -> None:
        self.num_seen: list[int] = []

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None: ...

    def predict(self, inputs: Rows) -> Prediction:
        self.num_seen.append(len(inputs))
        rows = np.concatenate([inputs[np.arange(start, start + 1)] for start in range(len(inputs))])
        return Prediction(np.zeros((len(rows), 3), dtype=np.float32), rows)

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


def examples(*counts: int, seed: int = 0) -> Examples:
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.random.default_rng(seed).normal(size=(len(labels), 4)) + labels[:, None]
    return Examples(rows.astype(np.float32), labels)


def test_of_a_large_class_some_images_are_kept_and_of_a_small_one_all() -> None:
    train, detector = examples(MOST_PER_CLASS + 40, 7, 3), Itself()
    known = fit_known(detector, train, examples(4, 4, 4, seed=1))
    assert np.bincount(known.labels).tolist() == [MOST_PER_CLASS, 7, 3]
    assert detector.num_seen == [MOST_PER_CLASS + 10, 12]
    rows = {row.tobytes(): label for row, label in zip(train.inputs[:], train.labels, strict=True)}  # type: ignore[index]
    assert [rows[row.tobytes()] for row in known.embeddings] == known.labels.tolist()
    again = fit_known(Itself(), train, examples(4, 4, 4, seed=1))
    np.testing.assert_array_equal(again.embeddings, known.embeddings)


def test_embeddings_that_are_not_finite_are_refused() -> None:
    bad = examples(3, 3, 3)
    bad.inputs[4] = np.nan  # type: ignore[index]
    with pytest.raises(ValueError, match="some embeddings are not finite"):
        fit_known(Itself(), bad, examples(2, 2, 2))


def test_of_equally_good_numbers_the_fewest_neighbours_count() -> None:
    angles = np.repeat([0.0, 2.0, 4.0], 30)
    labels = np.repeat([0, 1, 2], 30)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) + np.random.default_rng(0).normal(0, 0.01, (90, 2))
    assert choose_num_neighbours(points, labels, points, labels) == 1


def test_a_few_odd_training_images_ask_for_more_neighbours() -> None:
    """Two real photographs look like generator 1, two like generator 2; so the nearest neighbour knows no unknown."""
    rng, labels = np.random.default_rng(0), np.repeat([0, 1, 2], 30)
    angles = np.repeat([0.0, 2.0, 4.0], 30) + rng.normal(0, 0.05, 90)
    odd = angles.copy()
    odd[:4] = [2.0, 2.01, 4.0, 4.01]
    train, valid = (np.stack([np.cos(turn), np.sin(turn)], axis=1) for turn in (odd, angles))
    chosen = choose_num_neighbours(train, labels, valid, labels)
    assert chosen in NUM_NEIGHBOURS
    assert chosen > 2


def test_without_validation_images_of_a_generator_the_nearest_counts_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    train, valid = examples(5, 5, 5), examples(4)
    with caplog.at_level(logging.WARNING):
        assert choose_num_neighbours(train.inputs[:], train.labels, valid.inputs[:], valid.labels) == 1  # type: ignore[index]
    assert "no validation image of a generator" in caplog.text


def test_two_scores_are_distances_and_each_names_its_source() -> None:
    assert [name for name, score in UNKNOWN_SCORES.items() if score.is_distance] == ["mahalanobis", "knn"]
    for function in (softmax_score, energy_score, mahalanobis_score, knn_score):
        assert "arXiv" in (function.__doc__ or "")
