"""How far a surrogate can be trusted: cross-validation, and whether its deviations are right.

A model's own deviation is rarely that of a measurement: a forest's trees agree too much, a
Gaussian process leaves noise out. So deviations are rescaled after cross-validation, to
√((factor · deviation)² + noise²), both numbers being those of the highest likelihood of what was
measured (with the factor alone: Levi et al., "Evaluating and Calibrating Uncertainty Prediction
in Regression Tasks", Sensors 2022). What is reported of a fold uses the numbers of the others.

Intervals, likelihoods and the rescaling are of the targets that a model learns, normal scores as
a rule: an interval there is one in the metric's unit too, its ends being taken back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError
from nas.predictor.protocol import Floats, Prediction, Predictor
from nas.predictor.targets import Scale, in_unit, scale_of

LEVELS = (0.5, 0.8, 0.95)
LEAST_ROWS = 10
_RESAMPLES = 200
_FACTORS = np.concatenate([[0.0], np.geomspace(0.1, 30.0, 41)])
_NOISES = np.concatenate([[0.02], np.linspace(0.1, 1.0, 10)])


@dataclass(frozen=True, slots=True)
class Scaling:
    """From a model's deviation to that of a measurement, both on the scale of its targets."""

    factor: float
    noise: float

    def __call__(self, said: Prediction) -> Prediction:
        return Prediction(said.mean, np.sqrt((self.factor * said.std) ** 2 + self.noise**2))


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was predicted against what was measured.

    Attributes:
        count: of rows.
        kendall: τ-b; 0 where all predictions are the same.
        kendall_low, kendall_high: its 95 % interval by the bootstrap.
        spearman: ρ.
        rmse: root mean square error, in the metric's unit.
        coverage: for each level the share of measurements inside the interval of that level.
        sharpness: the mean deviation, in the metric's unit.
        nll: mean negative log likelihood of the targets (normal scores, or standardised values);
            lower is better.
        nll_of_guess: that of always saying the mean and the spread of what was measured.
    """

    count: int
    kendall: float
    kendall_low: float
    kendall_high: float
    spearman: float
    rmse: float
    coverage: Mapping[str, float]
    sharpness: float
    nll: float
    nll_of_guess: float

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "coverage": dict(self.coverage)}


def agreement(
    said: Prediction, values: Floats, learnt: Prediction, targets: Floats, seed: int = 0
) -> Agreement:
    """How predictions agree with measurements of the same rows.

    Args:
        said, values: both in the metric's unit.
        learnt, targets: both on the model's scale; deviations above 0.
        seed: of the bootstrap.
    """
    from scipy import stats  # type: ignore[import-untyped]  # it ships no types

    def kendall(rows: Any) -> float:
        mean, measured = said.mean[rows], values[rows]
        if np.ptp(mean) == 0 or np.ptp(measured) == 0:
            return 0.0
        return float(stats.kendalltau(mean, measured).statistic)

    rng = np.random.default_rng(seed)
    everything = np.arange(len(values))
    drawn = [kendall(rng.integers(len(values), size=len(values))) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    error = values - said.mean
    flat = np.ptp(said.mean) == 0 or np.ptp(values) == 0
    guess = Prediction(*np.full((2, len(targets)), [[targets.mean()], [targets.std() or 1e-12]]))
    return Agreement(
        count=len(values),
        kendall=kendall(everything),
        kendall_low=float(low),
        kendall_high=float(high),
        spearman=0.0 if flat else float(stats.spearmanr(said.mean, values).statistic),
        rmse=float(np.sqrt((error**2).mean())),
        coverage={f"{level:g}": coverage(learnt, targets, level) for level in LEVELS},
        sharpness=float(said.std.mean()),
        nll=negative_log_likelihood(learnt, targets),
        nll_of_guess=negative_log_likelihood(guess, targets),
    )


def coverage(said: Prediction, values: Floats, level: float) -> float:
    """The share of measurements inside the central interval that is to hold ``level`` of them."""
    return float((np.abs(values - said.mean) <= half_width(level) * said.std).mean())


def half_width(level: float) -> float:
    """Of the central interval of a normal distribution that holds so much, in deviations."""
    if not 0 < level < 1:
        raise ConfigError(f"the level of an interval must be between 0 and 1, got {level}")
    return NormalDist().inv_cdf(0.5 + level / 2)


def scaling(said: Prediction, values: Floats) -> Scaling:
    """The factor and the noise of the highest likelihood, from a grid."""
    size = float(np.sqrt(((values - said.mean) ** 2).mean())) or 1e-12
    best, found = math.inf, Scaling(0.0, size)
    for noise in _NOISES * size:
        for factor in _FACTORS:
            tried = Scaling(float(factor), float(noise))
            nll = negative_log_likelihood(tried(said), values)
            if nll < best - 1e-12:
                best, found = nll, tried
    return found


def negative_log_likelihood(said: Prediction, values: Floats) -> float:
    """The mean over rows, of normal distributions; in nats."""
    each = 0.5 * ((values - said.mean) / said.std) ** 2 + np.log(said.std)
    return float(each.mean() + 0.5 * math.log(2 * math.pi))


def folds_of(count: int, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each row: all as large as can be, drawn from the seed."""
    if folds < 2:
        raise ConfigError(f"folds must be at least 2, got {folds}")
    if count < max(LEAST_ROWS, 2 * folds):
        raise ConfigError(
            f"{count} measured architectures are too few for a surrogate: at least "
            f"{max(LEAST_ROWS, 2 * folds)} are needed for {folds} folds"
        )
    order = np.random.default_rng([seed, count]).permutation(count)
    fold = np.empty(count, dtype=np.int64)
    fold[order] = np.arange(count) % folds
    return fold


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidation:
    """What models said of rows that they had not seen.

    Attributes:
        said: of each row, in the metric's unit, rescaled by what the other folds showed.
        scaling: what all folds show, for a model that is fitted to every row.
        agreement: of ``said`` with the measurements.
    """

    said: Prediction
    scaling: Scaling
    agreement: Agreement


def cross_validated(
    make: Callable[[], Predictor],
    rows: Any,
    values: Floats,
    targets: str = "scores",
    folds: int = 5,
    seed: int = 0,
    on_fold: Callable[[int], None] | None = None,
) -> CrossValidation:
    """Fits as many models as there are folds, each without one of them.

    Args:
        make: a new model.
        targets: what it learns of the values (``nas.predictor.targets.scale_of``).
        on_fold: told how many folds are done.

    Raises:
        ConfigError: there are fewer than two folds, or too few rows for them.
    """
    fold = folds_of(len(values), folds, seed)
    count = len(values)
    mean, std, wanted = np.empty(count), np.empty(count), np.empty(count)
    scales: list[Scale] = []
    for out in range(folds):
        own = fold == out
        scales.append(scale_of(targets, values[~own]))
        model = make()
        model.fit(rows[~own], scales[out].learnt)
        mean[own], std[own] = model.predict(rows[own])
        wanted[own] = scales[out].of(values[own])
        if on_fold is not None:
            on_fold(out + 1)
    scaled = np.empty(count)
    unit = np.empty(count), np.empty(count)
    for out in range(folds):
        others, own = fold != out, fold == out
        found = scaling(Prediction(mean[others], std[others]), wanted[others])
        learnt = found(Prediction(mean[own], std[own]))
        scaled[own] = learnt.std
        unit[0][own], unit[1][own] = in_unit(learnt, scales[out])
    said = Prediction(*unit)
    return CrossValidation(
        said,
        scaling(Prediction(mean, std), wanted),
        agreement(said, values, Prediction(mean, scaled), wanted, seed),
    )
