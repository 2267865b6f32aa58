"""A surrogate of one metric on one space: fitted, validated, and honest about what it has not seen.

measured = from_table(load("digits"), space, "accuracy")
surrogate = fit_surrogate(measured, "forest")
surrogate.validation.agreement.kendall
surrogate.judge([arch])[0]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.errors import ConfigError, InvalidArchitecture, NasError, UnsupportedRequest
from nas.objective import Metric
from nas.predictor.models import RowMaker, kind_of, make_inputs, make_model
from nas.predictor.protocol import Floats, Prediction, Storable
from nas.predictor.sources import Measurements
from nas.predictor.targets import Scale, ScaleName, in_unit, scale_of
from nas.predictor.validation import (
    LEAST_ROWS,
    Agreement,
    CrossValidation,
    agreement,
    cross_validated,
    half_width,
)
from nas.space import SearchSpace, from_picks, validate

Positions = NDArray[np.int16]
INTERVAL = 0.95
"""How much the interval of a judgement is to hold."""
_CELLS = 20_000_000


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a surrogate says of an architecture.

    Attributes:
        mean: the metric expected, in its unit.
        std: the deviation of a measurement from it. Where the surrogate extrapolates, the
            distribution is at least as wide as that of all measurements it was fitted on.
        low, high: the ends of the central interval that holds 95 % of measurements; lopsided
            where measurements are.
        distance: in how many choices the architecture differs from the nearest fitted one.
        unseen: options that no fitted architecture has, as ``label=option``.
        extrapolates: there is such an option, or the distance is larger than that of any fitted
            architecture from the nearest other one.
    """

    mean: float
    std: float
    low: float
    high: float
    distance: int
    unseen: tuple[str, ...]
    extrapolates: bool


class _Learnt(NamedTuple):
    """What the model says on its own scale, and how far away it is asked."""

    said: Prediction
    distances: NDArray[np.intp]
    unseen: list[tuple[str, ...]]
    beyond: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FittedSurrogate:
    """A fitted model, what it was fitted on, and how far it can be trusted.

    Made by ``fit_surrogate`` or ``nas.predictor.files.load_surrogate``.

    Attributes:
        space, metric: what it predicts of which architectures.
        name: of the model.
        targets: what it learns: normal scores, or standardised values.
        source: where the measurements are from.
        inputs, model: make rows, and predict from them.
        validation: what cross-validation showed; its scaling is used on all deviations.
        positions: (fitted architectures, choices): which option each has; -1 where inactive.
        values: theirs.
        reach: the largest distance of a fitted architecture from the nearest other one.
        folds, seed: of the cross-validation.
    """

    space: SearchSpace
    metric: Metric
    name: str
    targets: str
    source: str
    inputs: RowMaker
    model: Storable
    validation: CrossValidation
    positions: Positions
    values: Floats
    reach: int
    folds: int
    seed: int

    def predict(self, archs: Sequence[Architecture]) -> Prediction:
        """Mean and deviation of each architecture in the metric's unit, as ``judge`` has them.

        Raises:
            InvalidArchitecture: one is not of the space.
        """
        return in_unit(self._learnt(archs).said, self.scale)

    def judge(self, archs: Sequence[Architecture]) -> list[Judgement]:
        """What is expected of each architecture, and how far it is from those that were fitted.

        Raises:
            InvalidArchitecture: one is not of the space.
        """
        learnt = self._learnt(archs)
        mean, std = in_unit(learnt.said, self.scale)
        reach = half_width(INTERVAL) * learnt.said.std
        low, high = (self.scale.values(learnt.said.mean + sign * reach) for sign in (-1, 1))
        return [
            Judgement(
                float(mean[row]),
                float(std[row]),
                float(low[row]),
                float(high[row]),
                int(learnt.distances[row]),
                learnt.unseen[row],
                bool(learnt.beyond[row]),
            )
            for row in range(len(archs))
        ]

    def agreement(self, measured: Measurements) -> Agreement:
        """How it agrees with other measurements of the metric.

        Raises:
            ConfigError: there are fewer than ten.
        """
        if len(measured.archs) < LEAST_ROWS:
            raise ConfigError(
                f"{len(measured.archs)} architectures are too few to compare with: at least "
                f"{LEAST_ROWS} are needed"
            )
        learnt = self._learnt(measured.archs).said
        targets = self.scale.of(measured.values)
        return agreement(in_unit(learnt, self.scale), measured.values, learnt, targets, self.seed)

    def unseen(self, measured: Measurements) -> Measurements:
        """Those measurements whose architectures it was not fitted on."""
        asked = positions_of(self.space, measured.archs)
        kept = np.flatnonzero(nearest_distances(asked, self.positions) > 0)
        archs = tuple(measured.archs[row] for row in kept)
        return replace(measured, archs=archs, values=measured.values[kept])

    @functools.cached_property
    def scale(self) -> Scale:
        """What the model learnt of the values."""
        return scale_of(self.targets, self.values)

    def _learnt(self, archs: Sequence[Architecture]) -> _Learnt:
        asked = positions_of(self.space, archs)
        said = self.validation.scaling(self.model.predict(self.inputs(archs)))
        distances = nearest_distances(asked, self.positions)
        unseen = [self._unseen(row) for row in asked]
        beyond = (distances > self.reach) | np.array([bool(names) for names in unseen], dtype=bool)
        widened = np.where(beyond, np.maximum(said.std, self.scale.learnt.std()), said.std)
        return _Learnt(Prediction(said.mean, widened), distances, unseen, beyond)

    def _unseen(self, row: Positions) -> tuple[str, ...]:
        new = (row >= 0) & ~(self.positions == row).any(axis=0)
        return tuple(
            f"{choice.label}={choice.options[row[column]]}"
            for column, choice in enumerate(self.space.choices)
            if new[column]
        )


def fit_surrogate(
    measured: Measurements,
    model: str = "forest",
    targets: ScaleName = "scores",
    folds: int = 5,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    on_fold: Callable[[int], None] | None = None,
) -> FittedSurrogate:
    """Cross-validates a model, then fits it to all measurements.

    The order in which these came plays no part.

    Args:
        model: a name of ``nas.predictor.models.MODELS``.
        targets: learn normal scores of the measurements, so that the failures at the far end of
            accuracies do not rule, or their ``values``, which suits costs.
        folds: of the cross-validation.
        seed: of the folds and of the model.
        settings: arguments of the model, over the defaults.
        on_fold: told how many folds are done.

    Raises:
        ConfigError: an unknown model or setting, or too few measurements.
        NasError: all measurements are the same.
        UnsupportedRequest: the space has nothing that the model reads, or there are more
            measurements than it can be fitted to.
    """
    count = len(measured.archs)
    kind = kind_of(model)
    if count > kind.most_rows:
        raise UnsupportedRequest(
            f"{count} measurements are more than the {kind.most_rows} that {model!r} is fitted "
            "to: take a part of them (--rows), or another model"
        )
    inputs = make_inputs(model, measured.space)
    scale_of(targets, [0.0])
    make_model(model, inputs, seed, settings)  # refuses settings before any work
    if count > 1 and np.ptp(measured.values) == 0:
        raise NasError(
            f"{measured.source}: {measured.metric.name} is {measured.values[0]:g} for all {count} "
            "architectures: there is nothing to learn"
        )
    rows = inputs(measured.archs)

    def make() -> Storable:
        return make_model(model, inputs, seed, settings)

    values = measured.values
    validation = cross_validated(make, rows, values, targets, folds, seed, on_fold)
    fitted = make()
    fitted.fit(rows, scale_of(targets, values).learnt)
    positions = positions_of(measured.space, measured.archs)
    return FittedSurrogate(
        measured.space,
        measured.metric,
        model,
        targets,
        measured.source,
        inputs,
        fitted,
        validation,
        positions,
        measured.values,
        int(nearest_distances(positions, positions, apart=True).max()),
        folds,
        seed,
    )


def positions_of(space: SearchSpace, archs: Sequence[Architecture]) -> Positions:
    """Which option each choice has, (architectures, choices); -1 where it is inactive.

    Raises:
        InvalidArchitecture: one is not of the space, or of a smaller sibling of it.
    """
    place = {choice.label: column for column, choice in enumerate(space.choices)}
    index = [{option: i for i, option in enumerate(choice.options)} for choice in space.choices]
    found = np.full((len(archs), len(place)), -1, dtype=np.int16)
    for row, arch in enumerate(archs):
        if arch.space != space.name or from_picks(space, arch.as_dict()) != arch:
            validate(space, arch)
            raise InvalidArchitecture(f"{arch} is of a smaller space than {space.name!r}")
        for label, option in arch.picks:
            column = place[label]
            found[row, column] = index[column][option]
    return found


def nearest_distances(
    rows: Positions, others: Positions, *, apart: bool = False
) -> NDArray[np.intp]:
    """Of each row the fewest choices in which it differs from one of the others.

    Args:
        apart: both are the same, and a row is no neighbour of itself.
    """
    nearest = np.empty(len(rows), dtype=np.intp)
    step = max(1, _CELLS // max(1, others.size))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        distances = np.zeros((len(part), len(others)), dtype=np.int16)
        for column in range(rows.shape[1]):
            distances += part[:, column, None] != others[None, :, column]
        if apart:
            own = np.arange(len(part))
            distances[own, start + own] = np.iinfo(np.int16).max
        nearest[start : start + step] = distances.min(axis=1)
    return nearest
