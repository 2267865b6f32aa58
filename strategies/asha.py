"""ASHA, asynchronous successive halving, around any strategy.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht & Talwalkar, "A System for Massively
Parallel Hyperparameter Tuning", MLSys 2020, Algorithm 2: whoever is free takes, from the highest
rung down, an architecture among the best 1/η of its rung that was not promoted yet; where there
is none, a new one enters the lowest rung. Nobody ever waits.

What differs from the paper: new architectures come from the strategy inside, of which random
search is the paper's. What that strategy is told says ``strategies.fidelity``: an architecture is
passed over when it comes back and is not among the best 1/η of its rung, or when others push it
out of them; should it be promoted later all the same, the strategy does not hear of it again. The
paper's least early-stopping rate s is here ``min_epochs``; the highest rung trains ``max_epochs``
exactly, the others that divided by powers of η. What fails is in no rung; what fails after a
promotion was promoted. Several objectives are ranked by front and crowding distance, which takes
time n² in the size of a rung.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from typing import Any

from nas.objective import Objective
from nas.space import SearchSpace
from nas.strategy import Strategy
from nas.trial import Proposal, Trial
from strategies.fidelity import Nested, best_first, check_inner, rung_epochs


class Asha:
    """Promotes whatever is among the best of its rung so far, and never waits.

    Args:
        strategy: proposes the architectures.
        min_epochs: r, of the lowest rung (at least).
        max_epochs: R, of the highest.
        eta: η, the share of a rung that goes on is 1/η, for η times the epochs; 4 in the paper's
            experiments, 3 here as in the other layers.

    Raises:
        ConfigError: an argument is out of range, or the strategy is such a layer itself.
    """

    def __init__(
        self, strategy: Strategy, min_epochs: int = 1, max_epochs: int = 27, eta: int = 3
    ) -> None:
        check_inner(strategy)
        self._epochs = rung_epochs(min_epochs, max_epochs, eta)
        self.strategy = strategy
        self.min_epochs = min_epochs
        self.max_epochs = max_epochs
        self.eta = eta
        self._inner = Nested(strategy)
        self._rungs = [_Rung(strategy.objectives) for _ in self._epochs]
        self._held: list[int] = []  # measured, and the strategy inside has not heard of it

    @property
    def space(self) -> SearchSpace:
        return self.strategy.space

    @property
    def objectives(self) -> Sequence[Objective]:
        return self.strategy.objectives

    @property
    def seed(self) -> int:
        return self.strategy.seed

    def ask(self, n: int) -> Sequence[Proposal]:
        proposals: list[Proposal] = []
        for rung in reversed(range(len(self._epochs) - 1)):
            for name in self._promotable(rung):
                if len(proposals) == n:
                    return proposals
                self._rungs[rung].promoted.add(name)
                if name in self._held:
                    self._held.remove(name)
                epochs = self._epochs[rung + 1]
                proposals.append(self._inner.promote(name, epochs, {"rung": rung + 1}))
        if len(proposals) < n:
            proposals += self._inner.draw(n - len(proposals), self._epochs[0], {"rung": 0})
        return proposals

    def _promotable(self, rung: int) -> list[int]:
        there = self._rungs[rung]
        return [name for name in there.best(self.eta) if name not in there.promoted]

    def tell(self, trial: Trial) -> None:
        name, measured = self._inner.land(trial)
        if not measured:
            self._inner.release(name)
            return
        rung = self._inner.alive[name].rung
        self._rungs[rung].add(name, self._inner.costs(name))
        if rung + 1 == len(self._rungs):
            self._inner.release(name)
            return
        if not self._inner.alive[name].told:
            self._held.append(name)
        # A newcomer may push others out of the best, or make room for one more of them.
        best = set(self._rungs[rung].best(self.eta))
        for held in list(self._held):
            if self._inner.alive[held].rung == rung and held not in best:
                self._held.remove(held)
                self._inner.tell(held)

    def continuable(self) -> set[int]:
        """All below the highest rung that were not promoted: any may still be, as rungs grow."""
        names = [
            name for rung in self._rungs[:-1] for name in rung.members if name not in rung.promoted
        ]
        return self._inner.trials_of(names)

    def state_dict(self) -> dict[str, Any]:
        return {
            **self._inner.state_dict(),
            "held": list(self._held),
            "rungs": [rung.state_dict() for rung in self._rungs],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._inner.load_state_dict(state)
        self._held = list(state["held"])
        for rung, document in zip(self._rungs, state["rungs"], strict=True):
            rung.load_state_dict(document)


class _Rung:
    """Who was measured at a rung, in the order in which they came, and who went on."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = objectives
        self.members: list[int] = []
        self.promoted: set[int] = set()
        self._rows: list[tuple[float, ...]] = []
        self._order: list[tuple[float, int]] = []  # by cost and place, for a single objective

    def add(self, name: int, row: Sequence[float]) -> None:
        if len(self.objectives) == 1:
            insort(self._order, (row[0], len(self.members)))
        self.members.append(name)
        self._rows.append(tuple(row))

    def best(self, eta: int) -> list[int]:
        """The best 1/η, rounded down, best first."""
        count = len(self.members) // eta
        if len(self.objectives) == 1:
            return [self.members[place] for _, place in self._order[:count]]
        if count == 0:
            return []
        return [self.members[place] for place in best_first(self.objectives, self._rows)[:count]]

    def state_dict(self) -> dict[str, Any]:
        return {
            "members": list(self.members),
            "promoted": sorted(self.promoted),
            "rows": [list(row) for row in self._rows],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.members, self._rows, self._order = [], [], []
        for name, row in zip(state["members"], state["rows"], strict=True):
            self.add(name, row)
        self.promoted = set(state["promoted"])
