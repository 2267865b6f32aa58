"""Runs to make pages of: searches of toy evaluators, with every kind of outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.budget import Budget, Cost
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import Metric, Objective, maximize, minimize
from nas.search import search
from nas.space import SearchSpace
from nas.testing.toys import toy_values
from nas.trial import Fidelity, Infeasible, Measured, Proposal
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch

HOSTILE = (
    "</script><script>window.broken = 1</script><img src=http://x.invalid/a.png> & \"quotes' ½"
)
SPACE = NasBench201(channels=2, cells=1, classes=3, input=(1, 8, 8))
OBJECTIVES = (maximize("score"), minimize("cost"))


@dataclass(frozen=True)
class Moody:
    """``toy_values``, but of ten trials the fourth fails and the eighth breaks a limit.

    Attributes:
        metric: what its cost is called.
    """

    space: SearchSpace
    failing: bool = True
    metric: str = "cost"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return Metric("score", "1", "maximize"), Metric(self.metric, "1", "minimize")

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        made = toy_values(self.space, proposal.arch)
        values = {"score": made["score"], self.metric: made["cost"]}
        if self.failing and proposal.number % 10 == 3:
            raise RuntimeError(f"trial {proposal.number} broke: {HOSTILE}")
        if self.failing and proposal.number % 10 == 7:
            return Infeasible(f"cost is {made['cost']:g}, must be at most 1", values)
        return Measured(values, Cost(seconds=2.0, epochs=1.0))

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 1.0


def made_up_run(
    folder: Path,
    trials: int = 40,
    space: SearchSpace = SPACE,
    objectives: Sequence[Objective] = OBJECTIVES,
    failing: bool = True,
    metric: str = "cost",
    seed: int = 0,
) -> History:
    """A run of random search on ``Moody``."""
    history = History(folder)
    strategy = RandomSearch(space, tuple(objectives), seed)
    for _ in search(
        strategy, Moody(space, failing, metric), Serial(), Budget(trials=trials), history
    ):
        pass
    return history
