"""NSGA-II: the genetic algorithm that ranks by non-dominated fronts and by crowding.

Deb, Pratap, Agarwal & Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II",
IEEE Transactions on Evolutionary Computation 2002. Parents and offspring are sorted into fronts;
the best fronts become the next parents, and of the one that does not fit the least crowded.
Binary tournaments by front, then by crowding. Limits by constraint domination (section VI): what
keeps them before what does not, and of that what breaks them by less. Population 100, crossover
0.9, mutation one over the number of variables.

What differs from the paper: crossover and mutation are those of choices (each pick from one of
the parents by a fair coin; another option drawn uniformly) and not of real numbers; no child is
proposed twice; and no worker waits for a generation to end: see ``strategies.generations``. With
``offspring_size=1`` parents are selected after every trial (the steady state of Durillo et al.
2009). With a single objective a front is a value, and the selection keeps the best ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas.draws import Draws
from nas.objective import Objective, check_objectives
from nas.pareto import crowding_distance, non_dominated_sort
from nas.space import SearchSpace
from nas.trial import Proposal, Trial
from strategies.generations import Breeding, Generations, Grade, Member


class Nsga2:
    """NSGA-II: selection by Pareto front and crowding, with crossover and mutation.

    Args:
        population_size: N; 100 in the paper.
        offspring_size: trials between two selections; ``None``: N, as in the paper.
        crossover_rate: probability that a child mixes two parents rather than copies one.
        mutation_rate: probability that a choice changes; ``None``: one over their number.
        initial: texts of architectures (``nas.space.parse``) that are proposed first.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        population_size: int = 100,
        offspring_size: int | None = None,
        crossover_rate: float = 0.9,
        mutation_rate: float | None = None,
        initial: Sequence[str] = (),
    ) -> None:
        breeding = Breeding(population_size, offspring_size, crossover_rate, mutation_rate)
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.population_size = population_size
        self.offspring_size = offspring_size
        self.crossover_rate = crossover_rate
        self.mutation_rate = mutation_rate
        self.initial = tuple(initial)
        self._generations = Generations(
            space, self.objectives, seed, breeding, initial, self._select
        )

    def _select(self, members: list[Member], draws: Draws) -> tuple[list[Member], list[Grade]]:
        return crowded_selection(members, self.population_size)

    def ask(self, n: int) -> Sequence[Proposal]:
        return self._generations.ask(n)

    def tell(self, trial: Trial) -> None:
        self._generations.tell(trial)

    def state_dict(self) -> dict[str, Any]:
        return self._generations.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._generations.load_state_dict(state)


def crowded_selection(members: list[Member], size: int) -> tuple[list[Member], list[Grade]]:
    """The best by front, then by crowding distance, with that as their grades."""
    points = np.array([member.costs for member in members])
    broken = np.array([member.violation for member in members])
    survivors: list[Member] = []
    grades: list[Grade] = []
    for rank, front in enumerate(non_dominated_sort(points, broken)):
        # Of what is equally far from the limits the costs do not count.
        kept = broken[front[0]] == 0
        room = crowding_distance(points[front]) if kept else np.zeros(len(front))
        best = np.argsort(-room, kind="stable")[: size - len(survivors)]
        survivors += [members[i] for i in front[best].tolist()]
        grades += [(rank, -distance) for distance in room[best].tolist()]
        if len(survivors) == size:
            break
    return survivors, grades
