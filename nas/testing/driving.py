"""A strategy driven by made-up trials that come back late, in any order, and often failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nas.budget import Cost
from nas.components import create
from nas.journal import proposal_to_document
from nas.strategy import Strategy
from nas.testing.toys import toy_values
from nas.trial import Failed, Infeasible, Measured, Outcome, Proposal, Trial

Judge = Callable[[Proposal], Outcome]


def judge(strategy: Strategy, *, failing: float = 0.3, **others: float) -> Judge:
    """Outcomes that depend on the proposal alone: the toy values that the objectives name.

    Args:
        failing: the share of proposals that fail or are infeasible.
        others: metrics to report beside those of the objectives.
    """
    names = [objective.metric for objective in strategy.objectives]

    def outcome(proposal: Proposal) -> Outcome:
        rng = np.random.default_rng([proposal.number, 99])
        if rng.random() < failing:
            if rng.random() < 0.5:
                return Failed("exception", "the cable is loose")
            return Infeasible("cost is 9, must be at most 5")
        values = toy_values(strategy.space, proposal.arch)
        return Measured({name: values[name] for name in names} | others)

    return outcome


def drive(
    strategy: Strategy, trials: int, judge: Judge, *, seed: int = 0
) -> list[Mapping[str, Any]]:
    """Asks until there are so many proposals, or no more; returns them as JSON documents.

    Between two asks for one to three proposals, some of those in flight come back, in a random
    order drawn from ``seed``. What is left at the end is told as well.
    """
    rng = np.random.default_rng(seed)
    made: list[Proposal] = []
    flying: list[Proposal] = []
    while len(made) < trials:
        n = min(int(rng.integers(1, 4)), trials - len(made))
        proposals = list(strategy.ask(n))
        assert len(proposals) <= n, f"ask({n}) returned {len(proposals)} proposals"
        made += proposals
        flying += proposals
        if not flying:
            break
        for _ in range(int(rng.integers(0 if proposals else 1, len(flying) + 1))):
            proposal = flying.pop(int(rng.integers(len(flying))))
            strategy.tell(Trial(proposal, judge(proposal), Cost(trials=1)))
    while flying:
        proposal = flying.pop(int(rng.integers(len(flying))))
        strategy.tell(Trial(proposal, judge(proposal), Cost(trials=1)))
    return [proposal_to_document(proposal) for proposal in made]


def drive_described(strategies: Any, trials: int) -> list[list[Mapping[str, Any]]]:
    """``drive`` for the descriptions of strategies, one after the other."""
    made: list[Strategy] = [create("strategies", one, "strategy") for one in strategies]
    return [drive(strategy, trials, judge(strategy)) for strategy in made]
