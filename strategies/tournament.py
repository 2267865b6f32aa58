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
from typing import Any, Literal

from nas.architecture import Architecture
from nas.draws import Draws
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives, scalarize
from nas.space import SearchSpace, mutate, sample
from nas.strategy import initial_architectures, proposal_draws, proposal_seed
from nas.trial import Measured, Proposal, Trial
from strategies.ranked import Ranked

Dies = Literal["loser", "nobody"]


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
        if population_size < 2:
            raise ConfigError(f"population_size must be at least 2, got {population_size}")
        whole = isinstance(entrants, int) and 2 <= entrants <= population_size
        if not (whole or 0 < entrants < 1):
            raise ConfigError(
                f"entrants must be a whole number from 2 to population_size ({population_size}), "
                f"or a share between 0 and 1; got {entrants}"
            )
        if dies not in ("loser", "nobody"):
            raise ConfigError(f"dies must be 'loser' or 'nobody', got {dies!r}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.population_size = population_size
        self.entrants = entrants
        self.dies = dies
        self.initial = tuple(initial)
        self._initial = initial_architectures(space, initial)
        self._number = 0
        self._flying = 0
        self._complete = False
        self._population = Ranked()

    def ask(self, n: int) -> Sequence[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        number, self._number = self._number, self._number + 1
        seed = proposal_seed(self.seed, number)
        if number < len(self._initial):
            arch, parent = self._initial[number], None
        else:
            draws = proposal_draws(self.seed, number)
            if self._complete:
                parent, best = self._tournament(draws)
                arch = mutate(self.space, best, draws)
            else:
                arch, parent = sample(self.space, draws), None
        self._flying += 1
        return Proposal(number, arch, seed, parent=parent)

    def _tournament(self, draws: Draws) -> tuple[int, Architecture]:
        alive = len(self._population)
        n = self.entrants if self.entrants >= 1 else round(self.entrants * alive)
        n = min(alive, max(2, int(n)))
        if self.dies == "nobody" or alive < 2 or alive + self._flying < self.population_size:
            number, arch, _ = self._population.winner(n, draws)
            return number, arch
        ranks = draws.distinct(alive, n)
        winner = self._population.pick(min(ranks), draws)
        self._population.remove(winner)  # of equal ones it might be drawn as the loser as well
        self._population.remove(self._population.pick(max(ranks) - 1, draws))
        self._population.add(*winner)
        return winner[:2]

    def tell(self, trial: Trial) -> None:
        self._flying -= 1
        if isinstance(trial.outcome, Measured):
            fitness = scalarize(self.objectives, trial.values)
            self._population.add(trial.number, trial.arch, fitness)
            self._complete = self._complete or len(self._population) >= self.population_size

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "flying": self._flying,
            "complete": self._complete,
            "population": [
                [number, arch.to_json(), fitness] for number, arch, fitness in self._population
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._flying = state["flying"]
        self._complete = state["complete"]
        self._population = Ranked()
        for number, text, fitness in state["population"]:
            self._population.add(number, Architecture.from_json(text), fitness)
