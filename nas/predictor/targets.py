"""Targets that outliers do not rule: the ranks of measurements, as a normal sample would have them.

Accuracies of a search space have a long lower tail (networks that learn nothing), which a model
of the raw values spends its capacity on. Ranks do not know how far away the tail is.
"""

from __future__ import annotations

import functools
from bisect import bisect_left, bisect_right
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.errors import ConfigError

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
