"""Metrics, objectives with hard limits, Pareto order, and the scalar the single-minded need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nas.errors import ConfigError, nearest

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Metric:
    """Something an evaluator measures: its name, its unit, and which way is better."""

    name: str
    unit: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric to improve, and possibly a limit that an architecture must keep.

    Attributes:
        limit: the least allowed value of a maximised metric, the greatest of a minimised one.
        weight: the exponent in ``scalarize``; MnasNet's 0.07 for what is minimised.
    """

    metric: str
    direction: Direction
    limit: float | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("maximize", "minimize"):
            raise ConfigError(
                f"objective {self.metric!r}: direction must be maximize or minimize, "
                f"got {self.direction!r}"
            )
        if self.limit is not None and not math.isfinite(self.limit):
            raise ConfigError(f"objective {self.metric!r}: limit must be finite, got {self.limit}")
        if self.weight is not None and not (math.isfinite(self.weight) and self.weight >= 0):
            raise ConfigError(
                f"objective {self.metric!r}: weight must be zero or more, got {self.weight}"
            )

    def better(self, one: float, other: float) -> bool:
        return one > other if self.direction == "maximize" else one < other

    def within_limit(self, value: float) -> bool:
        if self.limit is None:
            return True
        return value >= self.limit if self.direction == "maximize" else value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.direction == "maximize" else "≤"
        bound = "" if self.limit is None else f" {sign} {self.limit:g}"
        return f"{self.direction} {self.metric}{bound}"


def maximize(metric: str, *, limit: float | None = None, weight: float | None = None) -> Objective:
    """An objective to make large; with a limit, at least that."""
    return Objective(metric, "maximize", limit, weight)


def minimize(metric: str, *, limit: float | None = None, weight: float | None = None) -> Objective:
    """An objective to make small; with a limit, at most that."""
    return Objective(metric, "minimize", limit, weight)


def check_objectives(
    objectives: Sequence[Objective], metrics: Iterable[Metric] | None = None
) -> tuple[Objective, ...]:
    """The objectives as a tuple, refused where one is twice or, given metrics, unmeasured."""
    checked = tuple(objectives)
    if not checked:
        raise ConfigError("there are no objectives: give at least one, as in maximize('accuracy')")
    names = [objective.metric for objective in checked]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"objective {name!r} is given twice")
    if metrics is not None:
        measured = [metric.name for metric in metrics]
        for name in names:
            if name not in measured:
                raise ConfigError(
                    f"no evaluator measures the objective {name!r}: {nearest(name, measured)}"
                )
    return checked


def violated(objectives: Sequence[Objective], values: Mapping[str, float]) -> str | None:
    """The first limit these values break, in words; values not there yet break none."""
    for objective in objectives:
        value = values.get(objective.metric)
        if value is not None and not objective.within_limit(value):
            relation = "at least" if objective.direction == "maximize" else "at most"
            return f"{objective.metric} is {value:g}, must be {relation} {objective.limit:g}"
    return None


def dominates(
    objectives: Sequence[Objective], one: Mapping[str, float], other: Mapping[str, float]
) -> bool:
    """Pareto order: nowhere worse, and better somewhere."""
    better = False
    for objective in objectives:
        mine, theirs = one[objective.metric], other[objective.metric]
        if objective.better(theirs, mine):
            return False
        better = better or objective.better(mine, theirs)
    return better


def scalarize(objectives: Sequence[Objective], values: Mapping[str, float]) -> float:
    """One number to maximise, for strategies that know no Pareto order.

    A single objective is its own value, negated where it is minimised. Several are MnasNet's
    weighted product (Tan et al. 2019, eq. 2) with every target in the constant that does not
    change the order: Π maximised^weight · Π minimised^−weight, where the weight is 1 for what is
    maximised and 0.07 for what is minimised unless the objective says otherwise. Values have to
    be non-negative for that; a minimised zero is the best there is.
    """
    if len(objectives) == 1:
        value = values[objectives[0].metric]
        return value if objectives[0].direction == "maximize" else -value
    product = 1.0
    for objective in objectives:
        value = values[objective.metric]
        if value < 0:
            raise ConfigError(
                f"the weighted product needs values of zero or more, but {objective.metric} is "
                f"{value:g}: use a single objective, or a multi-objective strategy"
            )
        if objective.direction == "maximize":
            product *= value ** (1.0 if objective.weight is None else objective.weight)
        else:
            weight = 0.07 if objective.weight is None else objective.weight
            product *= max(value, 1e-12) ** -weight
    return product
