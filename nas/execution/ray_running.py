"""A trial in flight on Ray, from its first attempt to its last."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from nas.trial import Proposal, Trial


@dataclass(slots=True, eq=False)
class Running:
    """A trial in flight.

    Attributes:
        evaluator: the reference to it.
        earlier: the trial it continues or was made from, with its artifacts.
        attempts: how often it was launched.
        losses: how many of these lost their machine.
        started: when the present attempt did, if it has.
        machine: where; empty before.
        gone_since: when that machine was first found missing.
        before: seconds that attempts before it ran.
        overdue: its time is up, and Ray was told to end it.
    """

    evaluator: Any
    proposal: Proposal
    earlier: Trial | None
    epochs: float
    attempts: int = 0
    losses: int = 0
    started: float | None = None
    machine: str = ""
    gone_since: float | None = None
    before: float = 0.0
    overdue: bool = False

    def seconds(self) -> float:
        now = 0.0 if self.started is None else time.monotonic() - self.started
        return self.before + now
