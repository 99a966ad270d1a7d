"""The solver on float32 rows against scikit-learn's on float64 rows, with rows in one block and in many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import models.linear
import models.logistic
from models.configs import ProbeConfig
from models.detector import Examples, FitSession
from models.linear import LinearDetector
from models.logistic import Objective, Solution, blocks
from tests.models.test_linear import Given, blobs

NUM, WIDTH = 300, 9


@pytest.fixture(params=[2**19, 40], ids=["one block", "many blocks"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.logistic, "BLOCK", request.param)


def data(num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    part = blobs(NUM, WIDTH, num_classes, seed=seed, spread=2.0)
    rows = np.asarray(part.inputs[np.arange(NUM)], np.float32) * np.float32(3) + np.float32(50)
    return rows, part.labels


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_decision_functions_are_scikit_learns(num_classes: int) -> None:
    rows, labels = data(num_classes)
    objective = Objective(rows, labels, num_classes, constant=1e-6)
    exact = rows.astype(np.float64)
    standard = (exact - exact.mean(axis=0)) / exact.std(axis=0)
    np.testing.assert_allclose(objective.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(objective.scale, 1 / exact.std(axis=0), rtol=1e-9)
    assert objective.longest == pytest.approx(np.linalg.norm(standard, axis=1).max())
    start = objective.start()
    for l2 in (0.1, 0.001):
        model = LogisticRegression(C=1 / (l2 * NUM), tol=1e-5, max_iter=1000).fit(standard, labels)
        found = objective.minimise(objective.start(), l2, tolerance=1e-5, max_iterations=1000)
        assert found.converged
        np.testing.assert_allclose(
            standard @ found.coefficients.T + found.intercept,
            model.decision_function(standard).reshape(NUM, -1),
            atol=1e-4,
        )
        start = objective.minimise(start, l2, tolerance=1e-9, max_iterations=1000)
    assert objective.distance_bound(start, 0.001) < 1e-3
    assert not objective.minimise(objective.start(), 1e-4, tolerance=1e-9, max_iterations=1).converged


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_gradient_is_that_of_the_objective(num_classes: int) -> None:
    rows, labels = data(num_classes)
    objective = Objective(rows, labels, num_classes, constant=1e-6)
    rng = np.random.default_rng(1)
    num_functions = len(objective.start().intercept)
    at = Solution(rng.normal(size=(num_functions, WIDTH)), rng.normal(size=num_functions))
    by = Solution(rng.normal(size=(num_functions, WIDTH)), rng.normal(size=num_functions))
    _, coefficients, intercept = objective.value_and_gradient(at, 0.3)
    step = 1e-6
    values = [
        objective.value_and_gradient(
            Solution(at.coefficients + sign * step * by.coefficients, at.intercept + sign * step * by.intercept), 0.3
        )[0]
        for sign in (1, -1)
    ]
    wanted = (coefficients * by.coefficients).sum() + (intercept * by.intercept).sum()
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(wanted, rel=1e-6)


def test_blocks_are_the_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.logistic, "BLOCK", 4 * WIDTH)
    rows, _ = data(2)
    parts = [(part.start, part.stop, block.copy()) for part, block in blocks(rows, WIDTH)]
    assert [(start, stop) for start, stop, _ in parts] == [(start, start + 4) for start in range(0, NUM, 4)]
    np.testing.assert_array_equal(np.concatenate([block for _, _, block in parts]), rows)


class Counting:
    """Rows of a store, which say how many were read at once."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape, self.most = rows, rows.shape, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        found = self.rows[index]
        self.most = max(self.most, len(found))
        return found


@pytest.mark.parametrize("num_classes", [2, 3])
def test_adam_reads_many_features_in_batches_with_the_same_result(
    num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = data(num_classes)
    logits, most, told = [], [], []
    for held in (2**40, 0):
        monkeypatch.setattr(models.linear, "HELD", held)
        monkeypatch.setattr(models.linear, "ROWS_AT_ONCE", 50)
        monkeypatch.setattr(models.logistic, "BLOCK", 50 * WIDTH)
        encoder: Any = Given(WIDTH)
        config = ProbeConfig(solver="adam", learning_rate=0.01, epochs=3, batch_size=16)
        probe = LinearDetector(encoder, tuple("abcd"[:num_classes]), config, weights_note="none", seed=3)
        train = Counting(rows)
        metrics: list[dict[str, float]] = []
        session = FitSession(on_epoch=lambda epoch, found, metrics=metrics: metrics.append(found))  # type: ignore[misc]
        probe.fit(Examples(train, labels), Examples(Counting(rows), labels), session)
        logits.append(probe.predict(rows).logits)
        most.append(train.most)
        told.append(metrics)
    np.testing.assert_array_equal(*logits)
    assert told[0] == told[1]
    assert most == [50, 50]
