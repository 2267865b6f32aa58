"""A population of measured trials in which the winner of a tournament breeds and its loser dies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nas.architecture import Architecture
from nas.draws import Draws
from nas.errors import ConfigError
from nas.objective import Objective, scalarize
from nas.trial import Measured, Trial
from strategies.ranked import Ranked

Dies = Literal["loser", "nobody"]


class Survivors:
    """Those alive, and how many are on their way; see ``strategies.tournament``.

    Args:
        population_size: how many live on.
        entrants: of a tournament: how many, or which share (below 1) of those alive.
        dies: the worst of a tournament (``"loser"``), or ``"nobody"``.

    Attributes:
        complete: whether there ever were ``population_size``.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        population_size: int,
        entrants: int | float,
        dies: Dies,
    ) -> None:
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
        self.objectives = objectives
        self.population_size = population_size
        self.entrants = entrants
        self.dies = dies
        self.complete = False
        self._flying = 0
        self._population = Ranked()

    def numbers(self) -> set[int]:
        """The trials of those alive."""
        return {number for number, _, _ in self._population}

    def expect(self) -> None:
        """One more is on its way."""
        self._flying += 1

    def tournament(self, draws: Draws) -> tuple[int, Architecture]:
        """The winner; the loser is dead then, if anybody is to die."""
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
        """One came back; it lives if it was measured."""
        self._flying -= 1
        if isinstance(trial.outcome, Measured):
            fitness = scalarize(self.objectives, trial.values)
            self._population.add(trial.number, trial.arch, fitness)
            self.complete = self.complete or len(self._population) >= self.population_size

    def state_dict(self) -> dict[str, Any]:
        return {
            "flying": self._flying,
            "complete": self.complete,
            "population": [
                [number, arch.to_json(), fitness] for number, arch, fitness in self._population
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._flying = state["flying"]
        self.complete = state["complete"]
        self._population = Ranked()
        for number, text, fitness in state["population"]:
            self._population.add(number, Architecture.from_json(text), fitness)
