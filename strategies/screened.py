"""A surrogate screens what another strategy proposes.

The layer asks the strategy inside for several times as many architectures as are wanted, and
proposes those that a surrogate, fitted on the search's own trials so far, finds most promising:
the candidates are a strategy's, the choice among them a model's. Predictors are used so inside
evolution in Wei et al., "NPENAS: Neural Predictor Guided Evolution for Neural Architecture
Search", IEEE TNNLS 2022 (100 children, the best 10 of a graph network are trained).

What differs from the paper: the strategy inside may be any, the model any of
``nas.predictor.models``, and what is promising is an upper confidence bound on normal scores of
each objective; several objectives are ordered by front and crowding distance.

**What the strategy inside is told** of a candidate that is passed over: that it is infeasible,
at once. Evolution learns nothing of that; strategies that wait for a whole generation get one.
A strategy that proposes nothing twice will not propose it again: on a space that is searched to
its end, what was passed over stays out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.budget import Cost
from nas.errors import ConfigError
from nas.journal import proposal_from_document, proposal_to_document
from nas.objective import Objective
from nas.predictor import NormalScores
from nas.predictor.models import RowMaker, kind_of, make_inputs, make_model
from nas.predictor.protocol import Storable
from nas.space import SearchSpace
from nas.strategy import Strategy
from nas.trial import Infeasible, Measured, Proposal, Trial
from strategies.fidelity import best_first, check_inner

_ALWAYS = 20
_PASSED_OVER = "the surrogate found others more promising"


class Screened:
    """Proposes the most promising of several times as many candidates of another strategy.

    Args:
        strategy: proposes the candidates.
        model: of ``nas.predictor.models``.
        factor: candidates for each architecture that is proposed.
        initial: so many measured trials come first, unscreened.
        optimism: deviations that are added to what is expected, in favour of the unknown.

    Raises:
        ConfigError: an argument is out of range, or the strategy continues its own trials: such
            a layer goes around this one.
        UnsupportedRequest: the space has nothing that the model reads.
    """

    def __init__(
        self,
        strategy: Strategy,
        model: str = "ridge",
        factor: int = 10,
        initial: int = 20,
        optimism: float = 1.0,
    ) -> None:
        check_inner(strategy)
        kind_of(model)
        if factor < 2:
            raise ConfigError(f"screened: factor must be at least 2, got {factor}")
        if initial < 2:
            raise ConfigError(f"screened: initial must be at least 2, got {initial}")
        if not 0 <= optimism < float("inf"):
            raise ConfigError(f"screened: optimism must be zero or more, got {optimism}")
        self.strategy = strategy
        self.model = model
        self.factor = factor
        self.initial = initial
        self.optimism = optimism
        self._inputs: RowMaker = make_inputs(model, strategy.space)
        self._number = 0
        self._flying: dict[int, Proposal] = {}  # the inner strategy's proposals by our numbers
        self._trials: dict[int, int] = {}  # our numbers by the inner strategy's
        self._told: list[tuple[Architecture, dict[str, float]]] = []
        self._measured = 0
        self._fitted = 0
        self._models: list[tuple[Storable, NormalScores] | None] | None = None
        self._proposed: set[Architecture] = set()

    @property
    def space(self) -> SearchSpace:
        return self.strategy.space

    @property
    def objectives(self) -> Sequence[Objective]:
        return self.strategy.objectives

    @property
    def seed(self) -> int:
        return self.strategy.seed

    # ------------------------------------------------------------------------------- asking

    def ask(self, n: int) -> Sequence[Proposal]:
        if n < 1:
            return []
        if self._measured < self.initial:
            return [self._propose(inner, Cost()) for inner in self.strategy.ask(n)]
        candidates = list(self.strategy.ask(n * self.factor))
        if not candidates:
            return []
        # One that cannot give as many as it is asked for is screened as sharply.
        kept = min(n, max(1, len(candidates) // self.factor))
        chosen = set(self._order(candidates)[:kept])
        spent = Cost()
        for position, inner in enumerate(candidates):
            if position not in chosen:
                spent += inner.spent
                self.strategy.tell(Trial(inner, Infeasible(_PASSED_OVER), Cost()))
        proposals: list[Proposal] = []
        for position in sorted(chosen):
            proposals.append(self._propose(candidates[position], spent))
            spent = Cost()
        return proposals

    def _propose(self, inner: Proposal, spent: Cost) -> Proposal:
        """The proposal that stands for the inner strategy's, charged what finding it cost."""
        number, self._number = self._number, self._number + 1
        self._flying[number] = inner
        self._trials[inner.number] = number
        self._proposed.add(inner.arch)
        parent = None if inner.parent is None else self._trials.get(inner.parent)
        return replace(inner, number=number, parent=parent, spent=inner.spent + spent)

    def _order(self, candidates: Sequence[Proposal]) -> list[int]:
        """The positions of the candidates, most promising first.

        What was proposed before comes last, and so does the second of two alike: the best that
        is known looks best to any model, and measuring it again finds nothing.
        """
        self._refresh()
        assert self._models is not None
        rows = self._inputs([inner.arch for inner in candidates])
        costs = np.zeros((len(candidates), len(self.objectives)))
        broken = np.zeros(len(candidates), dtype=np.int64)
        for column, (objective, known) in enumerate(
            zip(self.objectives, self._models, strict=True)
        ):
            if known is None:
                continue
            model, scores = known
            said = model.predict(rows)
            costs[:, column] = -(said.mean + self.optimism * said.std)
            if objective.limit is not None:
                broken += -costs[:, column] < scores.of(_sign(objective) * objective.limit)
        seen = set(self._proposed)
        groups: dict[tuple[bool, int], list[int]] = {}
        for position, inner in enumerate(candidates):
            again = inner.arch in seen
            seen.add(inner.arch)
            groups.setdefault((again, int(broken[position])), []).append(position)
        order: list[int] = []
        for group in sorted(groups):
            members = groups[group]
            order += [members[i] for i in best_first(self.objectives, costs[members].tolist())]
        return order

    # ----------------------------------------------------------------------------- learning

    def _refresh(self) -> None:
        """Fits the models anew where enough was measured since."""
        new = len(self._told) - self._fitted
        if new and (len(self._told) <= _ALWAYS or new >= self._fitted // 10):
            self._fitted, self._models = len(self._told), None
        if self._models is None:
            told = self._told[: self._fitted]
            self._models = [self._model(objective, told) for objective in self.objectives]

    def _model(
        self, objective: Objective, told: Sequence[tuple[Architecture, dict[str, float]]]
    ) -> tuple[Storable, NormalScores] | None:
        has = [(arch, found) for arch, found in told if objective.metric in found]
        if not has:
            return None
        sign = _sign(objective)
        scores = NormalScores([sign * found[objective.metric] for _, found in has])
        model = make_model(self.model, self._inputs, self.seed)
        model.fit(self._inputs([arch for arch, _ in has]), scores.scores)
        return model, scores

    # ------------------------------------------------------------------------------ telling

    def tell(self, trial: Trial) -> None:
        inner = self._flying.pop(trial.number)
        outcome = trial.outcome
        if isinstance(outcome, Measured | Infeasible):
            names = [objective.metric for objective in self.objectives]
            found = {name: outcome.values[name] for name in names if name in outcome.values}
            found = {name: value for name, value in found.items() if np.isfinite(value)}
            if found:
                self._told.append((trial.arch, found))
            self._measured += isinstance(outcome, Measured)
        self.strategy.tell(replace(trial, proposal=inner))

    # ------------------------------------------------------------------------------ resuming

    def state_dict(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy.state_dict(),
            "number": self._number,
            # As text: there may be thousands of them, and states are copied and compared.
            "flying": {
                str(number): json.dumps(proposal_to_document(inner))
                for number, inner in self._flying.items()
            },
            "trials": [[inner, number] for inner, number in self._trials.items()],
            "told": [[arch.to_json(), dict(found)] for arch, found in self._told],
            "measured": self._measured,
            "fitted": self._fitted,
            "proposed": sorted(arch.to_json() for arch in self._proposed),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.strategy.load_state_dict(state["strategy"])
        self._number = state["number"]
        self._flying = {
            int(number): proposal_from_document(json.loads(text))
            for number, text in state["flying"].items()
        }
        self._trials = dict(state["trials"])
        self._told = [(Architecture.from_json(text), dict(found)) for text, found in state["told"]]
        self._measured = state["measured"]
        self._fitted = state["fitted"]
        self._models = None  # fitted again to what they were fitted to
        self._proposed = {Architecture.from_json(text) for text in state["proposed"]}


def _sign(objective: Objective) -> float:
    return 1.0 if objective.direction == "maximize" else -1.0
