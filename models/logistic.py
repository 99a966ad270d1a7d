"""Logistic regression by L-BFGS on rows that stay in float32, in the arithmetic of float64.

The objective, the stopping rule and the steps are those of scikit-learn's `LogisticRegression`, which needs all rows in
float64: twice the memory of the rows. Here they become float64 block by block, standardised on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from models.detector import Rows

BLOCK = 2**19  # numbers that are float64 at once, so that they stay in the processor's cache
_LINE_SEARCH = 50  # steps at most, as in scikit-learn
_FLAT = 64 * float(np.finfo(float).eps)  # relative change of the objective at which L-BFGS stops, as in scikit-learn


def blocks(rows: Rows, width: int) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows in order: (which rows, float64 (n, width)), the same array each time."""
    step = max(1, BLOCK // max(1, width))
    block = np.empty((min(step, len(rows)), width))
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        found = rows[part] if isinstance(rows, np.ndarray) else rows[np.arange(part.start, part.stop)]
        np.copyto(block[: len(found)], found)
        yield part, block[: len(found)]


@dataclass
class Solution:
    """Decision functions.

    Attributes:
        coefficients: float64 (F, D); F is 1 for two classes, else C.
        intercept: float64 (F,).
        converged: whether L-BFGS stopped by itself.
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    converged: bool = True


class Objective:
    """Mean cross-entropy + l2 / 2 |W|^2 of standardised rows.

    Attributes:
        mean, scale: float64 (D,), what is taken from a row, and by what it is multiplied then. The scale of a constant
            feature is 0.
        longest: length of the longest standardised row.

    Args:
        rows: float32 (N, D).
        labels: int (N,).
        num_classes: C.
        constant: a feature counts as constant if its deviation is below this share of its largest absolute value.
    """

    def __init__(self, rows: np.ndarray, labels: np.ndarray, num_classes: int, *, constant: float) -> None:
        self._rows, self._labels, self._num_classes = rows, labels, num_classes
        self._num_functions = 1 if num_classes == 2 else num_classes
        width = rows.shape[1]
        total, largest, squares = np.zeros(width), np.zeros(width), np.zeros(width)
        for _, block in blocks(rows, width):
            total += block.sum(axis=0)
            np.maximum(largest, np.abs(block).max(axis=0), out=largest)
        self.mean = total / len(rows)
        for _, block in blocks(rows, width):
            block -= self.mean
            squares += np.einsum("nd,nd->d", block, block)
        deviation = np.sqrt(squares / len(rows))
        largest = np.maximum(largest, np.abs(self.mean))
        self.scale = np.divide(1.0, deviation, out=np.zeros(width), where=deviation > constant * largest)
        self.longest = max(float(np.einsum("nd,nd->n", block, block).max()) for _, block in self._standardised()) ** 0.5

    def _standardised(self) -> Iterator[tuple[slice, np.ndarray]]:
        for part, block in blocks(self._rows, self._rows.shape[1]):
            block -= self.mean
            block *= self.scale
            yield part, block

    def value_and_gradient(self, solution: Solution, l2: float) -> tuple[float, np.ndarray, np.ndarray]:
        """(the objective, its gradient by the coefficients (F, D), and by the intercept (F,))."""
        loss, by_coefficients = 0.0, np.zeros_like(solution.coefficients)
        by_intercept = np.zeros_like(solution.intercept)
        for part, block in self._standardised():
            scores = block @ solution.coefficients.T + solution.intercept
            more, excess = self._excess(scores, self._labels[part])
            loss += more
            by_coefficients += excess.T @ block
            by_intercept += excess.sum(axis=0)
        penalty = l2 / 2 * float(np.square(solution.coefficients).sum())
        count = len(self._rows)
        return loss / count + penalty, by_coefficients / count + l2 * solution.coefficients, by_intercept / count

    def _excess(self, scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        """(the sum of cross-entropies, and its gradient by the scores (n, F))."""
        if self._num_functions == 1:
            wanted = labels[:, None]
            return float((np.logaddexp(0, scores) - wanted * scores).sum()), expit(scores) - wanted
        scores = scores - scores.max(axis=1, keepdims=True)
        excess = np.exp(scores)
        total = excess.sum(axis=1, keepdims=True)
        index = np.arange(len(labels)), labels
        loss = float((np.log(total[:, 0]) - scores[index]).sum())
        excess /= total
        excess[index] -= 1
        return loss, excess

    def start(self) -> Solution:
        """All zero."""
        return Solution(np.zeros((self._num_functions, self._rows.shape[1])), np.zeros(self._num_functions))

    def minimise(self, start: Solution, l2: float, *, tolerance: float, max_iterations: int) -> Solution:
        """Go on from `start` until no entry of the gradient is above the tolerance."""
        shape = self._num_functions, self._rows.shape[1] + 1

        def unpacked(parameters: np.ndarray) -> Solution:
            table = parameters.reshape(shape, order="F")
            return Solution(np.ascontiguousarray(table[:, :-1]), table[:, -1].copy())

        def packed(coefficients: np.ndarray, intercept: np.ndarray) -> np.ndarray:
            return np.column_stack([coefficients, intercept]).ravel(order="F")

        def function(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            value, by_coefficients, by_intercept = self.value_and_gradient(unpacked(parameters), l2)
            return value, packed(by_coefficients, by_intercept)

        options = {"maxiter": max_iterations, "maxls": _LINE_SEARCH, "gtol": tolerance, "ftol": _FLAT}
        first = packed(start.coefficients, start.intercept)
        found = minimize(function, first, method="L-BFGS-B", jac=True, options=options)
        solution = unpacked(found.x)
        solution.converged = found.status == 0
        return solution

    def distance_bound(self, solution: Solution, l2: float) -> float:
        """How far a row's decision function can be from its value at the optimum, at most.

        The objective is strongly convex in the weights, so that they are at most |gradient| / l2 from the optimum.
        """
        _, gradient, _ = self.value_and_gradient(solution, l2)
        return self.longest * float(np.linalg.norm(gradient)) / l2

    def largest_difference(self, solution: Solution, other: Solution) -> float:
        """The largest absolute difference of two solutions' decision functions on the rows."""
        coefficients = solution.coefficients - other.coefficients
        intercept = solution.intercept - other.intercept
        found = (np.abs(block @ coefficients.T + intercept).max() for _, block in self._standardised())
        return float(max(found))
