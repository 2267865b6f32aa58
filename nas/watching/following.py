"""A run as far as its journal tells, read on as another process writes it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.budget import Budget, Cost
from nas.components import objective_from
from nas.errors import JournalError, NasError
from nas.history import JOURNAL, ParetoFront, objectives_of
from nas.journal import FORMAT, outcome_from_document, proposal_from_document
from nas.objective import Objective, violated
from nas.tail import Tail
from nas.trial import Failed, Infeasible, Measured, Trial

_LATEST = 5


class Following:
    """What a run has come to, taken in with each ``look``. The folder may still be empty.

    Attributes:
        header: the journal's; ``None`` before there is one.
        objectives, budget: of the header; a resumed run may have another budget since.
        done, failed, infeasible: finished trials, and how many of them.
        spent: by them.
        flying: numbers of trials that were proposed and are not finished.
        front: of the finished ones.
        values: of the first objective, by finished trial; ``None`` where it was not measured.
        best: the best of those so far within the limits, by finished trial.
        causes: of failures: how often, and the latest message.
        reason: the latest why of an infeasible trial.
        latest: the last few trials.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tail = Tail(folder / JOURNAL)
        self._clear()

    def _clear(self) -> None:
        self.header: dict[str, Any] | None = None
        self.objectives: tuple[Objective, ...] = ()
        self.budget: Budget | None = None
        self.done = self.failed = self.infeasible = 0
        self.spent = Cost()
        self.front: ParetoFront | None = None
        self.values: list[float | None] = []
        self.best: list[float | None] = []
        self.causes: Counter[str] = Counter()
        self.messages: dict[str, tuple[int, str]] = {}
        self.reason: str | None = None
        self.latest: deque[Trial] = deque(maxlen=_LATEST)
        self._proposals: dict[int, Any] = {}

    @property
    def flying(self) -> tuple[int, ...]:
        return tuple(self._proposals)

    @property
    def used(self) -> float:
        """The share of the budget that is spent."""
        return 0.0 if self.budget is None else self.budget.used(self.spent)

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent, and nothing runs."""
        if self.budget is None or self._proposals:
            return False
        return self.budget.allows(self.spent) == 0

    def look(self) -> bool:
        """Takes in what was written since; says whether there was anything.

        Raises:
            JournalError: the journal is damaged, or of another format.
        """
        anything = False
        for first, event in self._tail.look():
            anything = True
            try:
                self._begin(event) if first else self._take(event)
            except (KeyError, TypeError, AttributeError, NasError) as error:
                if isinstance(error, JournalError):
                    raise
                raise JournalError(
                    f"{self._tail.path}: line {self._tail.lines} makes no sense: {error!r}"
                ) from error
        return anything

    def _begin(self, event: Mapping[str, Any]) -> None:
        self._clear()
        if event["event"] != "run" or event.get("format") != FORMAT:
            raise JournalError(
                f"{self._tail.path}: line 1 must describe a run in format {FORMAT}, got "
                f"{event['event']!r} in format {event.get('format')!r}"
            )
        self.header = {key: value for key, value in event.items() if key != "event"}
        self.objectives = tuple(
            objective_from(document, f"objectives[{index}]")
            for index, document in enumerate(objectives_of(self.header))
        )
        self.budget = Budget(**self.header["budget"])
        self.front = ParetoFront(self.objectives)

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "ask":
            self._proposals |= {one["number"]: one for one in event["proposals"]}
            return
        proposal = proposal_from_document(self._proposals.pop(event["number"]))
        trial = Trial(proposal, outcome_from_document(event["outcome"]), Cost(**event["cost"]))
        self.done += 1
        self.spent += trial.cost
        self.latest.append(trial)
        outcome = trial.outcome
        value: float | None = None
        best = self.best[-1] if self.best else None
        if isinstance(outcome, Failed):
            self.failed += 1
            self.causes[outcome.cause] += 1
            self.messages[outcome.cause] = trial.number, outcome.message
        elif isinstance(outcome, Infeasible):
            self.infeasible += 1
            self.reason = outcome.reason
        elif isinstance(outcome, Measured) and self.front is not None and self.objectives:
            first = self.objectives[0]
            value = outcome.values[first.metric]
            self.front.add(trial)
            kept = violated(self.objectives, outcome.values) is None
            if kept and (best is None or first.better(value, best)):
                best = value
        self.values.append(value)
        self.best.append(best)
