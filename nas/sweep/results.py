"""What the searches of a sweep found, read once from their journals: for the table and the curves.

Everything but seconds is what the searches would give on any machine: where the executors are
serial, the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.components import objective_from
from nas.history import History, ParetoFront
from nas.objective import Objective
from nas.pareto import costs, hypervolume
from nas.sweep.files import Sweep, SweepSearch, is_done
from nas.trial import Failed, Trial

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What one search found.

    Attributes:
        trials: how many ended.
        failed: of these.
        seconds: of work until the end of each trial, in the order in which they ended.
        steps: after which trial (from 1) the front changed, and the values of the objectives of
            those then on it: n × objectives.
    """

    search: SweepSearch
    trials: int
    failed: int
    seconds: Floats
    steps: tuple[tuple[int, Floats], ...]

    def best(self, objectives: Sequence[Objective]) -> dict[str, float]:
        """The best value of each objective within the limits; empty if no trial kept them."""
        if not self.steps:
            return {}
        front = self.steps[-1][1]
        pick = {"maximize": np.max, "minimize": np.min}
        return {
            one.metric: float(pick[one.direction](front[:, column]))
            for column, one in enumerate(objectives)
        }


def objectives_of(documents: Sequence[Mapping[str, object]]) -> tuple[Objective, ...]:
    """Objectives from their descriptions."""
    return tuple(objective_from(one, f"objectives[{i}]") for i, one in enumerate(documents))


def results(folder: Path, sweep: Sweep) -> Iterator[Found]:
    """What each search found that has ended, in the sweep's order."""
    for one in sweep.searches:
        if is_done(folder / one.folder, one.config):
            objectives = objectives_of(one.config["objectives"])
            yield _found(one, History(folder / one.folder).trials, objectives)


def _found(one: SweepSearch, trials: Sequence[Trial], objectives: Sequence[Objective]) -> Found:
    front = ParetoFront(objectives)
    metrics = [objective.metric for objective in objectives]
    steps: list[tuple[int, Floats]] = []
    for number, trial in enumerate(trials, start=1):
        if front.add(trial):
            rows = [[member.values[metric] for metric in metrics] for member in front.trials()]
            steps.append((number, np.array(rows, dtype=np.float64)))
    return Found(
        search=one,
        trials=len(trials),
        failed=sum(isinstance(trial.outcome, Failed) for trial in trials),
        seconds=np.cumsum([trial.cost.seconds for trial in trials], dtype=np.float64),
        steps=tuple(steps),
    )


@dataclass(frozen=True)
class Corners:
    """What the hypervolumes of searches that are compared are measured in.

    Attributes:
        labels: what these searches have in common (``SweepSearch.group``).
        reference: the worst value of each objective.
        ideal: the best one that any of them found.
    """

    labels: Mapping[str, str]
    reference: Mapping[str, float]
    ideal: Mapping[str, float]


@dataclass(frozen=True)
class Box:
    """The box of each group of searches that are compared.

    Attributes:
        given: the reference point, where the sweep's file says one.
    """

    objectives: tuple[Objective, ...]
    corners: tuple[Corners, ...]
    given: Mapping[str, float] | None = None

    def share(self, search: SweepSearch, front: Floats) -> float:
        """The share of its group's box that the points of a front (n × objectives) dominate.

        0 at the worst; 1 were one point the best in everything.
        """
        (corners,) = [one for one in self.corners if one.labels == search.group]
        rows = [
            costs(
                self.objectives,
                {one.metric: float(v) for one, v in zip(self.objectives, row, strict=True)},
            )
            for row in front
        ]
        low, high = (
            np.array(costs(self.objectives, corner))
            for corner in (corners.ideal, corners.reference)
        )
        side = np.where(high > low, high - low, 1.0)
        return hypervolume((np.array(rows) - low) / side, (high - low) / side)


def box(
    objectives: tuple[Objective, ...],
    found: Sequence[Found],
    reference: Mapping[str, float] | None = None,
) -> Box | None:
    """The boxes that searches share; ``None`` if none of them has a trial within the limits.

    Searches that are compared share one: those of one data set, say, and all strategies. Its best
    corner is the best value of each objective on any of their fronts; its reference point is the
    worst on any of them at any time, unless one is given.
    """
    groups: dict[tuple[str, ...], list[Found]] = {}
    for one in found:
        if one.steps:
            groups.setdefault(tuple(one.search.group.values()), []).append(one)
    corners = tuple(
        Corners(
            members[0].search.group,
            dict(reference or _extreme(objectives, members, worst=True)),
            _extreme(objectives, members, worst=False),
        )
        for members in groups.values()
    )
    return Box(objectives, corners, reference) if corners else None


def _extreme(
    objectives: Sequence[Objective], found: Sequence[Found], worst: bool
) -> dict[str, float]:
    rows = np.concatenate([front for one in found for _, front in one.steps])
    return {
        one.metric: float(
            (rows[:, i].min if (one.direction == "maximize") == worst else rows[:, i].max)()
        )
        for i, one in enumerate(objectives)
    }
