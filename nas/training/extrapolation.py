"""Learning curves carried on: how likely a training is to end above a value.

After Domhan, Springenberg & Hutter, "Speeding Up Automatic Hyperparameter Optimization of Deep
Neural Networks by Extrapolation of Learning Curves", IJCAI 2015: a curve is asymptote minus a
falling shape (power law, exponential, Hill's), with noise. What differs: the parameters that are
not linear, and the noise, lie on a grid, and the two that are have a normal prior, so that each
member's weight is its marginal likelihood in closed form, where the paper samples by MCMC. The
same curve always gives the same answer. As the paper's, the shapes know of no learning rate
schedule: the rise at the end of a cosine comes on top of what they expect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError

Floats = NDArray[np.float64]

_NOISE = (0.003, 0.01, 0.03, 0.1)  # standard deviations of an accuracy
_MEAN = np.array([0.75, 0.4])  # of asymptote and rise, before anything is seen
_SPREAD = np.diag([0.3**2, 0.4**2])


@dataclass(frozen=True)
class EarlyStop:
    """When a training is given up.

    Attributes:
        probability: of ending above the best known value, below which it is.
        least_epochs: how many are trained before anything is given up.
    """

    probability: float = 0.05
    least_epochs: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise ConfigError(
                f"early_stop: probability must be between 0 and 1, got {self.probability!r}"
            )
        if self.least_epochs < 3:
            raise ConfigError(
                f"early_stop: least_epochs must be at least 3 (a curve of fewer says nothing), "
                f"got {self.least_epochs!r}"
            )


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an accuracy is expected to be: a mixture of normal distributions.

    Attributes:
        weights, means, deviations: of its members.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(w * m for w, m in zip(self.weights, self.means, strict=True))

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        members = zip(self.weights, self.means, self.deviations, strict=True)
        return math.sqrt(sum(w * (s**2 + m**2) for w, m, s in members) - self.mean**2)

    def above(self, value: float) -> float:
        """The probability of being higher."""
        members = zip(self.weights, self.means, self.deviations, strict=True)
        return sum(w * _normal((m - value) / s) for w, m, s in members)


def extrapolated(curve: Sequence[float], epoch: int) -> Forecast:
    """The accuracy at a later epoch.

    Args:
        curve: the validation accuracy (fraction) after epochs 1, 2, …; at least two.
        epoch: counted from 1, behind the curve.

    Raises:
        ConfigError: the curve is too short, or the epoch is not behind it.
    """
    if len(curve) < 2 or epoch <= len(curve):
        raise ConfigError(
            f"a curve of {len(curve)} epochs is not carried on to epoch {epoch}: expected two "
            "epochs or more, and a later one"
        )
    seen: Floats = np.asarray(curve, dtype=float)
    scores, means, deviations = [], [], []
    for shape in _shapes(len(curve), epoch):
        # Asymptote and rise: y = c - a·shape.
        design = np.stack([np.ones(len(seen)), -shape[:-1]], axis=1)
        there = np.array([1.0, -shape[-1]])
        for noise in _NOISE:
            spread = design @ _SPREAD @ design.T + noise**2 * np.eye(len(seen))
            gain = np.linalg.solve(spread, design @ _SPREAD).T
            residual = seen - design @ _MEAN
            mean = _MEAN + gain @ residual
            covariance = _SPREAD - gain @ design @ _SPREAD
            score = -0.5 * float(
                residual @ np.linalg.solve(spread, residual) + np.linalg.slogdet(spread)[1]
            )
            # Curves that fall, or end above 1, are none.
            rises = _normal(mean[1] / math.sqrt(max(covariance[1, 1], 1e-12)))
            bounded = _normal((1 - mean[0]) / math.sqrt(max(covariance[0, 0], 1e-12)))
            scores.append(score + math.log(max(rises * bounded, 1e-300)))
            means.append(float(there @ mean))
            deviations.append(math.sqrt(max(float(there @ covariance @ there), 0.0) + noise**2))
    likely = np.exp(np.array(scores) - max(scores))
    weights = (likely / likely.sum()).tolist()
    return Forecast(tuple(weights), tuple(means), tuple(deviations))


def _shapes(length: int, epoch: int) -> list[Floats]:
    """Falls from 1 at epoch 1, each at the epochs of a curve and at a later one."""
    x: Floats = np.array([*range(1, length + 1), epoch], dtype=float)
    power = [x**-rate for rate in (0.1, 0.25, 0.5, 1.0, 2.0)]
    exponential = [np.exp(-rate * (x - 1)) for rate in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)]
    hill = [
        (1 + half**-steep) / (1 + (x / half) ** steep)
        for half in (2.0, 5.0, 20.0)
        for steep in (1.0, 2.0)
    ]
    return [*power, *exponential, *hill]


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
