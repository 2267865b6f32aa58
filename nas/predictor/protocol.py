"""What every surrogate model offers, and the checks they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.errors import ConfigError, UnsupportedRequest

Floats = NDArray[np.float64]


class Prediction(NamedTuple):
    """Of each row: the expected target, and the standard deviation of that expectation.

    The deviation is what the model does not know of the function; noise of a single measurement
    is not in it.
    """

    mean: Floats
    std: Floats


class Predictor(Protocol):
    """A surrogate model. Implement it; there is nothing to inherit.

    Deterministic: the same rows give the same predictions, in another process too.
    """

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        """Learns from rows (n × features, n at least 1) and their n targets; forgets the past."""

    def predict(self, inputs: ArrayLike) -> Prediction:
        """Of rows with the same features; raises ``UnsupportedRequest`` before ``fit``."""


@runtime_checkable
class Storable(Predictor, Protocol):
    """A surrogate model whose fitted state is arrays by name: what a file holds of it."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """What was learnt; raises ``UnsupportedRequest`` before ``fit``."""

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes it up: predictions are then the same to the bit."""


def checked(inputs: ArrayLike, targets: ArrayLike) -> tuple[Floats, Floats]:
    """Rows and targets as arrays; raises ``ConfigError`` unless they fit and are finite."""
    rows = np.asarray(inputs, dtype=np.float64)
    values = np.asarray(targets, dtype=np.float64)
    if rows.ndim != 2 or values.shape != (len(rows),) or not len(rows):
        raise ConfigError(
            f"a predictor is fitted to n rows of features and n targets, n at least 1; got shapes "
            f"{rows.shape} and {values.shape}"
        )
    if not np.isfinite(rows).all() or not np.isfinite(values).all():
        raise ConfigError("a predictor is fitted to finite numbers, got NaN or infinity")
    return rows, values


def rows_of(inputs: ArrayLike, columns: int, what: str) -> NDArray[Any]:
    """Rows to predict; raises ``ConfigError`` unless they have so many columns."""
    rows = np.asarray(inputs)
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise ConfigError(f"{what}: fitted to rows of {columns} features, got {rows.shape}")
    return rows


def not_fitted(model: object) -> UnsupportedRequest:
    return UnsupportedRequest(f"{type(model).__name__} predicts nothing before fit")
