"""Regularised (ageing) evolution.

Real, Aggarwal, Huang & Le, "Regularized Evolution for Image Classifier Architecture Search",
AAAI 2019, Algorithm 1: a random population of P; then each step draws S of its members, copies
the best of them with one mutation, adds the child and removes the oldest member.

What differs from the paper: a mutation changes one choice of any space to another of its options
(the paper's two kinds, one operation or one hidden state of a cell, are such changes). Failed
and infeasible trials never enter the population. With several objectives the fitness is their
weighted product (``nas.objective.scalarize``). Workers never wait: as in the paper's distributed
runs, random architectures are proposed until P members have come back. A search can start from
architectures that are given; the paper's starts from random ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from nas.architecture import Architecture
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives, scalarize
from nas.space import SearchSpace, mutate, sample
from nas.strategy import initial_architectures, proposal_draws, proposal_seed
from nas.trial import Measured, Proposal, Trial
from strategies.ranked import Ranked


class RegularizedEvolution:
    """Ageing evolution: mutate the best of a random sample of the population; the oldest dies.

    Args:
        population_size: P; 100 in the paper.
        sample_size: S, the size of a tournament; 25 in the paper.
        initial: texts of architectures (``nas.space.parse``) that are proposed first.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        population_size: int = 100,
        sample_size: int = 25,
        initial: Sequence[str] = (),
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if population_size < 1:
            raise ConfigError(f"population_size must be at least 1, got {population_size}")
        if not 1 <= sample_size <= population_size:
            raise ConfigError(
                f"sample_size must be from 1 to population_size ({population_size}), "
                f"got {sample_size}"
            )
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.population_size = population_size
        self.sample_size = sample_size
        self.initial = tuple(initial)
        self._initial = initial_architectures(space, initial)
        self._number = 0
        self._population: deque[tuple[int, Architecture, float]] = deque()  # oldest first
        self._ranked = Ranked()

    def ask(self, n: int) -> Sequence[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        number, self._number = self._number, self._number + 1
        seed = proposal_seed(self.seed, number)
        if number < len(self._initial):
            return Proposal(number, self._initial[number], seed)
        draws = proposal_draws(self.seed, number)
        if len(self._population) < self.population_size:
            return Proposal(number, sample(self.space, draws), seed)
        parent, arch, _ = self._ranked.winner(self.sample_size, draws)
        return Proposal(number, mutate(self.space, arch, draws), seed, parent=parent)

    def tell(self, trial: Trial) -> None:
        if not isinstance(trial.outcome, Measured):
            return
        fitness = scalarize(self.objectives, trial.values)
        self._enter(trial.number, trial.arch, fitness)
        if len(self._population) > self.population_size:
            self._ranked.remove(self._population.popleft())

    def _enter(self, number: int, arch: Architecture, fitness: float) -> None:
        self._population.append((number, arch, fitness))
        self._ranked.add(number, arch, fitness)

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "population": [
                [number, arch.to_json(), fitness] for number, arch, fitness in self._population
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._population, self._ranked = deque(), Ranked()
        for number, text, fitness in state["population"]:
            self._enter(number, Architecture.from_json(text), fitness)
