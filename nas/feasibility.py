"""Whether limits can be met at all, decided before any work is done."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nas.architecture import Architecture
from nas.errors import InfeasibleLimit
from nas.evaluator import Evaluator, HasPreview
from nas.objective import Objective, violated
from nas.space import mutate, sample
from nas.strategy import Strategy
from nas.trial import NotFinite

_TRIES = 200


def check_limits(strategy: Strategy, evaluator: Evaluator) -> None:
    """Refuses limits on costs that no architecture found meets.

    Looks at random architectures first and then climbs from the nearest miss, one mutation at a
    time. Limits on what has to be trained for cannot be decided beforehand and are let be.

    Raises:
        InfeasibleLimit: none of 200 architectures meets the limits; the nearest miss is named.
    """
    limited = [objective for objective in strategy.objectives if objective.limit is not None]
    if not limited or not isinstance(evaluator, HasPreview):
        return
    space, rng = strategy.space, np.random.default_rng(0)
    best: Architecture | None = None
    best_values: dict[str, float] = {}
    best_excess = np.inf
    for attempt in range(_TRIES):
        if best is None or attempt < _TRIES // 10:
            arch = sample(space, rng)
        else:
            arch = mutate(space, best, rng)
        try:
            values = dict(evaluator.preview(arch))
        except NotFinite:
            continue  # a failed trial, and no reason to refuse the search
        if violated(limited, values) is None:
            return
        excess = _excess(limited, values)
        if excess <= best_excess:
            best, best_values, best_excess = arch, values, excess
    if best is None:
        return
    raise InfeasibleLimit(
        f"no architecture of {space.name!r} found meets the limits: of {_TRIES} looked at, the "
        f"nearest miss is {violated(limited, best_values)}. Raise the limit, or make the space's "
        "networks smaller (fewer channels or cells)"
    )


def _excess(limited: list[Objective], values: Mapping[str, float]) -> float:
    """How far outside the limits, relative to them, in sum."""
    total = 0.0
    for objective in limited:
        value = values.get(objective.metric)
        if value is not None and objective.limit is not None and not objective.within_limit(value):
            total += abs(value - objective.limit) / max(abs(objective.limit), 1e-12)
    return total
