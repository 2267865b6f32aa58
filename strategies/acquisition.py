"""What a candidate promises, from a surrogate's mean and standard deviation.

Larger targets are better for one objective; with two, costs are predicted and smaller is better.
Nothing here draws at random but ``thompson``, which is given its generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.errors import ConfigError

Floats = NDArray[np.float64]


def upper_confidence_bound(mean: Floats, std: Floats, beta: float) -> Floats:
    """mean + β·std."""
    return mean + beta * std


def thompson(mean: Floats, std: Floats, rng: np.random.Generator) -> Floats:
    """A draw for each candidate on its own: independent Thompson sampling (White et al. 2021)."""
    return mean + std * rng.standard_normal(len(mean))


def expected_improvement(mean: Floats, std: Floats, best: float) -> Floats:
    """By how much a candidate is expected to beat the best so far (Jones et al. 1998)."""
    return expected_excess(mean, std, best)


def expected_excess(mean: Floats, std: Floats, bound: Floats | float) -> Floats:
    """E[max(0, X − bound)] of normal X; arguments broadcast, deviations may be zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (mean - bound) / std
    u = np.where(std > 0, u, 0.0)
    density = np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    spread = std * (u * normal_cdf(u) + density)
    excess: Floats = np.where(std > 0, np.maximum(spread, 0.0), np.maximum(mean - bound, 0.0))
    return excess


def expected_hypervolume_improvement(
    mean: ArrayLike, std: ArrayLike, front: ArrayLike, reference: Sequence[float]
) -> Floats:
    """By how much a candidate is expected to raise the hypervolume of a front; two costs, exact.

    The area that is not dominated yet is cut into strips between neighbours of the front; what a
    point cuts out of a strip is a width times a depth, and the two costs are independent
    (Emmerich et al., "Hypervolume-based expected improvement", CEC 2011).

    Args:
        mean: n × 2 expected costs.
        std: n × 2 deviations; zero where a cost is known.
        front: k × 2 costs of what was measured; dominated rows do no harm.
        reference: costs that bound the volume.

    Raises:
        ConfigError: not two costs.
    """
    means, stds = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
    corner = np.asarray(reference, dtype=np.float64)
    if means.ndim != 2 or means.shape[1] != 2 or means.shape != stds.shape or corner.shape != (2,):
        raise ConfigError(
            f"expected hypervolume improvement takes two costs, got shapes {means.shape} and "
            f"{stds.shape} with the reference {tuple(reference)}"
        )
    old = np.asarray(front, dtype=np.float64).reshape(-1, 2)
    old = old[(old < corner).all(axis=1)]
    old = old[np.lexsort((old[:, 1], old[:, 0]))]
    stairs: list[tuple[float, float]] = []
    for first, second in old.tolist():
        if not stairs or second < stairs[-1][1]:
            stairs.append((first, second))
    edges = np.array([first for first, _ in stairs] + [corner[0]])
    heights = np.array([corner[1]] + [second for _, second in stairs])
    below = expected_excess(-means[:, :1], stds[:, :1], -edges[None])
    widths = np.diff(below, axis=1, prepend=0.0)
    depths = expected_excess(-means[:, 1:], stds[:, 1:], -heights[None])
    gains: Floats = (widths * depths).sum(axis=1)
    return gains


def probability_below(mean: Floats, std: Floats, bound: float) -> Floats:
    """P[X ≤ bound] of normal X; 0 or 1 where the deviation is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (bound - mean) / std
    chance: Floats = np.where(std > 0, normal_cdf(np.nan_to_num(u)), mean <= bound)
    return chance


def normal_cdf(u: ArrayLike) -> Floats:
    """The normal distribution function, to a relative error of 1.2e-7 also far in the lower tail.

    The complementary error function by the Chebyshev fit of Press et al., "Numerical Recipes",
    sec. 6.2.
    """
    given = np.clip(np.asarray(u, dtype=np.float64), -37.0, 37.0)  # further out is 0 or 1
    z = np.abs(given) / math.sqrt(2.0)
    t = 1.0 / (1.0 + 0.5 * z)
    series = np.zeros_like(t)
    for coefficient in reversed(_ERFC):
        series = series * t + coefficient
    tail = 0.5 * t * np.exp(-z * z + series)
    cdf: Floats = np.where(given < 0, tail, 1.0 - tail)
    return cdf


_ERFC = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)
