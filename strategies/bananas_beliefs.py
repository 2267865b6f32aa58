"""What a model-based strategy believes of one metric: its measurements, and a model of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from nas.predictor import (
    Bagged,
    BayesianRidge,
    GaussianProcess,
    NormalScores,
    Prediction,
    normal_scores,
)
from nas.predictor.inputs import Rows
from nas.predictor.profiles import profiles_of
from nas.predictor.protocol import Floats, Predictor
from nas.predictor.ridge import NOISES
from nas.predictor.targets import rank_correlation

Model = Literal["ridge", "gp", "bagged", "mlp"]
MODELS: tuple[Model, ...] = ("ridge", "gp", "bagged", "mlp")

EXACT_NOISES = (0.0001, 0.001, 0.01, *NOISES)
"""Levels of noise where a metric may be a cost: linear in the picks, and no noise at all."""

_CHOSEN_ON = 128
"""What kind of targets fits better is judged by the first so many measurements."""

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def make_model(
    kind: Model, names: Sequence[str], widths: Sequence[int], seed: int, exact: bool
) -> Predictor:
    """A model for rows of these blocks; of a metric that may be known exactly, if so."""
    if kind == "ridge":
        return BayesianRidge(widths, profiles_of(names), EXACT_NOISES if exact else NOISES)
    if kind == "gp":
        return GaussianProcess()
    if kind == "bagged":
        return Bagged(seed=seed)
    from nas.predictor import MlpEnsemble

    return MlpEnsemble(seed=seed)


class Belief:
    """A model of one metric, in the order in which measurements came.

    Args:
        sign: 1 where larger is better, −1 where smaller is: targets are larger for the better.
        scored: what the model learns: normal scores of the values, the values themselves,
            standardised, or (``None``) whichever a model of the first fits better, by the rank
            correlation of what it says of measurements left out.
    """

    def __init__(self, make: Callable[[], Predictor], sign: float, scored: bool | None) -> None:
        self.model = make()
        self.sign = sign
        self._choose = scored is None
        self.scored = True if scored is None else scored
        self._scores: NormalScores | None = None
        self._centre, self._spread = 0.0, 1.0

    def fit(self, rows: Rows, values: Floats) -> None:
        """Anew, to all measurements."""
        targets = self.sign * values
        self._centre = float(targets.mean())
        self._spread = float(targets.std()) or 1.0
        self._scores = NormalScores(targets)
        if self._choose and len(values) >= 4:
            first, some = rows[:_CHOSEN_ON], targets[:_CHOSEN_ON]
            self.scored = self._left_out(first, some, True) > self._left_out(first, some, False)
        self.model.fit(rows, self._learnt(targets, self.scored))
        order = np.argsort(targets, kind="stable")
        self._known = targets[order]
        self._known_scores = self._scores.scores[order]

    def _learnt(self, targets: Floats, scored: bool) -> Floats:
        return normal_scores(targets) if scored else (targets - self._centre) / self._spread

    def _left_out(self, rows: Rows, targets: Floats, scored: bool) -> float:
        learnt = self._learnt(targets, scored)
        said = np.empty(len(targets))
        for fold in range(4):
            out = np.arange(len(targets)) % 4 == fold
            self.model.fit(rows[~out], learnt[~out])
            said[out] = self.model.predict(rows[out]).mean
        return rank_correlation(said, targets) or 0.0

    def predict(self, rows: Rows) -> Prediction:
        """Of targets as they are learnt: larger is better."""
        return self.model.predict(rows)

    def learn(self, rows: Rows, said: Prediction, row: Rows, value: float) -> Prediction:
        """Takes one measurement more, and moves what was said of some rows accordingly."""
        assert isinstance(self.model, BayesianRidge)
        learnt = self.of(value)
        covariance, variance = self.model.covariance(rows, row)
        surprise = learnt - float(self.model.predict(row[None]).mean[0])
        self.model.update(row, learnt)
        return Prediction(
            said.mean + covariance * (surprise / variance),
            np.sqrt(np.maximum(said.std**2 - covariance**2 / variance, 1e-12)),
        )

    def learn_alone(self, row: Rows, value: float) -> None:
        """Takes one measurement more."""
        assert isinstance(self.model, BayesianRidge)
        self.model.update(row, self.of(value))

    def of(self, value: float) -> float:
        """What the model would have learnt of this value."""
        assert self._scores is not None
        target = self.sign * value
        return self._scores.of(target) if self.scored else (target - self._centre) / self._spread

    def costs(self, said: Prediction) -> Prediction:
        """The same in the metric's own units, smaller being better: mean and deviation."""
        if not self.scored:
            return Prediction(-(self._centre + self._spread * said.mean), self._spread * said.std)
        nodes = said.mean[:, None] + said.std[:, None] * _NODES
        values = self._unscored(nodes)
        mean = values @ _WEIGHTS
        std = np.sqrt(np.maximum(((values - mean[:, None]) ** 2) @ _WEIGHTS, 0.0))
        return Prediction(-mean, std)

    def _unscored(self, scores: Floats) -> Floats:
        """Targets of scores, along the line through the measurements, which goes on at its ends."""
        known, at = self._known, self._known_scores
        values = np.interp(scores, at, known)
        reach = max(1, math.ceil(len(known) / 4))
        if len(known) > 1:
            top = (known[-1] - known[-1 - reach]) / max(at[-1] - at[-1 - reach], 1e-9)
            low = (known[reach] - known[0]) / max(at[reach] - at[0], 1e-9)
            values = values + top * np.maximum(scores - at[-1], 0.0)
            values = values - low * np.maximum(at[0] - scores, 0.0)
        unscored: Floats = values
        return unscored
