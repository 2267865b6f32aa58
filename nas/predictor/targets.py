"""Targets that outliers do not rule: the ranks of measurements, as a normal sample would have them.

Accuracies of a search space have a long lower tail (networks that learn nothing), which a model
of the raw values spends its capacity on. Ranks do not know how far away the tail is.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left, bisect_right
from statistics import NormalDist
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.errors import ConfigError, nearest
from nas.predictor.protocol import Prediction

Floats = NDArray[np.float64]


def ranks(values: ArrayLike) -> Floats:
    """From 1 for the smallest; equal values share the mean of their ranks."""
    given = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(given, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: Floats = (ends - (counts - 1) / 2)[inverse.reshape(-1)]
    return shared


def normal_scores(values: ArrayLike) -> Floats:
    """Ranks through the inverse normal distribution: Blom's Φ⁻¹((r − 3/8) / (n + 1/4)).

    >>> normal_scores([7.0, 9.0, 8.0]).round(2).tolist()
    [-0.82, 0.82, 0.0]
    """
    given = ranks(values)
    table = _scores(len(given))
    position = given - 1
    low = np.floor(position).astype(np.intp)
    high = np.ceil(position).astype(np.intp)
    # Shared ranks may be halves: their score is the mean of the two beside them.
    scores: Floats = (table[low] + table[high]) / 2
    return scores


class NormalScores:
    """The scores of some measurements, and where another one would stand among them.

    Args:
        values: the measurements, at least one.

    Attributes:
        scores: theirs, in their order.
    """

    def __init__(self, values: ArrayLike) -> None:
        given = np.asarray(values, dtype=np.float64)
        if given.ndim != 1 or not len(given):
            raise ConfigError(f"scores need at least one value, got shape {given.shape}")
        self.scores = normal_scores(given)
        self._sorted = sorted(given.tolist())
        self._table = _scores(len(given) + 1)

    def of(self, value: float) -> float:
        """The score of a value that is not among them: by its rank if it were."""
        low = bisect_left(self._sorted, value)
        high = bisect_right(self._sorted, value)
        return float((self._table[low] + self._table[high]) / 2)


class Scale(Protocol):
    """What a model learns of some measurements, and the way back to their unit."""

    @property
    def learnt(self) -> Floats:
        """The targets, in the order of the measurements."""

    def of(self, values: ArrayLike) -> Floats:
        """Other measurements on this scale."""

    def values(self, targets: ArrayLike) -> Floats:
        """Back to the measurements' unit; the inverse of ``of`` in the range of those."""


class Standardised:
    """Values less their mean, by their deviation: for what is smooth in the picks, as costs are."""

    def __init__(self, values: ArrayLike) -> None:
        given = np.asarray(values, dtype=np.float64)
        self._centre = float(given.mean())
        self._spread = float(given.std()) or 1.0
        self.learnt = self.of(given)

    def of(self, values: ArrayLike) -> Floats:
        scaled: Floats = (np.asarray(values, dtype=np.float64) - self._centre) / self._spread
        return scaled

    def values(self, targets: ArrayLike) -> Floats:
        found: Floats = self._centre + self._spread * np.asarray(targets, dtype=np.float64)
        return found


BEYOND = 1.0


class Scored:
    """Normal scores, and the line through the measurements, which goes on straight at its ends.

    Other measurements beyond all of these are scored at most ``BEYOND`` further out: a network
    that failed where none had is a long way off in accuracy, in ranks it is one place.
    """

    def __init__(self, values: ArrayLike) -> None:
        given = np.asarray(values, dtype=np.float64)
        self.learnt = normal_scores(given)
        self._known, first = np.unique(given, return_index=True)
        self._at = self.learnt[first]

    def of(self, values: ArrayLike) -> Floats:
        scores = _along(np.asarray(values, dtype=np.float64), self._known, self._at)
        within: Floats = np.clip(scores, self._at[0] - BEYOND, self._at[-1] + BEYOND)
        return within

    def values(self, targets: ArrayLike) -> Floats:
        return _along(np.asarray(targets, dtype=np.float64), self._at, self._known)


ScaleName = Literal["scores", "values"]


def scale_of(name: str, values: ArrayLike) -> Scale:
    """``Scored`` for ``"scores"``, ``Standardised`` for ``"values"``; else ``ConfigError``."""
    kinds: dict[str, type[Scored] | type[Standardised]] = {
        "scores": Scored,
        "values": Standardised,
    }
    if name not in kinds:
        raise ConfigError(f"there are no targets {name!r}: {nearest(name, kinds)}")
    return kinds[name](values)


def in_unit(said: Prediction, scale: Scale) -> Prediction:
    """Mean and deviation, in the unit of the measurements, of what is normal on a scale."""
    values = scale.values(said.mean[:, None] + said.std[:, None] * _NODES)
    # Sums row by row: a matrix product would round by how many rows there are.
    mean = (values * _WEIGHTS).sum(axis=1)
    variance = ((values - mean[:, None]) ** 2 * _WEIGHTS).sum(axis=1)
    return Prediction(mean, np.sqrt(np.maximum(variance, 0.0)))


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def _along(x: Floats, known: Floats, at: Floats) -> Floats:
    """The line through points of rising coordinates; beyond, as steep as its outer quarters."""
    found = np.interp(x, known, at)
    if len(known) > 1:
        reach = min(max(1, math.ceil(len(known) / 4)), len(known) - 1)
        top = (at[-1] - at[-1 - reach]) / (known[-1] - known[-1 - reach])
        low = (at[reach] - at[0]) / (known[reach] - known[0])
        found = found + top * np.maximum(x - known[-1], 0.0)
        found = found - low * np.maximum(known[0] - x, 0.0)
    line: Floats = found
    return line


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float | None:
    """Spearman's coefficient; ``None`` where either has fewer than two different values."""
    first, second = ranks(one), ranks(other)
    if len(first) != len(second):
        raise ConfigError(f"{len(first)} and {len(second)} values have no rank correlation")
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / size if size > 0 else None


@functools.lru_cache(maxsize=256)
def _scores(n: int) -> Floats:
    """The scores of n different values in ascending order."""
    normal = NormalDist()
    table = np.array([normal.inv_cdf((rank - 0.375) / (n + 0.25)) for rank in range(1, n + 1)])
    table.flags.writeable = False
    return table
