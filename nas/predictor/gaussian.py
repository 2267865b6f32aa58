"""A Gaussian process with a squared exponential kernel.

On one-hot or path features the squared distance counts the places where two architectures differ,
so that the kernel is the exponential of the Hamming or of the path distance: the kernel on
architectures of White, Neiswanger & Savani (BANANAS, AAAI 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.errors import ConfigError
from nas.predictor.protocol import Floats, Prediction, checked, not_fitted


class GaussianProcess:
    """Regression with the kernel s²·exp(−|x − x′|² / 2ℓ²) and noise of variance s²·noise.

    Of the given length scales and noises those of the largest marginal likelihood are taken; the
    scale s² is the best one in closed form. Targets are centred. Time grows with the cube of the
    rows.

    Args:
        lengths: length scales, as multiples of the median distance of the fitted rows.
        noises: as multiples of s².
    """

    def __init__(
        self,
        lengths: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
        noises: Sequence[float] = (0.001, 0.03, 0.1, 0.3, 1.0),
    ) -> None:
        for name, values in (("lengths", lengths), ("noises", noises)):
            if not values or not all(0 < value < math.inf for value in values):
                raise ConfigError(
                    f"gaussian process: {name} must be above 0 and finite, got {tuple(values)}"
                )
        self.lengths = tuple(lengths)
        self.noises = tuple(noises)
        self._rows: Floats | None = None

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        rows, values = checked(inputs, targets)
        self._centre = float(values.mean())
        residual = values - self._centre
        n = len(rows)
        distances = _squared_distances(rows, rows)
        apart = distances[distances > 0]
        unit = float(np.sqrt(np.median(apart))) if len(apart) else 1.0
        best = -math.inf
        for length in self.lengths:
            kernel = np.exp(-0.5 * distances / (length * unit) ** 2)
            for noise in self.noises:
                lower = np.linalg.cholesky(kernel + noise * np.eye(n))
                white = np.linalg.solve(lower, residual)
                scale = max(float(white @ white) / n, 1e-12)
                evidence = -float(np.log(np.diag(lower)).sum()) - 0.5 * n * math.log(scale)
                if evidence > best:
                    best = evidence
                    self.length, self.noise, self.scale = length * unit, noise, scale
                    self._lower, self._white = lower, white
        self._rows = rows

    def predict(self, inputs: ArrayLike) -> Prediction:
        if self._rows is None:
            raise not_fitted(self)
        rows = np.asarray(inputs, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self._rows.shape[1]:
            raise ConfigError(
                f"gaussian process: fitted to rows of {self._rows.shape[1]} features, "
                f"got {rows.shape}"
            )
        cross = np.exp(-0.5 * _squared_distances(self._rows, rows) / self.length**2)
        along = np.linalg.solve(self._lower, cross)
        mean = self._centre + along.T @ self._white
        variance = np.maximum(1.0 - (along * along).sum(axis=0), 1e-12)
        return Prediction(mean, np.sqrt(self.scale * variance))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        if self._rows is None:
            raise not_fitted(self)
        return {
            "rows": self._rows,
            "lower": self._lower,
            "white": self._white,
            "numbers": np.array([self._centre, self.length, self.noise, self.scale]),
        }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._rows, self._lower, self._white = state["rows"], state["lower"], state["white"]
        self._centre, self.length, self.noise, self.scale = state["numbers"].tolist()


def _squared_distances(one: Floats, other: Floats) -> Floats:
    squares = (one * one).sum(axis=1)[:, None] + (other * other).sum(axis=1)[None]
    distances: Floats = np.maximum(squares - 2.0 * one @ other.T, 0.0)
    return distances
