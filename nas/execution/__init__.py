"""Where evaluators run: in this process, or on a Ray cluster. Nothing here knows of search."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from nas.budget import Cost
from nas.evaluator import Evaluator
from nas.trial import Proposal, Trial


class Executor(Protocol):
    """Runs proposals on an evaluator, and makes a trial of whatever comes of it.

    Attributes:
        free: how many more proposals could start now.
        idle: nothing is in flight.
        committed: what is in flight: trials, the seconds they have run, the epochs they train.
    """

    @property
    def free(self) -> int: ...

    @property
    def idle(self) -> bool: ...

    @property
    def committed(self) -> Cost: ...

    def submit(
        self, evaluator: Evaluator, proposal: Proposal, earlier: Trial | None = None
    ) -> None:
        """Starts a proposal.

        Args:
            earlier: the trial that it continues or, where it continues none, that it was made
                from (for evaluators that take something over from it), with its artifacts.
        """

    def next(self) -> Trial:
        """Waits for the next trial to end, in whatever order they do. Never raises for one."""

    def close(self) -> None:
        """Ends what is in flight and leaves no process behind; ``submit`` may follow again."""


@runtime_checkable
class HasGrowth(Protocol):
    """An executor that may hold more trials later than now: machines join its cluster."""

    def wait(self) -> bool:
        """Waits until a trial has ended, or more is free than before; whether one has ended.

        Where one has, ``next`` gives it at once.
        """
