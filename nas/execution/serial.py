"""Trials in this process, one after the other."""

from __future__ import annotations

from nas.budget import Cost
from nas.errors import UnsupportedRequest
from nas.evaluator import Evaluator
from nas.execution.guard import check_enforceable, check_limits, planned, run_trial
from nas.trial import Proposal, Trial


class Serial:
    """Runs each trial in this process: the simplest, and exactly reproducible.

    Args:
        time_limit_s: a trial that takes longer is interrupted and fails (its Python code: use
            Ray for evaluators that hang inside C). Only for searches in the main thread.
        memory_bytes: memory that a trial may take beyond what the process holds (Linux).
    """

    def __init__(
        self, *, time_limit_s: float | None = None, memory_bytes: int | None = None
    ) -> None:
        check_limits(time_limit_s, memory_bytes)
        self.time_limit_s = time_limit_s
        self.memory_bytes = memory_bytes
        self._waiting: tuple[Evaluator, Proposal, Trial | None] | None = None

    @property
    def free(self) -> int:
        return 1 if self._waiting is None else 0

    @property
    def idle(self) -> bool:
        return self._waiting is None

    @property
    def committed(self) -> Cost:
        if self._waiting is None:
            return Cost()
        return Cost(trials=1, epochs=planned(*self._waiting))

    def submit(
        self, evaluator: Evaluator, proposal: Proposal, earlier: Trial | None = None
    ) -> None:
        if self._waiting is not None:
            raise UnsupportedRequest("the serial executor runs one trial at a time")
        check_enforceable(self.time_limit_s, self.memory_bytes)
        self._waiting = (evaluator, proposal, earlier)

    def next(self) -> Trial:
        if self._waiting is None:
            raise UnsupportedRequest("nothing was submitted")
        evaluator, proposal, earlier = self._waiting
        try:
            return run_trial(
                evaluator,
                proposal,
                earlier,
                time_limit_s=self.time_limit_s,
                memory_bytes=self.memory_bytes,
            )
        finally:
            self._waiting = None  # not before: what runs is in flight

    def close(self) -> None:
        self._waiting = None
