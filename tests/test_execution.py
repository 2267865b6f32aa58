"""Faults under the serial executor, and the guard that turns them into values."""

from __future__ import annotations

import gc
import resource
import signal
import threading
import time

import pytest
from workloads import FaultAt, Score, proposal, run, strategy

from nas.budget import Budget, Cost
from nas.errors import ConfigError, UnsupportedRequest
from nas.execution.guard import TimeLimitReached, run_trial
from nas.execution.serial import Serial
from nas.history import History
from nas.search import search
from nas.trial import Failed, Infeasible, Measured

MB = 2**20

FAULTS = [
    ("raise", "exception", "LookupError: the cable is loose"),
    ("exit", "exception", "SystemExit: I leave"),
    ("unpicklable exception", "exception", "Broken: beyond repair"),
    ("mute exception", "exception", "Mute: "),
    ("nan", "not finite", "score is nan"),
    ("no outcome", "exception", "returned a dict, expected Measured or Infeasible"),
    ("no metric", "exception", "did not measure it: did you mean 'scor'?"),
    ("unpicklable result", "exception", "its notes are not JSON values"),
    ("nan in notes", "exception", "its notes are not JSON values"),
    ("path", "exception", "must be a plain file name"),
    ("hang", "timeout", "took longer than 0.3 s"),
    ("hang in a lock", "timeout", "took longer than 0.3 s"),
    ("hang, swallowing exceptions", "timeout", "took longer than 0.3 s"),
    ("hang in cleanup", "timeout", "took longer than 0.3 s"),
    ("memory: numpy", "memory", "MemoryError"),
    ("memory: bytearray", "memory", "MemoryError"),
    ("memory: bit by bit", "memory", "MemoryError"),
]


@pytest.mark.parametrize(("how", "cause", "message"), FAULTS)
def test_a_fault_is_a_failed_trial_and_the_search_goes_on(how, cause, message, tmp_path):
    evaluator = FaultAt(how, str(tmp_path), number=1)
    limit = 0.3 if cause == "timeout" else 60
    executor = Serial(time_limit_s=limit, memory_bytes=300 * MB)
    history = History(tmp_path / "run")
    trials = run("random", evaluator, executor, 4, history)
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    failed = trials[1].outcome
    assert isinstance(failed, Failed)
    assert failed.cause == cause
    assert message in failed.message
    assert "\n" not in failed.message
    assert failed.traceback.startswith("Traceback")
    assert all(isinstance(trials[i].outcome, Measured) for i in (0, 2, 3))
    # What was written is what a later reader gets.
    assert History(tmp_path / "run").trials == trials


def test_torch_out_of_memory_is_told_from_other_errors(tmp_path):
    import torch

    class Torch(Score):
        def evaluate(self, proposal):
            if proposal.number == 0:
                torch.ones(2**31)
            if proposal.number == 1:
                torch.ones(2, 3) @ torch.ones(2, 3)
            return super().evaluate(proposal)

    torch.ones(8).sum()
    trials = run("random", Torch(), Serial(memory_bytes=300 * MB), 3)
    assert trials[0].outcome.cause == "memory"
    assert trials[1].outcome.cause == "exception"
    assert isinstance(trials[2].outcome, Measured)


def test_a_memory_limit_is_lifted_after_the_trial(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    trial = run_trial(
        FaultAt("memory: bytearray", str(tmp_path)), proposal(), memory_bytes=100 * MB
    )
    assert trial.outcome.cause == "memory"
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(400 * MB)) == 400 * MB  # four times what the trial might take


def test_what_fits_the_memory_limit_is_measured():
    class Fits(Score):
        def evaluate(self, proposal):
            assert len(bytearray(50 * MB)) == 50 * MB
            return super().evaluate(proposal)

    trial = run_trial(Fits(), proposal(), memory_bytes=200 * MB)
    assert isinstance(trial.outcome, Measured)


def test_a_lower_limit_of_the_process_is_kept():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    seen = []

    class Looks(Score):
        def evaluate(self, proposal):
            seen.append(resource.getrlimit(resource.RLIMIT_DATA))
            return super().evaluate(proposal)

    limit = 2**40
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        run_trial(Looks(), proposal(), memory_bytes=2**50)
        assert resource.getrlimit(resource.RLIMIT_DATA) == (limit, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    assert seen == [(limit, before[1])]


@pytest.fixture
def alarm():
    """The process' alarm is given back as it was (the test runner may use it)."""
    handler = signal.getsignal(signal.SIGALRM)
    timer = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


def test_a_time_limit_leaves_anothers_alarm_as_it_was(alarm, tmp_path):
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    handler = signal.getsignal(signal.SIGALRM)
    for number, cause in ((1, None), (0, "timeout")):  # not reached, and reached
        signal.setitimer(signal.ITIMER_REAL, 1000.0, 7.0)
        limit = 0.05 if cause else 60.0
        trial = run_trial(FaultAt("hang", str(tmp_path)), proposal(number), time_limit_s=limit)
        assert getattr(trial.outcome, "cause", None) == cause
        assert signal.getsignal(signal.SIGALRM) is handler
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert 900 < left < 1000
        assert interval == 7.0
    assert rung == []


def test_an_alarm_due_during_a_trial_goes_off_after_it(alarm):
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    trial = run_trial(Score(0.1), proposal(), time_limit_s=60)
    assert isinstance(trial.outcome, Measured)
    time.sleep(0.1)
    assert rung == [True]


@pytest.fixture
def no_collections():
    """What is raised in a callback of the garbage collector is lost, and raised a second later."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
def test_a_time_limit_about_as_long_as_the_trial_never_escapes():
    class Spins(Score):
        def evaluate(self, proposal):
            end = time.perf_counter() + 0.002
            while time.perf_counter() < end:
                pass
            return super().evaluate(proposal)

    causes = {"timeout": 0, "measured": 0}
    for step in range(400):
        trial = run_trial(Spins(), proposal(), time_limit_s=0.0015 + step * 3e-6)
        if isinstance(trial.outcome, Failed):
            assert trial.outcome.cause == "timeout"
            causes["timeout"] += 1
        else:
            causes["measured"] += 1
    assert min(causes.values()) > 0, causes  # or the limits were not about as long


def test_the_signal_is_deaf_outside_the_evaluation(alarm):
    """Even one that comes while the result is dealt with is not raised into the search."""
    handlers = []

    class Keeps(Score):
        def evaluate(self, proposal):
            handlers.append(signal.getsignal(signal.SIGALRM))
            with pytest.raises(TimeLimitReached):
                signal.raise_signal(signal.SIGALRM)
            return super().evaluate(proposal)

    trial = run_trial(Keeps(), proposal(), time_limit_s=60)
    assert isinstance(trial.outcome, Measured)
    signal.signal(signal.SIGALRM, handlers[0])
    signal.raise_signal(signal.SIGALRM)


def test_a_time_limit_outside_the_main_thread_is_refused_before_anything_runs():
    evaluated = []
    refused = []

    class Notes(Score):
        def evaluate(self, proposal):
            evaluated.append(proposal)
            return super().evaluate(proposal)

    def elsewhere():
        executor = Serial(time_limit_s=5)
        try:
            executor.submit(Notes(), proposal())
        except UnsupportedRequest as error:
            refused.append(str(error))
        assert executor.idle
        try:
            run_trial(Notes(), proposal(), time_limit_s=5)
        except UnsupportedRequest as error:
            refused.append(str(error))
        assert isinstance(run_trial(Notes(), proposal()).outcome, Measured)

    thread = threading.Thread(target=elsewhere, name="elsewhere")
    thread.start()
    thread.join()
    assert len(refused) == 2
    assert all("main thread" in text and "elsewhere" in text for text in refused)
    assert len(evaluated) == 1


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf")])
def test_time_limits_out_of_range_are_refused(limit):
    with pytest.raises(ConfigError, match="time_limit_s must be above zero"):
        Serial(time_limit_s=limit)


def test_memory_limits_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="memory_bytes must be above zero, got 0"):
        Serial(memory_bytes=0)


def test_an_interrupt_from_the_keyboard_ends_the_search_and_not_the_trial(tmp_path):
    class Interrupted(Score):
        def evaluate(self, proposal):
            if proposal.number == 2:
                raise KeyboardInterrupt
            return super().evaluate(proposal)

    history = History(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run("random", Interrupted(), Serial(), 5, history)
    assert [trial.number for trial in History(tmp_path).trials] == [0, 1]


def test_a_failed_trial_is_charged_what_it_was_to_train():
    """So that a search in which every trial fails ends, whatever its budget counts."""
    history = History()

    class Raises(Score):
        def evaluate(self, proposal):
            raise RuntimeError("as always")

    budget = Budget(epochs=5)
    trials = list(search(strategy("regularized_evolution"), Raises(), Serial(), budget, history))
    assert len(trials) == 5
    assert history.spent.epochs == 5


def test_an_infeasible_architecture_costs_no_trial():
    class Limits(Score):
        def evaluate(self, proposal):
            if proposal.number % 2:
                return Infeasible("too large", {"macs": 3})
            return super().evaluate(proposal)

    trials = run("random", Limits(), Serial(), 3)
    assert sum(isinstance(trial.outcome, Measured) for trial in trials) == 3
    assert [trial.cost.trials for trial in trials] == [1, 0, 1, 0, 1]


def test_serial_accounts_for_its_one_place():
    executor = Serial()
    executor.submit(Score(), proposal())
    assert executor.free == 0
    assert executor.committed == Cost(trials=1, epochs=1.0)
    with pytest.raises(UnsupportedRequest, match="one trial at a time"):
        executor.submit(Score(), proposal(1))
