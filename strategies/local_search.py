"""Local search: hill climbing over the neighbours of an architecture, again and again.

White, Nolen & Savani, "Exploring the Loss Landscape in Neural Architecture Search" ("Local
Search is State of the Art for NAS Benchmarks"), UAI 2021: from the best of a few random
architectures go to a better neighbour until none is better, then begin anew. This is the paper's
variant that moves to the first better neighbour it meets (``query_full_nbhd=False`` in its code),
not to the best of all.

What differs from the paper: neighbours are those of any space (``nas.space.neighbours``: exactly
one of the choices that both have differs), met in random order. Nothing is proposed twice, also
from one climb to the next; equal networks in other words are not recognised, since one of them
may be a step to where the other does not lead. A worker that has nothing to do while a climb
waits for its last neighbours begins the next climb. Failed and infeasible trials are no better
than anything. With several objectives climbs are of their weighted product
(``nas.objective.scalarize``).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nas.architecture import Architecture
from nas.draws import Draws
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives, scalarize
from nas.space import SearchSpace, enumerate_architectures, mutate, neighbours, sample
from nas.strategy import initial_architectures, proposal_draws, proposal_seed
from nas.trial import Measured, Proposal, Trial


@dataclass
class _Climb:
    """A climb: where it is, what it may still try from there, and how much it waits for."""

    starts: int  # random architectures still to be proposed before it sets off
    flying: int = 0
    under_way: bool = False
    number: int | None = None  # of the trial it stands at; None before any start was measured
    arch: Architecture | None = None
    fitness: float = 0.0
    left: list[Architecture] = field(default_factory=list)  # neighbours, the next one last


class LocalSearch:
    """Local search: to the first better neighbour, and anew from where none is better.

    Args:
        starts: random architectures of which the best begins a climb; 10 in the paper's later
            code (naszilla), 1 in its first.
        most_neighbours: of an architecture with more (a choice that opens others has many), so
            many are drawn by mutation.
        initial: texts of architectures (``nas.space.parse``) that are proposed first; the best
            of them and of ``starts`` less as many random ones begins the first climb.
    """

    # So many draws in a row that were all proposed before mean that few are left: list those.
    _DRAWS = 200

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        starts: int = 1,
        most_neighbours: int = 1000,
        initial: Sequence[str] = (),
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if starts < 1:
            raise ConfigError(f"starts must be at least 1, got {starts}")
        if most_neighbours < 1:
            raise ConfigError(f"most_neighbours must be at least 1, got {most_neighbours}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.starts = starts
        self.most_neighbours = most_neighbours
        self.initial = tuple(initial)
        self._initial = initial_architectures(space, initial)
        self._number = 0
        self._seen: set[Architecture] = set()
        self._climbs: dict[int, _Climb] = {}  # by the number of its first proposal
        self._flying: dict[int, int] = {}  # the climb that a proposal in flight belongs to

    # ----------------------------------------------------------------------------- asking

    def ask(self, n: int) -> Sequence[Proposal]:
        proposals: list[Proposal] = []
        while len(proposals) < n and (proposal := self._propose()) is not None:
            proposals.append(proposal)
        return proposals

    def _propose(self) -> Proposal | None:
        number = self._number
        draws = proposal_draws(self.seed, number)
        for key, climb in self._climbs.items():
            if climb.starts:
                arch = self._start(number, draws)
                if arch is None:
                    continue
                climb.starts -= 1
                return self._made(number, arch, key)
            while climb.left:
                arch = climb.left.pop()
                if arch not in self._seen:
                    return self._made(number, arch, key, climb.number)
        arch = self._start(number, draws)
        if arch is None:
            return None
        starts = self.starts if number else max(self.starts, len(self._initial))
        self._climbs[number] = _Climb(starts - 1)
        return self._made(number, arch, number)

    def _made(
        self, number: int, arch: Architecture, climb: int, parent: int | None = None
    ) -> Proposal:
        self._number += 1
        self._seen.add(arch)
        self._climbs[climb].flying += 1
        self._flying[number] = climb
        return Proposal(number, arch, proposal_seed(self.seed, number), parent=parent)

    def _start(self, number: int, draws: Draws) -> Architecture | None:
        """An architecture to start from that is new; ``None`` when all were proposed."""
        if number < len(self._initial):
            return self._initial[number]
        for _ in range(self._DRAWS):
            arch = sample(self.space, draws)
            if arch not in self._seen:
                return arch
        left = [arch for arch in enumerate_architectures(self.space) if arch not in self._seen]
        return left[draws.integers(len(left))] if left else None

    # ---------------------------------------------------------------------------- telling

    def tell(self, trial: Trial) -> None:
        key = self._flying.pop(trial.number)
        climb = self._climbs[key]
        climb.flying -= 1
        if isinstance(trial.outcome, Measured):
            fitness = scalarize(self.objectives, trial.values)
            if climb.number is None or fitness > climb.fitness:
                climb.number, climb.arch, climb.fitness = trial.number, trial.arch, fitness
                if climb.under_way:
                    climb.left = self._around(trial.number, trial.arch)
        if not climb.under_way and not climb.starts and not climb.flying:
            climb.under_way = True
            if climb.number is not None and climb.arch is not None:
                climb.left = self._around(climb.number, climb.arch)
        if self._over(climb):
            del self._climbs[key]

    def _around(self, number: int, arch: Architecture) -> list[Architecture]:
        """The neighbours of a trial's architecture that are new, in random order."""
        draws = Draws(self.seed, number, 1)
        near = list(itertools.islice(neighbours(self.space, arch), self.most_neighbours + 1))
        if len(near) > self.most_neighbours:
            near = self._some_around(arch, draws)
        return [near[i] for i in draws.shuffled(len(near)) if near[i] not in self._seen]

    def _some_around(self, arch: Architecture, draws: Draws) -> list[Architecture]:
        """Neighbours drawn by mutation, where they are too many to be listed."""
        here = arch.as_dict()
        found: dict[Architecture, None] = {}
        for _ in range(2 * self.most_neighbours):
            near = mutate(self.space, arch, draws)
            # A mutation may make later picks illegal, and is no neighbour then.
            if sum(label in here and here[label] != option for label, option in near.picks) == 1:
                found[near] = None
            if len(found) == self.most_neighbours:
                break
        return list(found)

    def _over(self, climb: _Climb) -> bool:
        waits = climb.starts or climb.flying
        return not waits and all(arch in self._seen for arch in climb.left)

    # ------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "seen": sorted(arch.to_json() for arch in self._seen),
            "flying": [[number, climb] for number, climb in self._flying.items()],
            "climbs": [
                {
                    "key": key,
                    "starts": climb.starts,
                    "flying": climb.flying,
                    "under_way": climb.under_way,
                    "number": climb.number,
                    "arch": None if climb.arch is None else climb.arch.to_json(),
                    "fitness": climb.fitness,
                    "left": [arch.to_json() for arch in climb.left if arch not in self._seen],
                }
                for key, climb in self._climbs.items()
                if not self._over(climb)
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._seen = set(map(Architecture.from_json, state["seen"]))
        self._flying = dict(state["flying"])
        self._climbs = {
            one["key"]: _Climb(
                one["starts"],
                one["flying"],
                one["under_way"],
                one["number"],
                None if one["arch"] is None else Architecture.from_json(one["arch"]),
                one["fitness"],
                list(map(Architecture.from_json, one["left"])),
            )
            for one in state["climbs"]
        }
