"""Bagging: the spread of models that saw different rows is a deviation.

Breiman, "Bagging Predictors", Machine Learning 1996.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nas.errors import ConfigError
from nas.predictor.protocol import Prediction, checked, not_fitted


class Bagged:
    """Ridge regressions, each on rows drawn with replacement.

    Args:
        members: how many.
        penalty: of the squared weights, against squared errors.
        seed: of the draws.
    """

    def __init__(self, members: int = 20, penalty: float = 1.0, seed: int = 0) -> None:
        if members < 2:
            raise ConfigError(f"bagged: members must be at least 2, got {members}")
        if not 0 < penalty < float("inf"):
            raise ConfigError(f"bagged: penalty must be above 0 and finite, got {penalty}")
        if seed < 0:
            raise ConfigError(f"bagged: seed must be zero or more, got {seed}")
        self.members = members
        self.penalty = penalty
        self.seed = seed
        self._weights: np.ndarray | None = None

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        rows, values = checked(inputs, targets)
        rng = np.random.default_rng([self.seed, len(rows)])
        weights = np.empty((rows.shape[1], self.members))
        self._bias = np.empty(self.members)
        for member in range(self.members):
            drawn = rng.integers(len(rows), size=len(rows))
            centre, mean = rows[drawn].mean(axis=0), values[drawn].mean()
            x, y = rows[drawn] - centre, values[drawn] - mean
            kernel = x @ x.T + self.penalty * np.eye(len(x))
            weights[:, member] = x.T @ np.linalg.solve(kernel, y)
            self._bias[member] = mean - centre @ weights[:, member]
        self._weights = weights

    def predict(self, inputs: ArrayLike) -> Prediction:
        if self._weights is None:
            raise not_fitted(self)
        rows = np.asarray(inputs, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self._weights):
            raise ConfigError(
                f"bagged: fitted to rows of {len(self._weights)} features, got {rows.shape}"
            )
        each = rows @ self._weights + self._bias
        return Prediction(each.mean(axis=1), each.std(axis=1, ddof=1))
