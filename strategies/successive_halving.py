"""Successive halving around any strategy.

Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
AISTATS 2016; with η for 2 and whole rungs as in Li et al. 2020, Algorithm 1: n architectures are
trained for the fewest epochs, the best n/η of them for η times as many, and so on.

What differs from the paper: architectures come from the strategy inside, of which random search
is the paper's; what that strategy is told says ``strategies.fidelity``. When a bracket is over the
next one begins, until the budget ends. The last rung trains ``max_epochs`` exactly, the others
that divided by powers of η (in the paper ``min_epochs`` times powers of η: the same where their
ratio is one). Several objectives are ranked by front and crowding distance. Workers wait at the
end of each rung: ``strategies.asha`` does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.errors import ConfigError
from nas.objective import Objective
from nas.space import SearchSpace
from nas.strategy import Strategy
from nas.trial import Proposal, Trial
from strategies.fidelity import check_inner, rung_epochs
from strategies.halving import Halving, Rung


class SuccessiveHalving:
    """Trains many architectures briefly, the best of them longer, the best of those longest.

    Args:
        strategy: proposes the architectures.
        configurations: n, how many a bracket begins with; by default as many as leave one for
            the last rung.
        min_epochs: r, of the lowest rung (at least).
        max_epochs: R, of the highest.
        eta: η, the share of a rung that goes on is 1/η, for η times the epochs.

    Raises:
        ConfigError: an argument is out of range, or the strategy is such a layer itself.
    """

    def __init__(
        self,
        strategy: Strategy,
        configurations: int | None = None,
        min_epochs: int = 1,
        max_epochs: int = 27,
        eta: int = 3,
    ) -> None:
        check_inner(strategy)
        epochs = rung_epochs(min_epochs, max_epochs, eta)
        least = eta ** (len(epochs) - 1)
        if configurations is not None and configurations < least:
            raise ConfigError(
                f"configurations must be at least {least}, for one to reach {max_epochs} epochs, "
                f"got {configurations}"
            )
        self.strategy = strategy
        self.configurations = configurations
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
        """The rungs of a bracket: how many architectures, up to how many epochs."""
        epochs = rung_epochs(self.min_epochs, self.max_epochs, self.eta)
        first = self.configurations or self.eta ** (len(epochs) - 1)
        return [(first // self.eta**i, r) for i, r in enumerate(epochs)]

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
