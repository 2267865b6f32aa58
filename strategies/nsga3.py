"""NSGA-III: NSGA-II for many objectives, with reference directions in the place of crowding.

Deb & Jain, "An Evolutionary Many-Objective Optimization Algorithm Using Reference-Point-Based
Nondominated Sorting Approach, Part I" (limits: Part II), IEEE Transactions on Evolutionary
Computation 2014. Of the front that does not fit whole, those become parents that belong to the
directions with the fewest members so far; objectives are normalised by the ideal point of the
whole run and by the intercepts of the plane through the extreme points. Directions are Das &
Dennis's with 12 divisions, 91 of them for three objectives, and the population is the next
multiple of four.

What differs from the paper: crossover and mutation are those of choices, no child is proposed
twice and no worker waits for a generation to end: see ``strategies.generations``. There is one
layer of directions (the paper has two from eight objectives on). Where the extreme points span no
plane, or one with intercepts that are not above the ideal point, the front's worst values stand
for the intercepts, as in the authors' later code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.draws import Draws
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives
from nas.pareto import Floats, non_dominated_sort, reference_directions
from nas.space import SearchSpace
from nas.trial import Proposal, Trial
from strategies.generations import Breeding, Generations, Grade, Member

Rows = NDArray[np.intp]


class Nsga3:
    """NSGA-III: selection by Pareto front and by reference directions, for many objectives.

    Args:
        divisions: of each objective between the reference directions; 12 in the paper for three
            objectives.
        population_size: ``None``: the number of directions, rounded up to a multiple of four.
        offspring_size: trials between two selections; ``None``: as many as the population.
        crossover_rate: probability that a child mixes two parents rather than copies one; 1 in
            the paper.
        mutation_rate: probability that a choice changes; ``None``: one over their number.
        initial: texts of architectures (``nas.space.parse``) that are proposed first.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        divisions: int = 12,
        population_size: int | None = None,
        offspring_size: int | None = None,
        crossover_rate: float = 1.0,
        mutation_rate: float | None = None,
        initial: Sequence[str] = (),
    ) -> None:
        if divisions < 1:
            raise ConfigError(f"divisions must be at least 1, got {divisions}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.divisions = divisions
        self.population_size = population_size
        self.offspring_size = offspring_size
        self.crossover_rate = crossover_rate
        self.mutation_rate = mutation_rate
        self.initial = tuple(initial)
        self._directions = reference_directions(len(self.objectives), divisions)
        rounded = 4 * math.ceil(len(self._directions) / 4)
        self._size = rounded if population_size is None else population_size
        self._ideal = [math.inf] * len(self.objectives)
        breeding = Breeding(self._size, offspring_size, crossover_rate, mutation_rate)
        self._generations = Generations(
            space, self.objectives, seed, breeding, initial, self._select
        )

    def _select(self, members: list[Member], draws: Draws) -> tuple[list[Member], list[Grade]]:
        broken = np.array([member.violation for member in members])
        points = np.array([member.costs for member in members])
        if (broken == 0).any():
            self._ideal = np.fmin(self._ideal, points[broken == 0].min(axis=0)).tolist()
        chosen: list[int] = []
        for front in non_dominated_sort(points, broken):
            room = self._size - len(chosen)
            if len(front) > room and broken[front[0]] == 0:
                kept = np.array(chosen, dtype=np.intp)
                ideal = np.array(self._ideal)
                front = by_niches(points, kept, front, room, ideal, self._directions, draws)
            chosen += front[:room].tolist()
            if len(chosen) == self._size:
                break
        survivors = [members[i] for i in chosen]
        # The paper has no order among parents that keep the limits: any two draw.
        return survivors, [(member.violation,) for member in survivors]

    def ask(self, n: int) -> Sequence[Proposal]:
        return self._generations.ask(n)

    def tell(self, trial: Trial) -> None:
        self._generations.tell(trial)

    def state_dict(self) -> dict[str, Any]:
        return {**self._generations.state_dict(), "ideal": list(self._ideal)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._generations.load_state_dict(state)
        self._ideal = list(state["ideal"])


def by_niches(
    points: Floats,
    kept: Rows,
    front: Rows,
    room: int,
    ideal: Floats,
    directions: Floats,
    draws: Draws,
) -> Rows:
    """The rows of a front that are taken where only ``room`` of them fit (Algorithms 2 to 4).

    Args:
        points: costs, a row a member.
        kept: rows of the better fronts, which are taken already.
        ideal: the least cost met so far in each objective.
    """
    rows = np.concatenate((kept, front))
    scaled = normalised(points[rows], ideal)
    niche, distance = associated(scaled, directions)
    counts = np.bincount(niche[: len(kept)], minlength=len(directions)).astype(float)
    waiting: dict[int, list[int]] = {}
    for place in range(len(kept), len(rows)):
        waiting.setdefault(int(niche[place]), []).append(place)
    counts[[j for j in range(len(directions)) if j not in waiting]] = math.inf
    taken: list[int] = []
    while len(taken) < room:
        emptiest = np.flatnonzero(counts == counts.min())
        direction = int(emptiest[draws.integers(len(emptiest))])
        places = waiting[direction]
        if counts[direction] == 0:
            place = min(places, key=distance.__getitem__)
        else:
            place = places[draws.integers(len(places))]
        places.remove(place)
        taken.append(int(rows[place]))
        counts[direction] += 1
        if not places:
            counts[direction] = math.inf
    return np.array(taken, dtype=np.intp)


def normalised(points: Floats, ideal: Floats) -> Floats:
    """Costs from the ideal point on, as shares of the intercepts (Algorithm 2)."""
    moved = points - ideal
    objectives = moved.shape[1]
    # The extreme point of an axis is the one that is least far out on all others.
    weights = np.full((objectives, objectives), 1e-6)
    np.fill_diagonal(weights, 1.0)
    extremes = moved[[int((moved / weight).max(axis=1).argmin()) for weight in weights]]
    worst = moved.max(axis=0)
    intercepts = worst
    if np.linalg.matrix_rank(extremes) == objectives:
        plane = np.linalg.solve(extremes, np.ones(objectives))
        if (plane > 1e-12).all():
            intercepts = 1 / plane
    # An objective in which nobody differs has no scale of its own.
    shares: Floats = moved / np.where(intercepts > 1e-12, intercepts, 1.0)
    return shares


def associated(scaled: Floats, directions: Floats) -> tuple[Rows, Floats]:
    """For each point the direction it is nearest to, and how far from that (Algorithm 3)."""
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    along = scaled @ unit.T
    squares = (scaled**2).sum(axis=1, keepdims=True) - along**2
    distances = np.sqrt(np.maximum(squares, 0.0))
    nearest = distances.argmin(axis=1)
    return nearest, distances[np.arange(len(scaled)), nearest]
