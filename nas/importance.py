"""Which choices matter: permutation importance on a random forest, and whether to believe it.

Breiman, "Random Forests", Machine Learning 2001, section 10: a column is shuffled, and how much
worse the forest predicts is what the column was worth. Here rows are held out by
cross-validation, all columns of a choice are shuffled together, and the unit is the share of the
held-out variance. The forest learns normal scores rather than values, so that a network that
learnt nothing weighs as one place in the order and not as all the others together.

A search looks where it found good networks, so its trials are no random sample: what it settled
early hardly varies in them and cannot show as important.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Choice, Scalar
from nas.errors import ConfigError, NasError
from nas.history import History
from nas.objective import Metric
from nas.predictor.protocol import Floats
from nas.predictor.sources import Measurements, from_history
from nas.predictor.surrogate import positions_of
from nas.predictor.targets import scale_of
from nas.predictor.trees import RandomForest
from nas.predictor.validation import folds_of
from nas.space import SearchSpace
from nas.trial import Measured

LEAST_ROWS = 20
"""Architectures with fewer measured ones say nothing about single choices."""

LEAST_QUALITY = 0.2
"""Of held-out variance explained; below, an importance is that of a model that is wrong."""

MOST_ROWS = 800
_FOLDS = 5
_SHUFFLES = 3
_EFFECT_ROWS = 200


@dataclass(frozen=True, slots=True)
class ChoiceImportance:
    """What a choice is worth.

    Attributes:
        importance: by how much the share of explained held-out variance falls without it; may
            be slightly below 0 where it is worth nothing.
        std: over folds and shuffles.
        effects: for each option that was measured, the metric that the forest expects on the
            mean where the measured architectures have that option.
    """

    label: str
    importance: float
    std: float
    effects: tuple[tuple[Scalar, float], ...]


@dataclass(frozen=True, slots=True)
class Importance:
    """The importance of a space's choices for a metric.

    Attributes:
        rows: architectures it was learnt from.
        quality: share of the held-out variance (of normal scores) that the forest explains.
        weak: why it should not be believed; empty where it may be.
        choices: the most important first; those with one measured option are left out. Empty
            where ``weak`` says why.
    """

    metric: Metric
    rows: int
    quality: float | None
    weak: str
    choices: tuple[ChoiceImportance, ...]


def importance(measurements: Measurements, *, seed: int = 0, trees: int = 100) -> Importance:
    """How important each choice is for what was measured.

    Args:
        measurements: each architecture once; of more than ``MOST_ROWS``, so many drawn at random.
        seed: of folds, forests and shuffles.

    Raises:
        ConfigError: fewer than 2 trees.
        UnsupportedRequest: scikit-learn is not installed.
    """
    if trees < 2:
        raise ConfigError(f"importance: trees must be at least 2, got {trees}")
    found = measurements.some(MOST_ROWS, seed)
    rows = len(found.archs)
    if rows < LEAST_ROWS:
        weak = f"{rows} measured architectures are too few: at least {LEAST_ROWS} are needed"
        return Importance(found.metric, rows, None, weak, ())
    if float(np.ptp(found.values)) == 0.0:
        return Importance(found.metric, rows, None, "all trials measured the same", ())
    choices = found.space.choices
    positions = np.asarray(positions_of(found.space, found.archs))
    open_ = [c for c in range(len(choices)) if len(np.unique(positions[:, c])) > 1]
    if not open_:
        return Importance(found.metric, rows, None, "all architectures are the same", ())
    targets = scale_of("scores", found.values).learnt
    worth, quality = _worth(choices, positions, open_, targets, seed, trees)
    if quality < LEAST_QUALITY:
        weak = (
            f"a forest explains {max(0.0, quality):.0%} of the variance of architectures it has "
            f"not seen ({rows} measured): too little to say which choice it is due to"
        )
        return Importance(found.metric, rows, quality, weak, ())
    effects = _effects(choices, positions, open_, found.values, seed, trees)
    order = np.argsort(-worth.mean(axis=1), kind="stable")
    return Importance(
        found.metric,
        rows,
        quality,
        "",
        tuple(
            ChoiceImportance(
                choices[open_[place]].label,
                float(worth[place].mean()),
                float(worth[place].std()),
                effects[place],
            )
            for place in order
        ),
    )


def of_history(history: History, space: SearchSpace, metric: str, *, seed: int = 0) -> Importance:
    """``importance`` of a run's trials; of several fidelities, those of the most trials.

    Raises:
        NasError: no trial measured the metric.
    """
    counts: dict[int | None, int] = {}
    for trial in history.trials:
        if isinstance(trial.outcome, Measured) and metric in trial.values:
            epochs = trial.proposal.fidelity.epochs
            counts[epochs] = counts.get(epochs, 0) + 1
    if not counts:
        raise NasError(f"no trial measured {metric!r}")
    epochs = max(counts, key=lambda key: (counts[key], key or 0))
    return importance(from_history(history, space, metric, epochs), seed=seed)


# --------------------------------------------------------------------------------- columns


def _columns(choices: Sequence[Choice], positions: NDArray[np.int16]) -> tuple[Floats, list[int]]:
    """Rows for trees, and the choice that each column is of.

    Numbers are one column, in their order; names one column an option. An inactive choice is -1,
    or no option.
    """
    made: list[NDArray[np.float64]] = []
    owner: list[int] = []
    for place, choice in enumerate(choices):
        column = positions[:, place].astype(np.float64)
        if not any(isinstance(option, str) for option in choice.options):
            made.append(column)
            owner.append(place)
            continue
        for option in range(len(choice.options)):
            made.append((column == option).astype(np.float64))
            owner.append(place)
    return np.stack(made, axis=1), owner


def _worth(
    choices: Sequence[Choice],
    positions: NDArray[np.int16],
    open_: Sequence[int],
    targets: Floats,
    seed: int,
    trees: int,
) -> tuple[Floats, float]:
    """(open choices, folds × shuffles) losses of explained variance, and what is explained."""
    table, owner = _columns(choices, positions)
    fold = folds_of(len(targets), _FOLDS, seed)
    variance = float(targets.var())
    rng = np.random.default_rng([seed, 31])
    worth = np.zeros((len(open_), _FOLDS * _SHUFFLES))
    errors = np.zeros(len(targets))
    for out in range(_FOLDS):
        own = np.flatnonzero(fold == out)
        forest = RandomForest(trees, seed + out)
        forest.fit(table[fold != out], targets[fold != out])
        errors[own] = (forest.predict(table[own]).mean - targets[own]) ** 2
        before = float(errors[own].mean())
        for row, place in enumerate(open_):
            columns = [column for column, of in enumerate(owner) if of == place]
            for shuffle in range(_SHUFFLES):
                changed = table[own]
                changed[:, columns] = changed[rng.permutation(len(own))][:, columns]
                after = float(((forest.predict(changed).mean - targets[own]) ** 2).mean())
                worth[row, out * _SHUFFLES + shuffle] = (after - before) / variance
    return worth, 1.0 - float(errors.mean()) / variance


def _effects(
    choices: Sequence[Choice],
    positions: NDArray[np.int16],
    open_: Sequence[int],
    values: Floats,
    seed: int,
    trees: int,
) -> list[tuple[tuple[Scalar, float], ...]]:
    """For each open choice what a forest of all rows expects where it has each measured option."""
    scale = scale_of("scores", values)
    forest = RandomForest(trees, seed)
    forest.fit(_columns(choices, positions)[0], scale.learnt)
    rng = np.random.default_rng([seed, 37])
    some = np.sort(rng.permutation(len(positions))[:_EFFECT_ROWS])
    found = []
    for place in open_:
        active = some[positions[some, place] >= 0]
        each: list[tuple[Scalar, float]] = []
        for option in np.unique(positions[:, place]):
            if option < 0 or not len(active):
                continue
            asked = positions[active].copy()
            asked[:, place] = option
            said = forest.predict(_columns(choices, asked)[0]).mean.mean()
            each.append((choices[place].options[int(option)], float(scale.values([said])[0])))
        found.append(tuple(each))
    return found
