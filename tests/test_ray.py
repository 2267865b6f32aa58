"""Execution on Ray: the same search, and everything that can go wrong in a worker."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import ray
from workloads import FaultAt, Score, alive, proposal, run, wait_until

from nas.errors import ConfigError, UnsupportedRequest
from nas.execution.ray import RayExecutor
from nas.execution.serial import Serial
from nas.history import History
from nas.trial import Failed, Measured

MB = 2**20


pytestmark = pytest.mark.usefixtures("local_ray")


# ------------------------------------------------------------------------------ the search


def test_the_same_proposals_and_values_as_in_one_process():
    trials = sorted(run("random", Score(), RayExecutor(), 40), key=lambda t: t.number)
    expected = run("random", Score(), Serial(), 40)
    assert [(t.proposal, t.outcome) for t in trials] == [(t.proposal, t.outcome) for t in expected]


def test_trials_run_side_by_side():
    executor = RayExecutor()
    evaluator = Score(1.0)
    for number in range(2):
        executor.submit(evaluator, proposal(number))
    trials = [executor.next()]
    assert executor.committed.seconds > 0.5  # of the other, which started before that one ended
    trials.append(executor.next())
    executor.close()
    assert {trial.number for trial in trials} == {0, 1}


def test_a_trial_that_ended_is_in_flight_until_it_is_taken():
    executor = RayExecutor()
    for number in range(2):
        executor.submit(Score(), proposal(number))
    for left in (2, 1):
        assert executor.wait()
        assert executor.committed.trials == left
        assert executor.committed.epochs == left
        assert executor.free == 2 - left
        assert not executor.idle
        executor.next()
    assert executor.idle
    assert executor.committed.trials == 0
    executor.close()


# ------------------------------------------------------------------------------ the faults

FAULTS = [
    ("raise", "exception", "LookupError: the cable is loose"),
    ("exit", "exception", "SystemExit: I leave"),
    ("unpicklable exception", "exception", "Broken: beyond repair"),
    ("mute exception", "exception", "Mute: "),
    ("nan", "not finite", "score is nan"),
    ("no outcome", "exception", "returned a dict"),
    ("unpicklable result", "exception", "its notes are not JSON values"),
    ("hang", "timeout", "took longer than 1 s"),
    ("hang in a lock", "timeout", "took longer than 1 s"),
    ("hang in C", "timeout", "took longer than 1 s"),
    ("hang, swallowing all", "timeout", "took longer than 1 s"),
    ("die", "worker died", "its worker process died (attempts: 3)"),
    ("memory: numpy", "memory", "MemoryError"),
    ("memory: bytearray", "memory", "MemoryError"),
    ("memory: bit by bit", "memory", "MemoryError"),
]


@pytest.mark.parametrize(("how", "cause", "message"), FAULTS)
def test_a_fault_is_a_failed_trial_and_the_search_goes_on(how, cause, message, tmp_path):
    evaluator = FaultAt(how, str(tmp_path), number=1)
    executor = RayExecutor(
        time_limit_s=1.0 if cause == "timeout" else 60.0,
        memory_bytes=300 * MB,
        retries=2,
    )
    history = History(tmp_path / "run")
    trials = {trial.number: trial for trial in run("random", evaluator, executor, 6, history)}
    assert sorted(trials) == list(range(6))
    failed = trials.pop(1)
    assert isinstance(failed.outcome, Failed)
    assert failed.outcome.cause == cause
    assert message in failed.outcome.message
    assert "\n" not in failed.outcome.message
    assert all(isinstance(trial.outcome, Measured) for trial in trials.values())
    assert len(History(tmp_path / "run").trials) == 6
    attempts = evaluator.attempts()
    assert len(attempts) == (3 if how == "die" else 1)
    if cause == "timeout":
        assert failed.cost.seconds >= 1.0
        assert wait_until(lambda: not alive(attempts[0]), 10), "its worker is still there"


def test_a_trial_whose_worker_dies_is_run_again(tmp_path):
    evaluator = FaultAt("die once", str(tmp_path), number=1)
    trials = run("random", evaluator, RayExecutor(retries=1), 4)
    assert len(trials) == 4
    assert all(isinstance(trial.outcome, Measured) for trial in trials)
    first, second = evaluator.attempts()
    assert first != second


def test_a_worker_killed_from_outside_is_replaced(tmp_path):
    evaluator = FaultAt("hang", str(tmp_path))
    executor = RayExecutor(retries=0)
    executor.submit(evaluator, proposal())
    killer = threading.Thread(target=_kill_first, args=(evaluator,))
    killer.start()
    trial = executor.next()
    killer.join()
    assert trial.outcome.cause == "worker died"
    assert "attempts: 1" in trial.outcome.message
    executor.submit(evaluator, proposal(1))
    assert isinstance(executor.next().outcome, Measured)
    executor.close()


def _kill_first(evaluator):
    assert wait_until(evaluator.attempts)
    os.kill(evaluator.attempts()[0], signal.SIGKILL)


def test_the_time_of_a_trial_starts_when_it_does():
    """Six trials of a second wait for two places: the last for longer than the limit."""
    executor = RayExecutor(workers=6, time_limit_s=2.5)
    evaluator = Score(1.0)
    start = time.monotonic()
    for number in range(6):
        executor.submit(evaluator, proposal(number))
    trials = [executor.next() for _ in range(6)]
    executor.close()
    assert time.monotonic() - start > 2.5
    assert all(isinstance(trial.outcome, Measured) for trial in trials), trials


def test_the_time_of_a_second_attempt_starts_anew(tmp_path):
    evaluator = FaultAt("die late once", str(tmp_path))  # after 1.2 s; done after as long again
    executor = RayExecutor(time_limit_s=2.2)
    executor.submit(evaluator, proposal())
    trial = executor.next()
    executor.close()
    assert len(evaluator.attempts()) == 2
    assert isinstance(trial.outcome, Measured), trial


def test_close_ends_what_is_in_flight(tmp_path):
    evaluator = FaultAt("hang in C", str(tmp_path))
    executor = RayExecutor()
    executor.submit(evaluator, proposal())
    assert wait_until(evaluator.attempts)
    executor.close()
    assert executor.idle
    assert wait_until(lambda: not alive(evaluator.attempts()[0]), 10)
    assert ray.is_initialized()  # it was not this executor that started it


# --------------------------------------------------------------------------- the evaluator


class Counted(Score):
    """Writes down where and how often it is unpickled; counts how often it is pickled."""

    pickled = 0

    def __init__(self, folder):
        super().__init__(0.05)
        self.folder = folder
        self.data = bytes(20 * MB)

    def __getstate__(self):
        Counted.pickled += 1
        return self.__dict__

    def __setstate__(self, state):
        self.__dict__ = state
        with open(f"{self.folder}/unpickled", "a") as file:
            file.write(f"{os.getpid()}\n")

    def evaluate(self, proposal):
        with open(f"{self.folder}/evaluated", "a") as file:
            file.write(f"{os.getpid()}\n")
        return super().evaluate(proposal)


def test_the_evaluator_is_sent_once_and_loaded_once_a_worker(tmp_path):
    Counted.pickled = 0
    executor = RayExecutor()
    assert len(run("random", Counted(str(tmp_path)), executor, 20)) == 20
    unpickled = (tmp_path / "unpickled").read_text().split()
    evaluated = (tmp_path / "evaluated").read_text().split()
    assert Counted.pickled == 1
    assert len(evaluated) == 20
    assert sorted(unpickled) == sorted(set(evaluated))  # each worker once
    assert str(os.getpid()) not in unpickled
    # Another evaluator is another one, also for workers that have the first.
    other = Score()
    trials = run("random", other, executor, 3)
    assert all(isinstance(trial.outcome, Measured) for trial in trials)
    assert len((tmp_path / "evaluated").read_text().split()) == 20


class Writes(Score):
    """Writes into an array of its own, as normalising in place would."""

    def __init__(self):
        import numpy as np

        super().__init__()
        self.data = np.zeros(2**20)

    def evaluate(self, proposal):
        self.data[0] = 1.0
        return super().evaluate(proposal)


def test_an_evaluator_may_write_into_its_arrays():
    assert isinstance(run("random", Writes(), RayExecutor(), 1)[0].outcome, Measured)


class Locked(Score):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_an_evaluator_that_cannot_be_pickled_is_refused():
    executor = RayExecutor()
    with pytest.raises(UnsupportedRequest, match="Locked cannot be sent to Ray's workers"):
        executor.submit(Locked(), proposal())
    assert executor.idle


class Unloadable(Score):
    def __setstate__(self, state):
        raise ModuleNotFoundError("No module named 'here_only'")


def test_an_evaluator_that_cannot_be_loaded_is_a_failed_trial():
    trials = run("random", Unloadable(), RayExecutor(), 3)
    assert {trial.outcome.cause for trial in trials} == {"exception"}
    assert "cannot be loaded in a worker: ModuleNotFoundError" in trials[0].outcome.message


class Threads(Score):
    def evaluate(self, proposal):
        import torch

        assert os.environ["OMP_WAIT_POLICY"] == "passive"
        return Measured({"score": float(torch.get_num_threads())})


@pytest.mark.parametrize(("cpus", "threads"), [(2, 2.0), (0.5, 1.0)])
def test_a_trial_computes_with_as_many_threads_as_it_has_cpus(cpus, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    (trial,) = run("random", Threads(), RayExecutor(workers=1, cpus=cpus), 1)
    assert trial.values == {"score": threads}


# --------------------------------------------------------------------------- the resources


def test_as_many_places_as_the_cluster_holds():
    memory = int(ray.cluster_resources()["memory"])
    for executor, places in (
        (RayExecutor(), 2),
        (RayExecutor(cpus=2), 1),
        (RayExecutor(cpus=0.1), 20),
        (RayExecutor(cpus=0.5, memory_bytes=memory // 3 - MB), 3),
        (RayExecutor(workers=7), 7),
    ):
        assert executor.free == places
        executor.close()
    executor = RayExecutor(workers=1)
    executor.submit(Score(), proposal())
    with pytest.raises(UnsupportedRequest, match="all 1 places"):
        executor.submit(Score(), proposal(1))
    executor.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpus": 64}, "needs 64 CPUs, .* it has 2 CPUs, 0 GPUs"),
        ({"gpus": 1}, "needs 1 CPUs, 1 GPUs .* it has 2 CPUs, 0 GPUs"),
        ({"memory_bytes": 2**50}, f"and {2**50} bytes of memory, and no machine"),
    ],
)
def test_what_no_machine_has_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        _ = RayExecutor(**arguments).free


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"cpus": -1}, "cpus must be zero or more, got -1"),
        ({"cpus": float("nan")}, "cpus must be zero or more, got nan"),
        ({"cpus": 0}, "needs cpus or gpus above zero"),
        ({"gpus": 1.5}, "gpus must be a whole number where it is above 1, got 1.5"),
        ({"retries": -1}, "retries must be zero or more, got -1"),
        ({"time_limit_s": 0}, "time_limit_s must be above zero"),
        ({"memory_bytes": 0}, "memory_bytes must be above zero, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        RayExecutor(**arguments)
