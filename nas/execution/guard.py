"""One evaluation, from proposal to trial: whatever goes wrong becomes a failed trial."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from nas.budget import Cost
from nas.errors import UnsupportedRequest
from nas.evaluator import Evaluator
from nas.trial import Failed, FailureCause, NotFinite, Outcome, Proposal, Trial


class TimeLimitReached(BaseException):
    """Raised inside an evaluation whose time is up; no ``except Exception`` swallows it."""


def run_trial(
    evaluator: Evaluator,
    proposal: Proposal,
    *,
    time_limit_s: float | None = None,
    memory_bytes: int | None = None,
) -> Trial:
    """Evaluates a proposal in this process; raises nothing but what ends the process itself.

    Args:
        time_limit_s: the evaluation is interrupted after so long, where Python code runs (a
            single call into C is let finish first). Main thread only.
        memory_bytes: how much more memory than now the process may take meanwhile (Linux);
            allocations beyond it fail.
    """
    start = time.perf_counter()
    outcome: Outcome
    try:
        with _time_limit(time_limit_s), _memory_limit(memory_bytes):
            outcome = evaluator.evaluate(proposal)
    except TimeLimitReached:
        outcome = Failed("timeout", f"took longer than {time_limit_s:g} s")
    except NotFinite as error:
        outcome = Failed("not finite", str(error), _trace(error))
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        outcome = Failed(_cause(error), message, _trace(error))
    seconds = time.perf_counter() - start
    return finish(proposal, outcome, seconds)


def finish(proposal: Proposal, outcome: Outcome, seconds: float) -> Trial:
    """The trial of an outcome: its cost is the evaluator's own account, or the clock's."""
    own = Cost() if isinstance(outcome, Failed) else outcome.cost
    cost = Cost(trials=1, seconds=own.seconds or seconds, epochs=own.epochs)
    return Trial(proposal, outcome, cost + proposal.spent)


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-8000:]


def _cause(error: Exception) -> FailureCause:
    if isinstance(error, MemoryError):
        return "memory"
    # torch raises RuntimeError where the CPU allocator fails, OutOfMemoryError on a GPU.
    text = str(error).lower()
    if isinstance(error, RuntimeError) and (
        "out of memory" in text or "not enough memory" in text or "cannot allocate memory" in text
    ):
        return "memory"
    return "exception"


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise UnsupportedRequest("a time limit in this process needs the main thread; use Ray")

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise TimeLimitReached

    before = signal.signal(signal.SIGALRM, interrupt)
    # Again every second: an evaluator whose cleanup hangs as well is interrupted there too.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _memory_limit(extra_bytes: int | None) -> Iterator[None]:
    if extra_bytes is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + extra_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """The private writable memory this process has mapped: what RLIMIT_DATA counts."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError as error:
        raise UnsupportedRequest("a memory limit a trial needs Linux's /proc") from error
    line = next(line for line in status.splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024
