"""Hyperband around any strategy.

Li, Jamieson, DeSalvo, Rostamizadeh & Talwalkar, "Hyperband: A Novel Bandit-Based Approach to
Hyperparameter Optimization", JMLR 18, 2018, Algorithm 1: brackets s = s_max … 0 of successive
halving, from many architectures that begin with few epochs to few that are all trained in full;
bracket s begins with n = ⌈(s_max + 1)/(s + 1) · η^s⌉ of them and R·η^−s epochs.

What differs from the paper: architectures come from the strategy inside, of which random search
is the paper's; what that strategy is told says ``strategies.fidelity``. After bracket 0 comes
s_max again, until the budget ends. ``min_epochs`` is the unit of R; epochs that are not whole are
rounded. Several objectives are ranked by front and crowding distance. Workers wait at the end of
each rung.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.objective import Objective
from nas.space import SearchSpace
from nas.strategy import Strategy
from nas.trial import Proposal, Trial
from strategies.fidelity import check_inner, rung_epochs
from strategies.halving import Halving, Rung


class Hyperband:
    """Successive halving in brackets from the most exploring to none: a hedge between them.

    Args:
        strategy: proposes the architectures.
        min_epochs: of the lowest rung (at least).
        max_epochs: R, of the highest; 81 in the paper's example.
        eta: η; 3 in the paper, 4 for those in a hurry.

    Raises:
        ConfigError: an argument is out of range, or the strategy is such a layer itself.
    """

    def __init__(
        self, strategy: Strategy, min_epochs: int = 1, max_epochs: int = 81, eta: int = 3
    ) -> None:
        check_inner(strategy)
        rung_epochs(min_epochs, max_epochs, eta)  # checks them
        self.strategy = strategy
        self.min_epochs = min_epochs
        self.max_epochs = max_epochs
        self.eta = eta
        self._halving = Halving(strategy, self.bracket, eta)

    @property
    def space(self) -> SearchSpace:
        return self.strategy.space

    @property
    def objectives(self) -> Sequence[Objective]:
        return self.strategy.objectives

    @property
    def seed(self) -> int:
        return self.strategy.seed

    def bracket(self, number: int) -> list[Rung]:
        """The rungs of the bracket of a number, counted from 0: architectures and epochs."""
        epochs = rung_epochs(self.min_epochs, self.max_epochs, self.eta)
        s = len(epochs) - 1 - number % len(epochs)
        first = -(-len(epochs) * self.eta**s // (s + 1))  # rounded up
        return [(first // self.eta**i, r) for i, r in enumerate(epochs[-s - 1 :])]

    def ask(self, n: int) -> Sequence[Proposal]:
        return self._halving.ask(n)

    def tell(self, trial: Trial) -> None:
        self._halving.tell(trial)

    def continuable(self) -> set[int]:
        """Those of the rung under way, and those that are due in it."""
        return self._halving.continuable()

    def state_dict(self) -> dict[str, Any]:
        return self._halving.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._halving.load_state_dict(state)
