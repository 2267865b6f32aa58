"""What the fidelity layers share: rungs, the order within one, and the strategy inside.

A layer is a strategy around another: the one inside says which architectures, the layer for how
many epochs each is trained and which go on. It numbers its proposals itself, one for every
training; the strategy inside numbers architectures and never sees the layer's numbers.

**What the strategy inside is told**: each architecture once, with what it measured at the highest
rung it reached, when it is passed over or through. Learners remember what they are told and cannot
take it back, so they hear of no architecture twice. Values of different rungs do meet in a
learner, and this way they meet in the order the layer itself decided on: where training longer
improves the objectives, what was promoted is above what was not. Being told the lowest rung's
values alone would compare like with like, but then a learner knows nothing of what the longer
trainings found, which is what they are for. (BOHB, Falkner et al. 2018, likewise learns from the
largest budget it can; on the digits table neither way is clearly better for evolution, over 50
seeds.) A failure at a higher rung is not the architecture's: then what it
measured before is told; a broken limit is told as such.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nas.budget import Cost
from nas.errors import ConfigError
from nas.journal import (
    outcome_from_document,
    outcome_to_document,
    proposal_from_document,
    proposal_to_document,
)
from nas.objective import Objective
from nas.pareto import costs, crowding_distance, non_dominated_sort
from nas.strategy import HasContinuable, Strategy
from nas.trial import Infeasible, Measured, Outcome, Proposal, Trial


def rung_epochs(min_epochs: int, max_epochs: int, eta: int) -> tuple[int, ...]:
    """The epochs of each rung, lowest first: ``max_epochs`` divided by powers of ``eta``.

    As many as stay at or above ``min_epochs``; rounded where they are not whole.

    Raises:
        ConfigError: an argument is out of range.
    """
    if eta < 2:
        raise ConfigError(f"eta must be at least 2, got {eta}")
    if min_epochs < 1:
        raise ConfigError(f"min_epochs must be at least 1, got {min_epochs}")
    if max_epochs < min_epochs:
        raise ConfigError(
            f"max_epochs must be at least min_epochs ({min_epochs}), got {max_epochs}"
        )
    powers = [1]
    while min_epochs * powers[-1] * eta <= max_epochs:
        powers.append(powers[-1] * eta)
    return tuple(round(max_epochs / power) for power in reversed(powers))


def check_inner(strategy: Strategy) -> None:
    """Refuses a layer inside a layer; raises ``ConfigError``."""
    if isinstance(strategy, HasContinuable):
        raise ConfigError(
            f"strategy: {type(strategy).__name__} decides on fidelities itself: one layer is enough"
        )


def best_first(objectives: Sequence[Objective], rows: Sequence[Sequence[float]]) -> list[int]:
    """The order of rows of costs, best first, the earlier of equals first.

    Several objectives are ordered as NSGA-II does: by front, and by crowding distance within.
    """
    if len(objectives) == 1:
        return sorted(range(len(rows)), key=lambda index: rows[index][0])
    order: list[int] = []
    points = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(objectives))
    for front in non_dominated_sort(points):
        distance = crowding_distance(points[front])
        order += front[np.argsort(-distance, kind="stable")].tolist()
    return order


@dataclass(slots=True, eq=False)
class Candidate:
    """An architecture on its way.

    Attributes:
        proposal: the inner strategy's.
        rung: the highest it was proposed for.
        trial: the number of its last measured trial.
        outcome: what that found.
        cost: of all its trials, but for seconds: those differ from run to run, and a state is to
            be the same in each.
        told: whether the inner strategy has heard of it.
        text: the proposal as JSON, once a state was asked for.
    """

    proposal: Proposal
    rung: int = 0
    trial: int | None = None
    outcome: Outcome | None = None
    cost: Cost = Cost()
    told: bool = False
    text: str | None = None


class Nested:
    """The strategy inside a layer, its architectures under way, and both kinds of numbers.

    Attributes:
        alive: the architectures that may still be trained, by the inner strategy's number.
        flying: what is being trained: the layer's numbers, and whose trials they are.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.alive: dict[int, Candidate] = {}
        self.flying: dict[int, int] = {}
        self._number = 0
        self._trials: list[int] = []  # the last trial of each architecture: what parents refer to

    def draw(self, n: int, epochs: int, notes: Mapping[str, Any]) -> list[Proposal]:
        """Up to ``n`` new architectures."""
        proposals: list[Proposal] = []
        for inner in self.strategy.ask(n):
            self.alive[inner.number] = Candidate(inner)
            self._trials.append(self._number)
            proposals.append(self._propose(inner.number, epochs, notes))
        return proposals

    def promote(self, name: int, epochs: int, notes: Mapping[str, Any]) -> Proposal:
        """The next training of an architecture, which continues its last."""
        self.alive[name].rung += 1
        return self._propose(name, epochs, notes)

    def _propose(self, name: int, epochs: int, notes: Mapping[str, Any]) -> Proposal:
        number, self._number = self._number, self._number + 1
        self.flying[number] = name
        candidate = self.alive[name]
        inner = candidate.proposal
        return replace(
            inner,
            number=number,
            fidelity=replace(inner.fidelity, epochs=epochs),
            parent=None if inner.parent is None else self._trials[inner.parent],
            spent=inner.spent if candidate.trial is None else Cost(),
            notes={**inner.notes, **notes},
            continues=candidate.trial,
        )

    def land(self, trial: Trial) -> tuple[int, bool]:
        """Takes a trial in: whose it is, and whether it was measured."""
        name = self.flying.pop(trial.number)
        candidate = self.alive[name]
        candidate.cost += replace(trial.cost, seconds=0.0)
        if isinstance(trial.outcome, Measured):
            candidate.trial = self._trials[name] = trial.number
            candidate.outcome = replace(trial.outcome, artifacts={})
            return name, True
        if candidate.outcome is None or isinstance(trial.outcome, Infeasible):
            candidate.outcome = trial.outcome
        return name, False

    def tell(self, name: int) -> None:
        """Tells the inner strategy of an architecture, unless it has heard of it."""
        candidate = self.alive[name]
        outcome = candidate.outcome
        assert outcome is not None
        if not candidate.told:
            candidate.told = True
            self.strategy.tell(Trial(candidate.proposal, outcome, candidate.cost))
        if isinstance(outcome, Measured):
            candidate.outcome = replace(outcome, notes={})

    def release(self, name: int) -> None:
        """Tells the inner strategy of an architecture that is not trained any more."""
        self.tell(name)
        del self.alive[name]

    def costs(self, name: int) -> tuple[float, ...]:
        """What an architecture measured last, in the objectives, smaller being better."""
        outcome = self.alive[name].outcome
        assert isinstance(outcome, Measured)
        return costs(self.strategy.objectives, outcome.values)

    def trials_of(self, names: Sequence[int]) -> set[int]:
        """The last measured trials of these architectures and of all that are being trained."""
        everyone = [*names, *self.flying.values()]
        trials = {self.alive[name].trial for name in everyone}
        return {trial for trial in trials if trial is not None}

    def state_dict(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy.state_dict(),
            "number": self._number,
            "trials": list(self._trials),
            "flying": list(self.flying),
            "names": list(self.flying.values()),
            # As text: there may be thousands of them, and states are copied and compared.
            "alive": [_to_text(candidate) for candidate in self.alive.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.strategy.load_state_dict(state["strategy"])
        self._number = state["number"]
        self._trials = list(state["trials"])
        self.flying = dict(zip(state["flying"], state["names"], strict=True))
        candidates = [_from_text(text) for text in state["alive"]]
        self.alive = {candidate.proposal.number: candidate for candidate in candidates}


def _to_text(candidate: Candidate) -> str:
    if candidate.text is None:
        candidate.text = json.dumps(proposal_to_document(candidate.proposal))
    outcome, cost = candidate.outcome, candidate.cost
    found = None if outcome is None else outcome_to_document(outcome)
    rest = [candidate.rung, candidate.trial, found, cost.trials, cost.epochs, candidate.told]
    return f"[{candidate.text}, {json.dumps(rest)}]"


def _from_text(text: str) -> Candidate:
    proposal, (rung, trial, found, trials, epochs, told) = json.loads(text)
    return Candidate(
        proposal_from_document(proposal),
        rung,
        trial,
        None if found is None else outcome_from_document(found),
        Cost(trials=trials, epochs=epochs),
        told,
    )
