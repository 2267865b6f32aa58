"""Several proxies as one score, by ranks: their values cannot be added, their orders can.

``mean`` is the mean of the relative ranks (the rank over the number of networks, 1 the best);
``geometric`` their geometric mean, which orders as AZ-NAS's Σ ln(rank / m) does (Lee & Ham, CVPR
2024) and is low where a single proxy is. Both lie in (0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError, nearest

Combination = Literal["mean", "geometric"]
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)

Floats = NDArray[np.float64]


def relative_rank(value: float, population: Sequence[float] | Floats) -> float:
    """The rank a value has among the values of a population and itself, over how many these are.

    From 1/(m + 1), below all m of them, to 1, above all. Equals share their mean rank.
    """
    known = np.asarray(population, dtype=np.float64)
    below, equal = float((known < value).sum()), float((known == value).sum())
    return (below + equal / 2 + 1) / (len(known) + 1)


def combined(
    scores: Mapping[str, Sequence[float] | Floats],
    how: Combination = "geometric",
    connected: Sequence[bool] | NDArray[np.bool_] | None = None,
) -> Floats:
    """Ranks a population by several proxies: one score a network, in [0, 1].

    Args:
        scores: of each proxy, one a network, in the same order.
        connected: which networks' outputs depend on their inputs; those that do not score 0,
            whatever their counts are. All by default.

    Raises:
        ConfigError: lists of different lengths, none at all, a value that is not finite.
    """
    if not scores or len({len(values) for values in scores.values()}) != 1:
        sizes = {name: len(values) for name, values in scores.items()}
        raise ConfigError(f"ranking needs as many scores of every proxy, got {sizes}")
    ranks = []
    for name, values in scores.items():
        array = np.asarray(values, dtype=np.float64)
        if not np.isfinite(array).all():
            at = int(np.argmin(np.isfinite(array)))
            raise ConfigError(f"{name} of network {at} is not finite")
        order = np.sort(array)
        below = np.searchsorted(order, array, side="left")
        upto = np.searchsorted(order, array, side="right")
        ranks.append((below + upto + 1) / 2 / len(array))
    found = merge(np.array(ranks), how)
    if connected is not None:
        found = np.where(np.asarray(connected, dtype=bool), found, 0.0)
    return found


def merge(ranks: Floats, how: Combination) -> Floats:
    """Relative ranks, (proxies, …), as one."""
    if how not in COMBINATIONS:
        raise ConfigError(f"there is no combination {how!r}: {nearest(how, COMBINATIONS)}")
    if how == "mean":
        return np.asarray(ranks.mean(axis=0))
    return np.asarray(np.exp(np.log(ranks).mean(axis=0)))
