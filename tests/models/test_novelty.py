"""How far a picture lies from the training images, against scikit-learn and against answers by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.covariance import LedoitWolf

from models.novelty import Novelty, fit_novelty, limit_of


def embeddings(num: int, seed: int = 0) -> np.ndarray:
    """(N, 6) with correlations and very different deviations; the last dimension is constant."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(num, 5)) @ np.random.default_rng(99).normal(size=(5, 5)) * [1, 10, 0.1, 1, 100] + 7
    return np.column_stack([mixed, np.full(num, 3.0)])


@pytest.mark.parametrize("num", [4, 200])  # fewer images than dimensions, and more
def test_distances_are_those_of_ledoit_and_wolf(num: int) -> None:
    train, valid = embeddings(num), embeddings(40, seed=1)
    novelty = fit_novelty(train, valid, np.arange(40))
    scaled = (train[:, :5] - train[:, :5].mean(axis=0)) / train[:, :5].std(axis=0)
    reference = LedoitWolf(assume_centered=True).fit(scaled)
    expected = reference.mahalanobis((valid[:, :5] - train[:, :5].mean(axis=0)) / train[:, :5].std(axis=0))
    np.testing.assert_allclose(novelty.distances(valid), np.sqrt(expected), rtol=0.01)  # components have 16 bits
    assert novelty.facts["shrinkage"] == pytest.approx(reference.shrinkage_)


def test_the_limit_of_few_images_by_hand() -> None:
    """Logarithms of distances with median 0 and quartiles ±.6745: a normal distribution of deviation 1."""
    distances = np.exp(np.array([-2, -norm.ppf(0.75), 0, norm.ppf(0.75), 2]))
    limit, words = limit_of(distances, 5)
    assert np.log(limit) == pytest.approx(t.ppf(0.995, 4) * np.sqrt(1.2))
    assert (
        words == "99.5 % of a log-normal distribution fitted to the quartiles of 5 validation images of 5 photographs"
    )


def test_two_looks_share_what_may_be_beyond() -> None:
    distances = np.exp(np.array([-2, -norm.ppf(0.75), 0, norm.ppf(0.75), 2]))
    limit, words = limit_of(distances, 5, num_looks=2)
    assert np.log(limit) == pytest.approx(t.ppf(0.9975, 4) * np.sqrt(1.2))
    assert words.startswith("99.75 % of a log-normal")
    assert limit_of(np.arange(1.0, 1002.0), 10, num_looks=2)[0] == pytest.approx(998.5)


def test_one_odd_photograph_does_not_move_the_limit() -> None:
    distances = np.exp(np.random.default_rng(0).normal(0, 0.2, 15))
    odd = distances.copy()
    odd[odd.argmax()] = 1000
    assert limit_of(odd, 15)[0] == limit_of(distances, 15)[0]


def test_the_limit_of_many_images_is_counted() -> None:
    distances = np.arange(1.0, 1002.0)
    limit, words = limit_of(distances, 10)
    assert limit == pytest.approx(996)  # 995 of the 1000 steps from 1 to 1001
    assert words == "99.5 % quantile of 1001 validation images"


def test_images_under_several_conditions_do_not_count_several_times() -> None:
    """15 images under 40 conditions are 600 distances, and too few images for the quantile to be counted."""
    train, valid = embeddings(300), np.tile(embeddings(15, seed=1), (40, 1))
    novelty = fit_novelty(train, valid, np.tile(np.arange(15), 40), num_images=15)
    assert novelty.facts["num_valid"] == 15
    assert novelty.facts["fitted"] == (
        "99.5 % of a log-normal distribution fitted to the quartiles of 15 validation images of 15 photographs"
    )
    assert novelty.limit == limit_of(novelty.distances(valid), 15, num_images=15)[0]
    assert "quantile of 600" in fit_novelty(train, valid, np.tile(np.arange(15), 40)).facts["fitted"]


def test_pictures_under_many_conditions_are_no_more_pictures() -> None:
    distances = np.exp(np.array([-2, -norm.ppf(0.75), 0, norm.ppf(0.75), 2]))
    again = limit_of(np.repeat(distances, 100), 5, num_images=5)
    assert again[1] == limit_of(distances, 5)[1]
    assert again[0] == pytest.approx(limit_of(distances, 5)[0], rel=1e-2)


@pytest.mark.parametrize("num_valid", [60, 600])
def test_of_pictures_alike_about_one_in_200_is_beyond_the_limit(num_valid: int) -> None:
    novelty = fit_novelty(embeddings(300), embeddings(num_valid, seed=1), np.arange(num_valid))
    new = embeddings(20_000, seed=2)
    assert (novelty.ratios(new) > 1).mean() < 0.012
    assert (novelty.ratios(new + np.array([0, 0, 0.5, 0, 0, 0])) > 1).mean() > 0.2


def test_a_file_gives_the_same_distances(tmp_path: Path) -> None:
    novelty = fit_novelty(embeddings(50), embeddings(20, seed=1), np.arange(20))
    novelty.save(tmp_path / "novelty.npz")
    loaded = Novelty.load(tmp_path / "novelty.npz")
    np.testing.assert_array_equal(loaded.ratios(embeddings(5, seed=3)), novelty.ratios(embeddings(5, seed=3)))
    assert loaded.facts == novelty.facts
    (tmp_path / "novelty.npz").write_bytes((tmp_path / "novelty.npz").read_bytes()[:100])
    with pytest.raises((ValueError, OSError)):
        Novelty.load(tmp_path / "novelty.npz")


@pytest.mark.parametrize(
    ("train", "valid", "photographs", "message"),
    [
        (embeddings(1), embeddings(4), np.arange(4), "1 training images and 4 validation photographs are too few"),
        (embeddings(4), embeddings(4), np.zeros(4), "4 training images and 1 validation photographs are too few"),
        (np.ones((4, 2)), np.ones((4, 2)), np.arange(4), "all training embeddings are equal"),
        (np.full((4, 2), np.nan), np.ones((4, 2)), np.arange(4), "not finite"),
    ],
)
def test_what_says_nothing_is_refused(
    train: np.ndarray, valid: np.ndarray, photographs: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_novelty(train, valid, photographs)


def test_another_detectors_embeddings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 6\)"):
        fit_novelty(embeddings(9), embeddings(9), np.arange(9)).distances(np.ones((2, 5)))
