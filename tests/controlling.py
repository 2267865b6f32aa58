"""What the tests of controllers share: a table, and strategies driven over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.budget import Cost
from nas.objective import maximize
from nas.space import SearchSpace, enumerate_architectures, sample
from nas.strategy import Strategy
from nas.testing.toys import FlatSpace
from nas.trial import Failed, Infeasible, Measured, Proposal, Trial
from search_spaces.nasbench201 import OPERATIONS, NasBench201
from strategies.controller import ControllerSettings

TABLE: dict[Architecture, float] = dict(
    zip(enumerate_architectures(FlatSpace()), np.linspace(0, 1, 64).tolist(), strict=True)
)
"""Scores from 0 to 1 of the flat space: an ordering in which the first choices weigh most."""


def small(settings: ControllerSettings, **changes: Any) -> ControllerSettings:
    """The same on a network that is quickly trained, in batches that are soon complete."""
    policy = replace(settings.policy, hidden=8)
    return replace(settings, **({"policy": policy, "batch": 4} | changes))


def told(proposal: Proposal, outcome: float | Failed | Infeasible) -> Trial:
    """A trial of it; a number is its score."""
    if isinstance(outcome, float):
        outcome = Measured({"score": outcome})
    return Trial(proposal, outcome, Cost(trials=1))


Maker = Callable[..., Strategy]


def follow(maker: Maker, settings: ControllerSettings, failing: float, seed: int) -> float:
    """The mean score of the last 40 of 240 proposals; some are always in flight, in disorder."""
    learning = replace(settings, redraws=0, lr=0.02)
    strategy = maker(FlatSpace(), (maximize("score"),), seed, learning)
    rng = np.random.default_rng([seed, 5])
    flying: list[Proposal] = []
    scores: list[float] = []
    for _ in range(60):
        proposals = list(strategy.ask(4))
        scores += [TABLE[proposal.arch] for proposal in proposals]
        flying += proposals
        while len(flying) > 3:
            proposal = flying.pop(int(rng.integers(len(flying))))
            fails = rng.random() < failing
            bad = Failed("not finite", "score is nan")
            strategy.tell(told(proposal, bad if fails else TABLE[proposal.arch]))
    return float(np.mean(scores[-40:]))


def table_regret(
    path: Path, maker: Maker, seeds: int, queries: int = 300, column: str = "cifar100"
) -> tuple[Sequence[float], Sequence[float]]:
    """Regret after so many queries of the 200-epoch test accuracy: ours, and random search's."""
    with np.load(path) as table:
        values = table["test_acc_200"][:, list(table["datasets"]).index(column)]
        names = [str(name) for name in table["op_names"]]
        rows = {tuple(ops): index for index, ops in enumerate(table["ops"].tolist())}
    assert set(names) == set(OPERATIONS)
    space = NasBench201()

    def value(arch: Architecture) -> float:
        return float(values[rows[tuple(names.index(str(pick)) for _, pick in arch.picks)]])

    def best(archs: Sequence[Architecture]) -> float:
        return float(values.max()) - max(map(value, archs))

    ours = []
    for seed in range(seeds):
        strategy = maker(space, (maximize("score"),), seed)
        made: list[Architecture] = []
        while len(made) < queries:
            proposals = strategy.ask(min(10, queries - len(made)))
            for proposal in proposals:
                strategy.tell(told(proposal, value(proposal.arch)))
            made += [proposal.arch for proposal in proposals]
        ours.append(best(made))
    return ours, [best(_random(space, queries, seed)) for seed in range(seeds)]


def _random(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    rng = np.random.default_rng([seed, 3])
    found: dict[Architecture, None] = {}
    while len(found) < count:
        found[sample(space, rng)] = None
    return list(found)
