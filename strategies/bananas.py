"""Predictor-guided search: measure what a model of the measurements thinks most of.

White, Neiswanger & Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural
Architecture Search", AAAI 2021: an ensemble of networks on the path encoding, independent
Thompson sampling, and mutations of the best as candidates, after random architectures.

What differs from the paper: by default the model is a Bayesian ridge on several blocks of features
(options, how often each comes up, paths, …; ``nas.predictor.Inputs``) with normal scores as
targets, the acquisition is an upper confidence bound, the first architectures are a balanced
design, and a space of at most 20,000 architectures is scored whole, since that is cheaper than
making candidates and misses none. ``BANANAS_PAPER`` has the paper's settings.

With several objectives each metric has a model of its own and the acquisition is the augmented
Tchebycheff distance of the confidence bounds under random weights (ParEGO, Knowles 2006), less the
probability that a hard limit is broken. With two, ``several="hypervolume"`` takes the expected
hypervolume improvement instead, times the probability that limits hold. On the table of digits
that comes with the package the distance finds the front sooner: the improvement lives on how much
the best may yet be surpassed, of which models of few measurements say too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nas.architecture import Architecture
from nas.errors import ConfigError, nearest
from nas.objective import Objective, check_objectives
from nas.pareto import costs, hypervolume_improvement, non_dominated
from nas.predictor import BayesianRidge, Inputs, Prediction
from nas.predictor.inputs import BLOCKS, Rows
from nas.predictor.protocol import Floats, Predictor
from nas.space import SearchSpace, sample
from nas.strategy import proposal_rng, proposal_seed
from nas.trial import Infeasible, Measured, Proposal, Trial
from strategies.acquisition import (
    expected_hypervolume_improvement,
    expected_improvement,
    probability_below,
    thompson,
    upper_confidence_bound,
)
from strategies.bananas_beliefs import MODELS, Belief, Model, make_model
from strategies.bananas_candidates import balanced, mutations, whole

Acquisition = Literal["ucb", "thompson", "ei"]
ACQUISITIONS: tuple[Acquisition, ...] = ("ucb", "thompson", "ei")
Several = Literal["tchebycheff", "hypervolume"]
SEVERAL: tuple[Several, ...] = ("tchebycheff", "hypervolume")

BANANAS_PAPER: Mapping[str, Any] = {
    "model": "mlp",
    "blocks": ("paths",),
    "acquisition": "thompson",
    "initial": 10,
    "design": "random",
    "whole": 0,
    "candidates": 100,
}
"""The settings of the paper; its spaces are made of cells, as paths ask for."""

# Every measurement refits the model up to so many; then each share of one more does, and
# between these the model takes measurements one by one and only the most promising are scored.
_ALWAYS = 64
_SHORTLIST = 256
_DRAWS = 200


class Bananas:
    """Asks for the candidate of the largest acquisition; no architecture twice.

    Args:
        model: ``"ridge"``, ``"gp"``, ``"bagged"`` or ``"mlp"`` (``nas.predictor``).
        blocks: the features, of ``nas.predictor.inputs.BLOCKS``; those a space cannot have are
            left out.
        acquisition: for one objective: ``"ucb"``, ``"thompson"`` or ``"ei"``.
        several: for more: ``"tchebycheff"``, or with two ``"hypervolume"``.
        beta: deviations above the mean, of ``"ucb"`` and ``"tchebycheff"``.
        initial: measurements before the model is asked.
        design: of the first architectures: ``"balanced"`` or ``"random"``.
        whole: spaces of at most so many architectures are scored whole; 0 for none.
        candidates: how many mutations of the best are scored in a larger space.
        parents: how many of the best they are made from.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        model: Model = "ridge",
        blocks: tuple[str, ...] = ("options", "counts", "numbers", "paths", "pairs"),
        acquisition: Acquisition = "ucb",
        several: Several = "tchebycheff",
        beta: float = 1.0,
        initial: int = 5,
        design: Literal["balanced", "random"] = "balanced",
        whole: int = 20_000,
        candidates: int = 100,
        parents: int = 10,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        for name, given, valid in (
            ("model", model, MODELS),
            ("acquisition", acquisition, ACQUISITIONS),
            ("several", several, SEVERAL),
            ("design", design, ("balanced", "random")),
            *(("blocks", block, BLOCKS) for block in blocks),
        ):
            if given not in valid:
                raise ConfigError(f"bananas: {name}: no {given!r}: {nearest(given, valid)}")
        if not blocks or len(set(blocks)) < len(blocks):
            raise ConfigError(f"bananas: blocks must be different, at least one; got {blocks}")
        for name, number, least in (
            ("initial", initial, 1),
            ("whole", whole, 0),
            ("candidates", candidates, 1),
            ("parents", parents, 1),
        ):
            if number < least:
                raise ConfigError(f"bananas: {name} must be at least {least}, got {number}")
        if not 0 <= beta < float("inf"):
            raise ConfigError(f"bananas: beta must be zero or more and finite, got {beta}")
        self.space = space
        self.objectives = check_objectives(objectives)
        if several == "hypervolume" and len(self.objectives) > 2:
            raise ConfigError(
                f"bananas: several: hypervolume takes two objectives, got {len(self.objectives)}"
            )
        self.seed = seed
        self.model = model
        self.blocks = tuple(blocks)
        self.acquisition = acquisition
        self.several = several
        self._by_hypervolume = several == "hypervolume" and len(self.objectives) == 2
        self.beta = beta
        self.initial = initial
        self.design = design
        self.whole = whole
        self.candidates = candidates
        self.parents = parents
        self._forget()

    def _forget(self) -> None:
        self._number = 0
        self._pending: dict[int, Architecture] = {}
        self._told: list[tuple[Architecture, dict[str, float], bool]] = []
        self._dead: list[Architecture] = []
        self._seen: set[tuple[Any, ...]] = set()
        self._measured = 0
        self._fitted = 0
        self._learnt = 0
        self._shortlist: list[int] = []
        self._beliefs: list[Belief] = []
        self._said: list[Prediction] = []
        self._rows_said: Rows = np.zeros((0, 0), dtype=np.float32)
        self._ready = False

    # ------------------------------------------------------------------------------- asking

    def ask(self, n: int) -> Sequence[Proposal]:
        proposals: list[Proposal] = []
        while len(proposals) < n:
            self._prepare()
            number = self._number
            rng = proposal_rng(self.seed, number)
            arch = self._choose(number, rng)
            if arch is None:
                break
            self._number += 1
            self._seen.add(arch.picks)
            self._pending[number] = arch
            if self._pool is not None:
                self._free[self._pool.index[arch.picks]] = False
            proposals.append(Proposal(number, arch, seed=proposal_seed(self.seed, number)))
        return proposals

    def _prepare(self) -> None:
        """What needs the listed space is made when it is first asked for."""
        if self._ready:
            return
        self._pool = whole(self.space, self.blocks, self.whole)
        self._inputs = self._pool.inputs if self._pool else Inputs(self.space, self.blocks)
        if not self._inputs.widths:
            raise ConfigError(
                f"bananas: {self.space.name!r} has none of the features {', '.join(self.blocks)}"
            )
        self._free = np.ones(len(self._pool.archs) if self._pool else 0, dtype=np.bool_)
        self._ready = True
        if self._pool:
            self._free[[self._pool.index[picks] for picks in self._seen]] = False
        if self._fitted:
            self._fit(self._told[: self._fitted])
            self._say()

    def _choose(self, number: int, rng: np.random.Generator) -> Architecture | None:
        pool = self._pool
        if pool is not None and not self._free.any():
            return None
        if self._measured < self.initial:
            return self._first(number, rng)
        if pool is None:
            return self._best_mutation(rng)
        if not self._fitted or self._measured_since() >= _interval(self._fitted):
            self._refresh(number)
        self._catch_up()
        free = self._free[self._shortlist]
        if not free.any():
            self._refresh(number)
            free = self._free[self._shortlist]
        worth = self._worth(self._rows_said, self._said, rng)
        worth = np.where(free, worth, -np.inf)
        return pool.archs[self._shortlist[int(np.argmax(worth))]]

    def _first(self, number: int, rng: np.random.Generator) -> Architecture | None:
        if self.design == "balanced":
            arch = balanced(self.space, self.seed, number)
            if arch.picks not in self._seen:
                return arch
        if self._pool is not None:
            free = np.flatnonzero(self._free)
            return self._pool.archs[int(free[int(rng.integers(len(free)))])]
        for _ in range(_DRAWS):
            arch = sample(self.space, rng)
            if arch.picks not in self._seen:
                return arch
        return None

    def _best_mutation(self, rng: np.random.Generator) -> Architecture | None:
        found = [
            arch
            for arch in mutations(self.space, self._best(), self.candidates, rng)
            if arch.picks not in self._seen
        ]
        if not found:
            return self._first(self._number, rng)
        if not self._fitted or self._measured_since() >= _interval(self._fitted):
            self._fit(self._told)
            self._fitted = self._learnt = len(self._told)
        self._catch_up()
        rows = self._inputs(found)
        said = [belief.predict(rows) for belief in self._beliefs]
        return found[int(np.argmax(self._worth(rows, said, rng)))]

    def _best(self) -> list[Architecture]:
        """The measured ones that candidates are made from, the best first."""
        measured = [(arch, values) for arch, values, counts in self._told if counts]
        if len(self.objectives) == 1:
            objective = self.objectives[0]
            sign = 1.0 if objective.direction == "maximize" else -1.0
            measured.sort(key=lambda one: -sign * one[1][objective.metric])
            return [arch for arch, _ in measured[: self.parents]]
        front = non_dominated(np.array([costs(self.objectives, values) for _, values in measured]))
        return [arch for (arch, _), kept in zip(measured, front, strict=True) if kept]

    # ----------------------------------------------------------------------------- learning

    def _refresh(self, number: int) -> None:
        """Fits the models anew, scores the whole space, and keeps the most promising."""
        pool = self._pool
        assert pool is not None
        self._fit(self._told)
        self._fitted = self._learnt = len(self._told)
        said = [belief.predict(pool.rows) for belief in self._beliefs]
        worth = self._promise(said, np.random.default_rng([self.seed, number, 4]))
        worth = np.where(self._free, worth, -np.inf)
        size = min(int(self._free.sum()), max(_SHORTLIST, 4 * _interval(self._fitted)))
        best = np.argpartition(-worth, size - 1)[:size]
        self._shortlist = [int(index) for index in np.sort(best)]
        self._say()

    def _say(self) -> None:
        """What the models say of the shortlist, computed alike after a resume."""
        if self._pool is not None:
            self._rows_said = self._pool.rows[self._shortlist]
            self._said = [belief.predict(self._rows_said) for belief in self._beliefs]

    def _fit(self, told: Sequence[tuple[Architecture, dict[str, float], bool]]) -> None:
        rows = self._rows([arch for arch, *_ in told])
        beliefs = []
        for position, objective in enumerate(self.objectives):
            if position < len(self._beliefs):
                belief = self._beliefs[position]
            else:
                belief = Belief(
                    self._make_model,
                    1.0 if objective.direction == "maximize" else -1.0,
                    True if len(self.objectives) == 1 else None,
                )
            has = [objective.metric in values for _, values, _ in told]
            values = [v[objective.metric] for _, v, _ in told if objective.metric in v]
            belief.fit(rows[has], np.array(values))
            beliefs.append(belief)
        self._beliefs = beliefs

    def _make_model(self) -> Predictor:
        several = len(self.objectives) > 1
        names, widths = self._inputs.names, self._inputs.widths
        return make_model(self.model, names, widths, self.seed, exact=several)

    def _catch_up(self) -> None:
        """Measurements since the last fit, one by one, where the model takes them so."""
        if self.model == "ridge":
            for arch, values, _ in self._told[self._learnt :]:
                row = self._rows([arch])[0]
                for position, objective in enumerate(self.objectives):
                    if objective.metric in values:
                        value = values[objective.metric]
                        belief = self._beliefs[position]
                        if self._pool is None:
                            belief.learn_alone(row, value)
                        else:
                            said = self._said[position]
                            self._said[position] = belief.learn(self._rows_said, said, row, value)
        self._learnt = len(self._told)

    def _rows(self, archs: Sequence[Architecture]) -> Rows:
        if self._pool is None:
            return self._inputs(archs)
        return self._pool.rows[[self._pool.index[arch.picks] for arch in archs]]

    def _measured_since(self) -> int:
        return len(self._told) - self._fitted

    # ------------------------------------------------------------------------------ scoring

    def _worth(self, rows: Rows, said: list[Prediction], rng: np.random.Generator) -> Floats:
        """The acquisition of some candidates, given what is in flight."""
        pending = list(self._pending.values())
        if pending and self.model == "ridge":
            waiting = self._rows(pending)
            said = [
                Prediction(one.mean, belief.model.std_after(rows, one.std, waiting))
                if isinstance(belief.model, BayesianRidge)
                else one
                for belief, one in zip(self._beliefs, said, strict=True)
            ]
        if self._by_hypervolume:
            return self._hypervolume(said, pending)
        if len(self.objectives) > 1:
            return self._tchebycheff(said, rng)
        mean, std = said[0]
        if self.acquisition == "ucb":
            return upper_confidence_bound(mean, std, self.beta)
        if self.acquisition == "thompson":
            return thompson(mean, std, rng)
        metric, sign = self.objectives[0].metric, self._beliefs[0].sign
        best = max(sign * values[metric] for _, values, counts in self._told if counts)
        return expected_improvement(mean, std, self._beliefs[0].of(sign * best))

    def _promise(self, said: list[Prediction], rng: np.random.Generator) -> Floats:
        """A cheap bound on the acquisition of the whole space: what the shortlist is made by."""
        optimism = max(self.beta, 1.0)
        if len(self.objectives) == 1:
            return upper_confidence_bound(*said[0], optimism)
        if not self._by_hypervolume:
            drawn = [self._tchebycheff(said, rng) for _ in range(16)]
            orders = np.stack([np.argsort(np.argsort(-worth)) for worth in drawn])
            ranked: Floats = -orders.min(axis=0).astype(np.float64)
            return ranked
        bounds = [
            belief.costs(Prediction(upper_confidence_bound(*one, optimism), np.zeros(len(one[0]))))
            for belief, one in zip(self._beliefs, said, strict=True)
        ]
        front, reference = self._front()
        points = np.stack([one.mean for one in bounds], axis=1)
        promise: Floats = hypervolume_improvement(points, front, reference)
        promise -= 1e-9 * points.sum(axis=1)
        return promise

    def _hypervolume(self, said: list[Prediction], pending: Sequence[Architecture]) -> Floats:
        expected = [belief.costs(one) for belief, one in zip(self._beliefs, said, strict=True)]
        front, reference = self._front()
        if pending:
            waiting = self._rows(pending)
            hoped = [belief.costs(belief.predict(waiting)).mean for belief in self._beliefs]
            front = np.concatenate([front, np.stack(hoped, axis=1)])
        mean = np.stack([cost.mean for cost in expected], axis=1)
        std = np.stack([cost.std for cost in expected], axis=1)
        worth: Floats = expected_hypervolume_improvement(mean, std, front, reference.tolist())
        for objective, cost in zip(self.objectives, expected, strict=True):
            if objective.limit is not None:
                sign = -1.0 if objective.direction == "maximize" else 1.0
                worth = worth * probability_below(cost.mean, cost.std, sign * objective.limit)
        # Where nothing is expected any more, the least bad in the sum of standardised costs.
        spread = np.maximum(np.ptp(front, axis=0), 1e-12) if len(front) else np.ones(2)
        worth -= 1e-12 * (mean / spread).sum(axis=1)
        return worth

    def _front(self) -> tuple[Floats, Floats]:
        """Costs of the best that was measured, and of the worst in each objective."""
        points: Floats = np.array(
            [costs(self.objectives, v) for _, v, counts in self._told if counts]
        )
        return points[non_dominated(points)], points.max(axis=0)

    def _tchebycheff(self, said: list[Prediction], rng: np.random.Generator) -> Floats:
        weights = rng.dirichlet(np.ones(len(self.objectives)))
        bounds = np.stack([-upper_confidence_bound(*one, self.beta) for one in said], axis=1)
        low, high = bounds.min(axis=0), bounds.max(axis=0)
        shares = weights * (bounds - low) / np.maximum(high - low, 1e-12)
        distance: Floats = -(shares.max(axis=1) + 0.05 * shares.sum(axis=1))
        for objective, belief, one in zip(self.objectives, self._beliefs, said, strict=True):
            if objective.limit is not None:
                bound = belief.of(objective.limit)
                # A share is at most 1: what breaks a limit for sure comes after all that may not.
                distance -= 2 * probability_below(one.mean, one.std, bound)
        return distance

    # ------------------------------------------------------------------------------ telling

    def tell(self, trial: Trial) -> None:
        self._pending.pop(trial.number, None)
        outcome = trial.outcome
        values: dict[str, float] = {}
        if isinstance(outcome, Measured | Infeasible):
            names = [objective.metric for objective in self.objectives]
            values = {name: outcome.values[name] for name in names if name in outcome.values}
        if not values or not all(np.isfinite(value) for value in values.values()):
            self._dead.append(trial.arch)
            return
        counts = isinstance(outcome, Measured)
        self._told.append((trial.arch, values, counts))
        self._measured += counts

    # ------------------------------------------------------------------------------ resuming

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "pending": {str(number): arch.to_json() for number, arch in self._pending.items()},
            "told": [[arch.to_json(), dict(v), counts] for arch, v, counts in self._told],
            "dead": [arch.to_json() for arch in self._dead],
            "fitted": self._fitted,
            "shortlist": list(self._shortlist),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._forget()
        self._number = state["number"]
        self._pending = {
            int(number): Architecture.from_json(text) for number, text in state["pending"].items()
        }
        self._told = [
            (Architecture.from_json(text), dict(values), counts)
            for text, values, counts in state["told"]
        ]
        self._dead = [Architecture.from_json(text) for text in state["dead"]]
        self._measured = sum(counts for *_, counts in self._told)
        self._fitted = self._learnt = state["fitted"]
        self._shortlist = list(state["shortlist"])
        asked = [*self._pending.values(), *self._dead, *(arch for arch, *_ in self._told)]
        self._seen = {arch.picks for arch in asked}


def _interval(fitted: int) -> int:
    """How many measurements after the last fit the next one is due."""
    return 1 if fitted < _ALWAYS else fitted // 5
