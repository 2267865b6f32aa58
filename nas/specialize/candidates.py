"""The search for one network: the largest predicted accuracy under hard limits.

Cai et al., "Once-for-all: Train One Network and Specialize it for Efficient Deployment", ICLR
2020, searches by evolution on an accuracy predictor and a latency table; here any strategy that
needs no training does. Limits are decided before anything is predicted, and whole batches are
predicted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.budget import Cost
from nas.components import create
from nas.errors import ConfigError, InfeasibleLimit
from nas.objective import Objective, violated
from nas.predictor import FittedSurrogate
from nas.space import SearchSpace, format_architecture, mutate
from nas.specialize.drawing import tilted
from nas.specialize.limits import Costs, Limits
from nas.strategy import Strategy
from nas.trial import Infeasible, Measured, Outcome, Proposal, Trial

ONCE_FOR_ALL: Mapping[str, Any] = {
    "name": "nsga2",
    "population_size": 25,
    "offspring_size": 100,
    "crossover_rate": 0.5,
    "mutation_rate": 0.1,
}
"""Once-for-all's evolution: 100 children a generation of the best quarter, every choice of a child
mutated with probability 0.1. It makes half of the children by crossover and half by mutation, here
half are crossed and all are mutated; its 500 generations are ``TRIALS`` predictions here. With one
objective NSGA-II keeps the best.
"""
TRIALS = 500
BATCH = 100
STARTS = 50
"""Architectures that keep the limits, which a strategy is given to start from."""
_TRIES = 400  # steps from the nearest miss towards the limits
_MOST_ASKED = 3  # proposals for each prediction, on average
_FRUITLESS = 5  # batches in a row without anything new that keeps the limits: that was all


@dataclass(frozen=True)
class Candidate:
    """An architecture that keeps the limits, its costs, and the accuracy predicted."""

    arch: Architecture
    predicted: float
    costs: Mapping[str, float]


def candidates(
    space: SearchSpace,
    limits: Limits,
    predictor: FittedSurrogate,
    costs: Costs,
    strategy: str | Mapping[str, Any] = ONCE_FOR_ALL,
    trials: int = TRIALS,
    seed: int = 0,
    on_batch: Callable[[int, float], None] | None = None,
) -> list[Candidate]:
    """Different networks that keep the limits, those of the best prediction first.

    Args:
        strategy: a registered name or a description; one that can start from given architectures
            (``initial``) is given some that keep the limits.
        trials: how many architectures are predicted.
        on_batch: told how many are predicted, and the best prediction.

    Raises:
        InfeasibleLimit: no architecture looked at keeps the limits; the message names the smallest
            values found.
        ConfigError: the strategy does not exist, or needs what there is not here (a training).
    """
    if trials < 1:
        raise ConfigError(f"trials must be at least 1, got {trials}")
    metrics = [metric for metric, _ in limits.values]
    objective = Objective(predictor.metric.name, predictor.metric.direction)
    starts = feasible(space, limits, costs, seed, min(STARTS, trials))
    searcher: Strategy = create(
        "strategies",
        strategy,
        "strategy",
        {
            "space": space,
            "objectives": (objective,),
            "seed": seed,
            "initial": tuple(format_architecture(space, arch) for arch in starts),
        },
    )
    # The starts count whatever the strategy does with them: there is always something to deliver.
    found = dict(zip(starts, predictor.predict(starts).mean.tolist(), strict=True))
    best = (max if objective.direction == "maximize" else min)(found.values())
    asked, predicted, fruitless = 0, 0, 0
    while predicted < trials and asked < _MOST_ASKED * trials and fruitless < _FRUITLESS:
        proposals = list(searcher.ask(min(BATCH, trials - predicted)))
        if not proposals:
            break
        asked += len(proposals)
        reasons = {
            proposal.number: violated(limits.objectives, costs.of(proposal.arch, metrics))
            for proposal in proposals
        }
        kept = [proposal for proposal in proposals if reasons[proposal.number] is None]
        new = [arch for arch in dict.fromkeys(p.arch for p in kept) if arch not in found]
        if new:
            found |= zip(new, predictor.predict(new).mean.tolist(), strict=True)
        predicted += len(kept)
        fruitless = 0 if new else fruitless + 1
        for proposal in proposals:
            searcher.tell(_trial(proposal, reasons[proposal.number], objective, found))
        for value in (found[arch] for arch in new):
            best = value if objective.better(value, best) else best
        if on_batch is not None:
            on_batch(predicted, best)
    sign = -1 if objective.direction == "maximize" else 1
    ordered = sorted(found, key=lambda arch: (sign * found[arch], arch.to_json()))
    # Of architectures that are the same network, one.
    different = {space.canonical(arch): arch for arch in reversed(ordered)}
    return [
        Candidate(arch, found[arch], costs.of(arch, metrics))
        for arch in ordered
        if different[space.canonical(arch)] == arch
    ]


def feasible(
    space: SearchSpace, limits: Limits, costs: Costs, seed: int, count: int
) -> list[Architecture]:
    """Different random architectures that keep the limits: so many at most, one at least.

    They are drawn ``tilted``, towards smaller ones where larger ones break the limits. Where none
    keeps them, the search climbs down from the nearest miss, one mutation at a time.

    Raises:
        InfeasibleLimit: none found does.
    """
    rng = np.random.default_rng([seed, 12])
    metrics = [metric for metric, _ in limits.values]
    seen: dict[Architecture, float] = {}
    smallest = dict.fromkeys(metrics, float("inf"))

    def excess(arch: Architecture) -> float:
        if arch not in seen:
            values = costs.of(arch, metrics)
            for metric in metrics:
                smallest[metric] = min(smallest[metric], values[metric])
            seen[arch] = sum(max(0.0, values[m] / limit - 1) for m, limit in limits.values)
        return seen[arch]

    kept: dict[Architecture, None] = {}
    top = 1.0
    for attempt in range(4 * count):
        level = 0.0 if attempt == 0 else top * rng.random()
        arch = tilted(space, level, rng)
        if excess(arch) == 0:
            kept[arch] = None
        elif attempt:
            top = (top + level) / 2
        if len(kept) == count:
            break
    if kept:
        return list(kept)
    nearest = min(seen, key=lambda arch: seen[arch])
    for _ in range(_TRIES):
        other = mutate(space, nearest, rng)
        if excess(other) <= excess(nearest):
            nearest = other
        if excess(nearest) == 0:
            return [nearest]
    told = ", ".join(
        f"{metric} must be at most {limit:g} and the smallest found is {smallest[metric]:g}"
        for metric, limit in limits.values
    )
    together = "" if len(metrics) == 1 else " all at once"
    raise InfeasibleLimit(
        f"no sub-network of {space.name!r} found keeps {limits}{together}: {told} "
        f"({len(seen)} looked at)"
    )


def _trial(
    proposal: Proposal,
    reason: str | None,
    objective: Objective,
    found: Mapping[Architecture, float],
) -> Trial:
    outcome: Outcome
    if reason is None:
        outcome = Measured({objective.metric: found[proposal.arch]})
    else:
        outcome = Infeasible(reason)
    return Trial(proposal, outcome, Cost(trials=1))
