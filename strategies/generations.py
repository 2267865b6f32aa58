"""What the genetic algorithms for several objectives share: generations that nobody waits for.

The first generation is drawn at random (or given). From then on every proposal is bred from the
parents: two binary tournaments, crossover, mutation. Each time as many trials have come back as
an offspring generation has, the algorithm's selection makes new parents of the old ones and
these. With one worker that is the published algorithm. With more, a proposal is bred from the
parents of the moment, trials that come late join the next selection, and no worker waits for a
generation to end.

A child that was proposed before is changed in one more choice until it is new (at most
``MOST_CHANGES`` times). Failed trials take no part. Infeasible ones do: their violation is that
of the values they came with, and infinite where those break no limit that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from nas.architecture import Architecture
from nas.draws import Draws
from nas.errors import ConfigError
from nas.objective import Objective
from nas.pareto import costs, violation
from nas.space import SearchSpace, crossover, mutate, perturb, sample
from nas.strategy import initial_architectures, proposal_draws, proposal_seed
from nas.trial import Infeasible, Measured, Proposal, Trial

MOST_CHANGES = 50

Grade = tuple[float, ...]
"""What a binary tournament compares: the smaller wins."""


class Member(NamedTuple):
    """A trial in the population: costs (smaller is better), and by how much it breaks limits."""

    number: int
    arch: Architecture
    costs: tuple[float, ...]  # all NaN where an infeasible trial was not measured
    violation: float


Select = Callable[[list[Member], Draws], tuple[list[Member], list[Grade]]]
"""Environmental selection: the survivors of parents and offspring, and their grades."""


@dataclass(frozen=True)
class Breeding:
    """How a generation comes from the one before.

    Attributes:
        population_size: of the parents, and of the first generation.
        offspring_size: trials between two selections; ``None``: as many as the population.
        crossover_rate: probability that a child mixes two parents rather than copies one.
        mutation_rate: probability that a choice changes; ``None``: one over their number.
    """

    population_size: int
    offspring_size: int | None = None
    crossover_rate: float = 0.9
    mutation_rate: float | None = None

    def __post_init__(self) -> None:
        if self.population_size < 2:
            raise ConfigError(f"population_size must be at least 2, got {self.population_size}")
        if self.offspring_size is not None and self.offspring_size < 1:
            raise ConfigError(f"offspring_size must be at least 1, got {self.offspring_size}")
        for name in ("crossover_rate", "mutation_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate <= 1:
                raise ConfigError(f"{name} must be from 0 to 1, got {rate}")


class Generations:
    """Parents, the offspring that came back, and what has been proposed.

    Args:
        select: the algorithm's environmental selection.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int,
        breeding: Breeding,
        initial: Sequence[str],
        select: Select,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        self._space = space
        self._objectives = objectives
        self._limited = any(objective.limit is not None for objective in objectives)
        self._seed = seed
        self._breeding = breeding
        self._initial = initial_architectures(space, initial)
        self._select = select
        self._number = 0
        self._selections = 0
        self._parents: list[Member] = []
        self._grades: list[Grade] = []
        self._offspring: list[Member] = []
        self._seen: set[Architecture] = set()

    # ----------------------------------------------------------------------------- asking

    def ask(self, n: int) -> list[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        number, self._number = self._number, self._number + 1
        parent = None
        if number < len(self._initial):
            child = self._initial[number]
        else:
            draws = proposal_draws(self._seed, number)
            if self._parents:
                parent, child = self._breed(draws)
            else:
                child = sample(self._space, draws)
            for _ in range(MOST_CHANGES):
                if child not in self._seen:
                    break
                child = mutate(self._space, child, draws)
        self._seen.add(child)
        return Proposal(number, child, proposal_seed(self._seed, number), parent=parent)

    def _breed(self, draws: Draws) -> tuple[int, Architecture]:
        first = self._winner(draws)
        child = first.arch
        if draws.random() < self._breeding.crossover_rate:
            child = crossover(self._space, child, self._winner(draws).arch, draws)
        rate = self._breeding.mutation_rate
        rate = 1 / len(child.picks) if rate is None else rate
        return first.number, perturb(self._space, child, rate, draws)

    def _winner(self, draws: Draws) -> Member:
        """Of two different parents the one of smaller grade; of equal ones the first drawn."""
        one = draws.integers(len(self._parents))
        other = draws.integers(len(self._parents) - 1)
        other += other >= one
        return self._parents[other if self._grades[other] < self._grades[one] else one]

    # ---------------------------------------------------------------------------- telling

    def tell(self, trial: Trial) -> None:
        member = self._member(trial)
        if member is None:
            return
        self._offspring.append(member)
        breeding = self._breeding
        wanted = breeding.population_size
        if self._parents and breeding.offspring_size is not None:
            wanted = breeding.offspring_size
        if len(self._offspring) >= wanted:
            draws = Draws(self._seed, self._selections, 2)
            self._parents, self._grades = self._select(self._parents + self._offspring, draws)
            self._offspring = []
            self._selections += 1

    def _member(self, trial: Trial) -> Member | None:
        if isinstance(trial.outcome, Measured):
            values = trial.outcome.values
            broken = violation(self._objectives, values) if self._limited else 0.0
            return Member(trial.number, trial.arch, costs(self._objectives, values), broken)
        if isinstance(trial.outcome, Infeasible):
            unmeasured = (float("nan"),) * len(self._objectives)
            broken = violation(self._objectives, trial.outcome.values) or inf
            return Member(trial.number, trial.arch, unmeasured, broken)
        return None

    # ------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "selections": self._selections,
            "parents": [_written(member) for member in self._parents],
            "grades": [list(grade) for grade in self._grades],
            "offspring": [_written(member) for member in self._offspring],
            "seen": sorted(arch.to_json() for arch in self._seen),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._selections = state["selections"]
        self._parents = [_read(member) for member in state["parents"]]
        self._grades = [tuple(grade) for grade in state["grades"]]
        self._offspring = [_read(member) for member in state["offspring"]]
        self._seen = set(map(Architecture.from_json, state["seen"]))


def _written(member: Member) -> list[Any]:
    # A cost that is not there is None: NaN would make two equal states differ.
    known = None if member.costs[0] != member.costs[0] else list(member.costs)
    return [member.number, member.arch.to_json(), known, len(member.costs), member.violation]


def _read(written: Sequence[Any]) -> Member:
    number, text, known, size, broken = written
    values = (float("nan"),) * size if known is None else tuple(known)
    return Member(number, Architecture.from_json(text), values, broken)
