"""Tournament evolution: pairs of which the worse dies, or larger groups in which nobody does.

Real et al., "Large-Scale Evolution of Image Classifiers", ICML 2017: of two members drawn at
random the worse is killed, the better is copied and its copy mutated; the copy joins when it is
trained. Population 1000. That is the default.

Liu et al., "Hierarchical Representations for Efficient Architecture Search", ICLR 2018: the best
of 5 % of the population drawn at random is copied and mutated, and nobody dies. Population 200
to begin with: ``Tournament(…, population_size=200, entrants=0.05, dies="nobody")``.

What differs from the papers: a mutation changes one choice of any space to another of its
options; the search starts from random or given architectures, not from trivial ones (to start as
Liu et al. do, give mutated copies of one). A member dies only while those alive and those on
their way are as many as the population should be, so that failures do not wear it away. Failed
and infeasible trials never join. With several objectives the fitness is their weighted product
(``nas.objective.scalarize``). Workers never wait: random architectures are proposed until the
population is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.errors import ConfigError
from nas.objective import Objective, check_objectives
from nas.space import SearchSpace, mutate, sample
from nas.strategy import initial_architectures, proposal_draws, proposal_seed
from nas.trial import Proposal, Trial
from strategies.survivors import Dies, Survivors


class Tournament:
    """Tournament evolution: the better of a pair is mutated, the worse dies.

    Args:
        population_size: how many random architectures come first, and how many live on.
        entrants: of a tournament: how many, or which share (below 1) of those alive.
        dies: the worst of a tournament (``"loser"``), or ``"nobody"``: the population grows.
        initial: texts of architectures (``nas.space.parse``) that are proposed first.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        population_size: int = 1000,
        entrants: int | float = 2,
        dies: Dies = "loser",
        initial: Sequence[str] = (),
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.population_size = population_size
        self.entrants = entrants
        self.dies = dies
        self.initial = tuple(initial)
        self._initial = initial_architectures(space, initial)
        self._number = 0
        self._survivors = Survivors(self.objectives, population_size, entrants, dies)

    def ask(self, n: int) -> Sequence[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        number, self._number = self._number, self._number + 1
        seed = proposal_seed(self.seed, number)
        if number < len(self._initial):
            arch, parent = self._initial[number], None
        else:
            draws = proposal_draws(self.seed, number)
            if self._survivors.complete:
                parent, best = self._survivors.tournament(draws)
                arch = mutate(self.space, best, draws)
            else:
                arch, parent = sample(self.space, draws), None
        self._survivors.expect()
        return Proposal(number, arch, seed, parent=parent)

    def tell(self, trial: Trial) -> None:
        self._survivors.tell(trial)

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number, **self._survivors.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._survivors.load_state_dict(state)
