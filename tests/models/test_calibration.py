"""The temperature from the validation split, against answers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration import expected_calibration_error, fit_temperature


def test_a_temperature_with_a_known_optimum() -> None:
    """At log-odds ±1, 3 of 4 images are right, so the calibrated log-odds are ±ln 3 and the temperature is 1 / ln 3."""
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    scores = np.array([-1.0, -1, -1, -1, 1, 1, 1, 1])
    fitted = fit_temperature(labels, scores)
    assert fitted.value == pytest.approx(1 / np.log(3), abs=1e-6)
    assert fitted.ece_before == pytest.approx(0.75 - 1 / (1 + np.exp(-1)))
    assert fitted.ece_after == pytest.approx(0, abs=1e-6)
    assert (fitted.num_images, fitted.note) == (8, "")
    assert fitted.calibrated(scores)[4:] == pytest.approx(np.log(3), abs=1e-6)


@pytest.mark.parametrize("factor", [3.0, 0.5])
def test_scores_that_are_too_large_or_too_small_are_divided_by_as_much(factor: float) -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 2, 100_000)
    labels = (rng.random(100_000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    fitted = fit_temperature(labels, factor * log_odds)
    assert fitted.value == pytest.approx(factor, rel=0.01)
    assert fitted.ece_after < 0.01 < fitted.ece_before


@pytest.mark.parametrize("seed", range(30))
def test_its_calibration_error_is_never_above_that_of_the_detector(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1], rng.integers(0, 2, 28)])
    scores = rng.normal(rng.uniform(-1, 3) * (labels - 0.5), rng.uniform(0.1, 3))
    fitted = fit_temperature(labels, scores)
    assert fitted.ece_before == expected_calibration_error(labels, scores)
    assert fitted.ece_after == expected_calibration_error(labels, fitted.calibrated(scores)) <= fitted.ece_before
    assert (fitted.value == 1) == bool(fitted.note)


@pytest.mark.parametrize(
    ("scores", "note"),
    [
        ([-1.0, -2.0, 3.0, 1.0], "no validation image is on the wrong side of p = 0.5"),
        ([1.0, 2.0, -3.0, -1.0], "the best temperature would be infinite"),
        ([0.0, 0.0, 0.0, 0.0], "no validation image is on the wrong side of p = 0.5"),
    ],
)
def test_without_an_optimum_it_stays_1_and_says_so(scores: list[float], note: str) -> None:
    fitted = fit_temperature(np.array([0, 0, 1, 1]), np.array(scores))
    assert fitted.value == 1
    assert note in fitted.note
    assert fitted.ece_after == fitted.ece_before


def test_a_class_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="both real"):
        fit_temperature(np.array([0, 0]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="not finite"):
        fit_temperature(np.array([0, 1]), np.array([1.0, np.nan]))
