"""A population that is kept in order of fitness, so that a tournament is one draw of a rank."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from math import inf

from nas.architecture import Architecture
from nas.draws import Draws


class Ranked:
    """Members best first. Equal ones have no order: whichever rank is meant, each is as likely.

    A member is a trial's number, its architecture and its fitness (larger is better).
    """

    def __init__(self) -> None:
        self._members: list[tuple[float, int, Architecture]] = []  # numbers differ: no ties

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[tuple[int, Architecture, float]]:
        """Best first; of equal ones the oldest first."""
        return ((number, arch, -cost) for cost, number, arch in self._members)

    def add(self, number: int, arch: Architecture, fitness: float) -> None:
        insort(self._members, (-fitness, number, arch))

    def remove(self, member: tuple[int, Architecture, float]) -> None:
        """Takes out a member that is there."""
        number, _, fitness = member
        del self._members[bisect_left(self._members, (-fitness, number))]

    def pick(self, rank: int, draws: Draws) -> tuple[int, Architecture, float]:
        """The member at a rank, 0 the best; one of those as fit as it, where there are several."""
        members = self._members
        cost = members[rank][0]
        before = rank > 0 and members[rank - 1][0] == cost
        after = rank + 1 < len(members) and members[rank + 1][0] == cost
        if before or after:
            first = bisect_left(members, (cost,))
            rank = first + draws.integers(bisect_left(members, (cost, inf)) - first)
        cost, number, arch = members[rank]
        return number, arch, -cost

    def winner(self, entrants: int, draws: Draws) -> tuple[int, Architecture, float]:
        """The best of so many different members drawn at random."""
        return self.pick(draws.least(len(self._members), entrants), draws)
