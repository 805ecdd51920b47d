"""Logistic regression with a few features, fitted by Newton's method (Hastie et al. 2009, 4.4)."""

import math
from collections.abc import Sequence

from slipway.types import Record

STEPS = 25
RIDGE = 0.01
_FLAT = 1e-6  # a step this small changes nothing any more

Row = tuple[tuple[float, ...], bool, float]  # features, whether right, weight


class Logistic(Record, frozen=True, kw_only=True):
    """The probability is 1 / (1 + exp(-(weights · standardised features + bias)))."""

    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()  # the last one is the bias

    @classmethod
    def fitted(cls, rows: Sequence[Row]) -> "Logistic":
        """Return the fit of these rows; without rows, one that says 1/2 of everything."""
        if not rows:
            return cls()
        columns = list(zip(*(features for features, _, _ in rows), strict=True))
        means = tuple(sum(column) / len(column) for column in columns)
        scales = tuple(
            math.sqrt(sum((x - mean) ** 2 for x in column) / len(column)) or 1.0
            for column, mean in zip(columns, means, strict=True)
        )
        blank = cls(means=means, scales=scales, weights=(0.0,) * (len(means) + 1))
        inputs = [
            (blank._input(features), float(right), weight) for features, right, weight in rows
        ]
        weights = list(blank.weights)
        for _ in range(STEPS):
            step = _step(inputs, weights)
            weights = [w + s for w, s in zip(weights, step, strict=True)]
            if max(map(abs, step)) < _FLAT:
                break
        return cls(means=means, scales=scales, weights=tuple(weights))

    def _input(self, features: Sequence[float]) -> list[float]:
        scaled = zip(features, self.means, self.scales, strict=True)
        return [*((x - mean) / scale for x, mean, scale in scaled), 1.0]

    def probability(self, features: Sequence[float]) -> float:
        if not self.weights:
            return 0.5
        return _sigmoid(
            sum(w * x for w, x in zip(self.weights, self._input(features), strict=True))
        )


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, z))))


def _step(inputs: Sequence[tuple[list[float], float, float]], weights: list[float]) -> list[float]:
    """Return Newton's step: the Hessian's inverse times the gradient, with a ridge."""
    size = len(weights)
    gradient = [-RIDGE * w for w in weights]
    hessian = [[RIDGE * (i == j) for j in range(size)] for i in range(size)]
    for x, right, weight in inputs:
        p = _sigmoid(sum(w * each for w, each in zip(weights, x, strict=True)))
        error, curve = weight * (right - p), weight * p * (1 - p)
        for i in range(size):
            gradient[i] += error * x[i]
            scaled = curve * x[i]
            row = hessian[i]
            for j in range(i + 1):
                row[j] += scaled * x[j]
    for i in range(size):
        for j in range(i):
            hessian[j][i] = hessian[i][j]
    return _solved(hessian, gradient)


def _solved(matrix: list[list[float]], vector: list[float]) -> list[float]:
    """Solve a positive definite system by Gaussian elimination."""
    size = len(vector)
    for i in range(size):
        for j in range(i + 1, size):
            factor = matrix[j][i] / matrix[i][i]
            for k in range(i, size):
                matrix[j][k] -= factor * matrix[i][k]
            vector[j] -= factor * vector[i]
    for i in reversed(range(size)):
        known = sum(matrix[i][k] * vector[k] for k in range(i + 1, size))
        vector[i] = (vector[i] - known) / matrix[i][i]
    return vector
