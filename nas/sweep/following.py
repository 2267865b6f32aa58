"""How far a search is, from the end of its journal: it may run on another machine."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.budget import Budget, Cost
from nas.errors import JournalError
from nas.history import JOURNAL
from nas.objective import Objective, violated
from nas.tail import Tail


class Following:
    """Reads on in a journal that another process writes.

    Attributes:
        trials: finished ones.
        failed: of these.
        best: the best value of the first objective within the limits.
    """

    def __init__(self, run: Path, objectives: Sequence[Objective], budget: Budget) -> None:
        self.objectives = tuple(objectives)
        self.budget = budget
        self._tail = Tail(run / JOURNAL)
        self._clear()

    @property
    def used(self) -> float:
        """The share of the budget that is spent."""
        return self.budget.used(self._spent)

    def look(self) -> None:
        """Takes in what has been written since."""
        # Damage is told of by whoever goes on with the search.
        with contextlib.suppress(JournalError):
            for first, event in self._tail.look():
                if first:
                    self._clear()
                if event["event"] == "trial":
                    self._add(event)

    def _clear(self) -> None:
        self.trials = self.failed = 0
        self.best: float | None = None
        self._spent = Cost()

    def _add(self, event: Mapping[str, Any]) -> None:
        outcome = event["outcome"]
        self.trials += 1
        self._spent += Cost(**event["cost"])
        if outcome["kind"] == "failed":
            self.failed += 1
        if outcome["kind"] != "measured" or violated(self.objectives, outcome["values"]):
            return
        first = self.objectives[0]
        value = outcome["values"].get(first.metric)
        if value is not None and (self.best is None or first.better(value, self.best)):
            self.best = value
