"""One evaluation, from proposal to trial: whatever goes wrong becomes a failed trial."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import resource
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from nas.budget import Cost
from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.evaluator import Evaluator, HasContinuation, HasInheritance, planned_epochs
from nas.trial import (
    Failed,
    FailureCause,
    Infeasible,
    Measured,
    NotFinite,
    Outcome,
    Proposal,
    Trial,
)

_STATUS = Path("/proc/self/status")


class TimeLimitReached(BaseException):
    """Raised inside an evaluation whose time is up; no ``except Exception`` swallows it."""


def check_limits(time_limit_s: float | None, memory_bytes: int | None) -> None:
    """Refuses limits out of range; raises ``ConfigError``."""
    if time_limit_s is not None and not (math.isfinite(time_limit_s) and time_limit_s > 0):
        raise ConfigError(f"time_limit_s must be above zero and finite, got {time_limit_s}")
    if memory_bytes is not None and memory_bytes <= 0:
        raise ConfigError(f"memory_bytes must be above zero, got {memory_bytes}")


def check_enforceable(time_limit_s: float | None, memory_bytes: int | None) -> None:
    """Refuses limits that ``run_trial`` cannot keep here; raises ``UnsupportedRequest``."""
    if time_limit_s is not None and threading.current_thread() is not threading.main_thread():
        raise UnsupportedRequest(
            f"a time limit of {time_limit_s:g} s in this process needs its main thread, and this "
            f"is {threading.current_thread().name!r}: search from the main thread, or use Ray"
        )
    if memory_bytes is not None and not _STATUS.exists():
        raise UnsupportedRequest(
            f"a memory limit of {memory_bytes} bytes a trial needs Linux: there is no {_STATUS}"
        )


def run_trial(
    evaluator: Evaluator,
    proposal: Proposal,
    earlier: Trial | None = None,
    *,
    time_limit_s: float | None = None,
    memory_bytes: int | None = None,
) -> Trial:
    """Evaluates a proposal in this process; raises only ``KeyboardInterrupt``, for no trial's sake.

    Args:
        earlier: the trial it continues or was made from, with its artifacts.
        time_limit_s: the evaluation is interrupted after so long, where Python code runs (a
            single call into C is let finish first). Main thread only.
        memory_bytes: how much more memory than now the process may take meanwhile (Linux);
            allocations beyond it fail.

    Raises:
        UnsupportedRequest: a limit cannot be kept here (before anything is evaluated).
    """
    check_enforceable(time_limit_s, memory_bytes)
    start = time.perf_counter()
    outcome: Outcome
    try:
        with _time_limit(time_limit_s), _memory_limit(memory_bytes):
            outcome = _evaluate(evaluator, proposal, earlier)
        outcome = _checked(evaluator, outcome)
    except TimeLimitReached as error:
        outcome = Failed("timeout", f"took longer than {time_limit_s:g} s", _trace(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: an evaluator does not end the search
        outcome = Failed(_cause(error), _message(error), _trace(error))
    seconds = time.perf_counter() - start
    return finish(proposal, outcome, seconds, planned(evaluator, proposal, earlier))


def planned(evaluator: Evaluator, proposal: Proposal, earlier: Trial | None) -> float:
    """The epochs a trial commits of the budget."""
    before = None
    if earlier is not None and proposal.continues is not None:
        before = earlier.proposal.fidelity
    return planned_epochs(evaluator, proposal.fidelity, before)


def finish(proposal: Proposal, outcome: Outcome, seconds: float, epochs: float) -> Trial:
    """The trial of an outcome: its cost is the evaluator's own account, or the clock's.

    A failed trial is charged all the epochs it was to train: nobody counted those it did, and a
    budget of epochs would never end a search in which every trial fails. An infeasible one counts
    as a trial of the budget only if it was trained to find that out.

    Args:
        seconds: what the clock says.
        epochs: what the trial was to train.
    """
    own = Cost(epochs=epochs) if isinstance(outcome, Failed) else outcome.cost
    trials = 0 if isinstance(outcome, Infeasible) and own.epochs == 0 else 1
    cost = Cost(trials=trials, seconds=own.seconds or seconds, epochs=own.epochs)
    return Trial(proposal, outcome, cost + proposal.spent)


def _evaluate(evaluator: Evaluator, proposal: Proposal, earlier: Trial | None) -> Outcome:
    # A frame of its own: the time limit strikes inside it and nowhere else.
    if earlier is not None and proposal.continues is not None:
        if isinstance(evaluator, HasContinuation):
            return evaluator.evaluate_from(proposal, earlier)
    elif earlier is not None and isinstance(evaluator, HasInheritance):
        return evaluator.evaluate_child(proposal, earlier)
    return evaluator.evaluate(proposal)


def _checked(evaluator: Evaluator, outcome: Outcome) -> Outcome:
    """The outcome as it will be read back from a journal; raises where it could not be."""
    name = type(evaluator).__name__
    if isinstance(outcome, Infeasible):
        # Measured knows what values have to be.
        values = Measured(outcome.values).values
        return replace(outcome, values=values, notes=_as_json(name, outcome.notes))
    if not isinstance(outcome, Measured):
        raise TypeError(
            f"{name}.evaluate returned a {type(outcome).__name__}, expected Measured or Infeasible"
        )
    for metric in evaluator.metrics:
        if metric.name not in outcome.values:
            raise ValueError(
                f"{name} declares the metric {metric.name!r} and did not measure it: "
                f"{nearest(metric.name, outcome.values)}"
            )
    for file, content in outcome.artifacts.items():
        if not isinstance(content, bytes):
            raise TypeError(f"{name}: artifact {file!r} must be bytes, got {type(content)}")
        if file in ("", ".", "..") or Path(file).name != file:
            raise ValueError(f"{name}: artifact {file!r} must be a plain file name")
    return replace(outcome, notes=_as_json(name, outcome.notes))


def _as_json(name: str, notes: Mapping[str, Any]) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(json.dumps(dict(notes), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: its notes are not JSON values: {error}") from error
    return read


def _message(error: BaseException) -> str:
    """The error in one line, whatever its own ``__str__`` does."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its message cannot be shown)"
    if isinstance(error, NotFinite):
        return text
    return f"{type(error).__name__}: {text}"[:500]


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-8000:]


def _cause(error: BaseException) -> FailureCause:
    if isinstance(error, NotFinite):
        return "not finite"
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError):
        return "memory" if error.errno == errno.ENOMEM else "exception"
    # torch raises RuntimeError where the CPU allocator fails, OutOfMemoryError on a GPU.
    signs = ("out of memory", "not enough memory", "cannot allocate memory")
    if isinstance(error, RuntimeError) and any(s in _message(error).lower() for s in signs):
        return "memory"
    return "exception"


@contextlib.contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        # Only while the evaluation runs: a signal that comes as it returns, or while its result
        # is dealt with, must not reach the search.
        while frame is not None:
            if frame.f_code is _evaluate.__code__:
                raise TimeLimitReached
            frame = frame.f_back

    handler = signal.signal(signal.SIGALRM, interrupt)
    start = time.monotonic()
    # Again every second: an evaluator that swallows the first, or whose cleanup hangs as well,
    # is interrupted there too.
    left, interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 1.0)
    try:
        yield
    finally:
        # The alarm of whoever had set one goes on, and goes off at once if it was due meanwhile.
        if left:
            left = max(left - (time.monotonic() - start), 1e-3)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextlib.contextmanager
def _memory_limit(extra_bytes: int | None) -> Iterator[None]:
    if extra_bytes is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [_data_bytes() + extra_bytes, soft, hard]
    least = min(limit for limit in limits if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (least, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """The private writable memory this process has mapped: what RLIMIT_DATA counts."""
    status = _STATUS.read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024
