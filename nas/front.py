"""The Pareto front of a search, kept as its trials come."""

from __future__ import annotations

from collections.abc import Sequence

from nas.errors import NasError, nearest
from nas.objective import Objective, dominates, violated
from nas.trial import Measured, Trial


class ParetoFront:
    """The measured trials that no other dominates and that keep every limit, kept as they come."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = tuple(objectives)
        self._members: list[Trial] = []

    def add(self, trial: Trial) -> bool:
        """Takes a trial in; says whether it is on the front now.

        Raises:
            NasError: it was measured, but not in one of the objectives.
        """
        if not isinstance(trial.outcome, Measured):
            return False
        values = trial.values
        for objective in self.objectives:
            if objective.metric not in values:
                raise NasError(
                    f"trial {trial.number} did not measure {objective.metric!r}: "
                    f"{nearest(objective.metric, values)}"
                )
        if violated(self.objectives, values) is not None:
            return False
        for member in self._members:
            mine = [member.values[objective.metric] for objective in self.objectives]
            theirs = [values[objective.metric] for objective in self.objectives]
            if mine == theirs or dominates(self.objectives, member.values, values):
                return False
        self._members = [
            member
            for member in self._members
            if not dominates(self.objectives, values, member.values)
        ]
        self._members.append(trial)
        return True

    def trials(self) -> list[Trial]:
        """The front, best first by its first objective."""
        first = self.objectives[0]
        sign = -1.0 if first.direction == "maximize" else 1.0
        return sorted(self._members, key=lambda trial: sign * trial.values[first.metric])

    def __len__(self) -> int:
        return len(self._members)
