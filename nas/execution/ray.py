"""Trials on a Ray cluster: the loop is ours, scheduling and the care of workers are Ray's.

A trial is a Ray task that yields twice: its machine when it starts, and the trial when it ends.
So the driver knows since when a trial has run, and the time limit of one that waits for a place
on a busy cluster does not run yet. Trials whose worker died are submitted again by this file and
not by Ray, which would not say that the second attempt has started, and would repeat without end
what its memory monitor ended.

A local cluster ends with its driver, also where that is killed: workers within seconds, two idle
agents of Ray's within a minute. On a cluster that was there before, the tasks of a killed driver
end with it.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import time
import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any, get_args

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

from nas.budget import Cost
from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.evaluator import Evaluator
from nas.execution.guard import check_limits, finish, planned
from nas.execution.need import checked_need
from nas.execution.ray_cluster import Code, Machines, connect, line, start_local, unbroken
from nas.execution.ray_running import Running
from nas.execution.ray_worker import dumps_by_value, run_in_worker, sent
from nas.trial import Failed, Proposal, Trial

__all__ = ["MOST_LOSSES", "RayExecutor", "dumps_by_value"]

MOST_LOSSES = 20
"""How often a trial may lose its machine: one that exhausts its machines would end them all."""

_PLACEMENTS = ("DEFAULT", "SPREAD")

_LISTEN_S = 1.0
_SILENCE_S = 5.0
_MACHINE_GONE = (NodeDiedError, ObjectLostError)
_WORKER_DIED = (WorkerCrashedError, RuntimeEnvSetupError)


class RayExecutor:
    """Runs trials in worker processes, on this machine or a cluster.

    The evaluator is sent once, as it is when it is first submitted, and every worker process
    keeps its copy from one trial to the next (with ``gpus``, Ray gives each trial a new process).
    What the evaluator holds goes with it, data sets in memory too; paths that it reads later are
    read on the worker's machine, relative ones in the driver's working folder if there is such a
    folder there. Ray starts when it is first needed: where it runs already, or an address is
    given, that cluster is used; otherwise one on this machine is started, and ended by ``close``.

    The cluster may grow and shrink meanwhile: what is free follows its machines. A trial whose
    machine is lost is run again elsewhere and its ``retries`` are not touched, because machines
    are lost for no fault of the trials; if it loses 20 it fails. While no machine has room for a
    trial, the search waits, with a warning that says what is missing.

    Args:
        workers: how many trials are in flight at a time; by default as many as the cluster
            holds. More than that wait in Ray, which makes an autoscaler start machines.
        cpus: CPU cores a trial; also the threads it computes with.
        gpus: GPUs a trial; a fraction shares one.
        memory_bytes: memory that Ray reserves for a trial, and that it may take beyond what its
            worker holds (Linux).
        retries: how often a trial whose worker process died is run again.
        time_limit_s: a trial that has run for longer is ended together with its worker process,
            whatever it does; loading the evaluator does not count.
        address: of a cluster that this machine is part of: ``host:port`` or ``auto``; else
            ``RAY_ADDRESS`` is looked at.
        resources: what else a trial needs, by the names that the cluster's machines were started
            with: ``{"phone": 1}``.
        placement: ``DEFAULT`` fills one machine after the other, ``SPREAD`` all alike.
        code: ``auto`` sends a cluster that was joined by its address the code that is not
            installed in site-packages (``nas.execution.code``); ``none`` sends nothing.
        wait_s: how long the first trial may wait for a machine with room for it, where one is
            still to come. By default what no machine has is refused.

    Raises:
        ConfigError: an argument is out of range or, at the first use, there is no cluster at
            the address, or no machine of it has room for a trial.
    """

    def __init__(
        self,
        workers: int | None = None,
        cpus: float = 1,
        gpus: float = 0,
        memory_bytes: int | None = None,
        retries: int = 3,
        time_limit_s: float | None = None,
        address: str | None = None,
        resources: Mapping[str, float] | None = None,
        placement: str = "DEFAULT",
        code: Code = "auto",
        wait_s: float = 0.0,
    ) -> None:
        check_limits(time_limit_s, memory_bytes)
        if workers is not None and workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}")
        need = checked_need(cpus, gpus, memory_bytes, resources)
        if retries < 0:
            raise ConfigError(f"retries must be zero or more, got {retries}")
        if placement not in _PLACEMENTS:
            near = nearest(placement.upper(), _PLACEMENTS)
            raise ConfigError(f"there is no placement {placement!r}: {near}")
        if code not in get_args(Code):
            raise ConfigError(f"code must be one of {', '.join(get_args(Code))}, got {code!r}")
        if not (math.isfinite(wait_s) and wait_s >= 0):
            raise ConfigError(f"wait_s must be zero or more, got {wait_s}")
        self.workers = workers
        self.cpus = cpus
        self.gpus = gpus
        self.memory_bytes = memory_bytes
        self.retries = retries
        self.time_limit_s = time_limit_s
        self.address = address
        self.resources = resources
        self.placement = placement
        self.code = code
        self.wait_s = wait_s
        self._need = need
        self._machines: Machines | None = None
        self._task: Any = None
        self._started_ray = False
        self._stored: tuple[Evaluator, Any] | None = None
        self._running: dict[Any, Running] = {}
        self._ended: deque[Trial] = deque()
        self._refuse_at: float | None = None
        self._heard = 0.0
        self._warned = ""

    # --------------------------------------------------------------------- what there is

    @property
    def free(self) -> int:
        machines = self._start()
        machines.look()
        if self.workers is None and not machines.places and self.idle:
            return 1  # it waits for a machine, and an autoscaler starts one only for what waits
        taken = len(self._running) + len(self._ended)
        return max(0, (self.workers or machines.places) - taken)

    @property
    def idle(self) -> bool:
        return not self._running and not self._ended

    @property
    def committed(self) -> Cost:
        # Copies: a progress bar asks from its own thread.
        running, ended = list(self._running.values()), list(self._ended)
        return Cost(
            trials=len(running) + len(ended),
            seconds=sum(r.seconds() for r in running) + sum(t.cost.seconds for t in ended),
            epochs=sum(r.epochs for r in running) + sum(t.cost.epochs for t in ended),
        )

    # -------------------------------------------------------------------------- the loop

    def submit(
        self, evaluator: Evaluator, proposal: Proposal, earlier: Trial | None = None
    ) -> None:
        """Starts a trial, or queues it where the cluster is busy.

        The driver keeps the trial it continues, or was made from, until it ends: an attempt whose
        worker died is followed by one from the same checkpoint.

        Raises:
            UnsupportedRequest: nothing is free, or the evaluator cannot be pickled.
        """
        if self.free == 0:
            taken = self.workers or len(self._running)
            raise UnsupportedRequest(f"all {taken} places of this executor are taken")
        epochs = planned(evaluator, proposal, earlier)
        if not self._running:
            self._heard = time.monotonic()
        self._launch(Running(self._store(evaluator), proposal, earlier, epochs))

    def wait(self) -> bool:
        """Waits until a trial has ended, or more can start than before; whether one has ended.

        Raises:
            ConfigError: no machine with room for a trial came within ``wait_s`` of the start.
        """
        if self.idle:
            raise UnsupportedRequest("nothing was submitted")
        free = self.free
        while not self._ended:
            streams = list(self._running)
            ready, _ = ray.wait(streams, num_returns=1, timeout=self._time_left())
            trial = self._hear(ready[0]) if ready else None
            if trial is not None:
                self._ended.append(trial)
                continue
            self._end_overdue()
            self._look_after()
            if self.free > free:
                return False
        return True

    def next(self) -> Trial:
        while not self.wait():
            pass
        return self._ended.popleft()

    def close(self) -> None:
        """Ends what is in flight, and Ray if this executor started it; may be used again."""
        with unbroken():
            for stream in self._running:
                with contextlib.suppress(RayError, ValueError, RuntimeError):
                    ray.cancel(stream, force=True)
            self._running = {}
            self._ended.clear()
            self._stored = None
            self._task = None
            self._machines = None
            if self._started_ray:
                self._started_ray = False
                ray.shutdown()

    def _launch(self, running: Running) -> None:
        running.started = None
        running.machine = ""
        running.gone_since = None
        running.attempts += 1
        limits = (running.epochs, max(1, int(self.cpus)), self.memory_bytes)
        # As bytes, which Ray takes as they are: what it pickles itself takes a multiple of this.
        work = pickle.dumps((running.proposal, running.earlier, *limits))
        # In a list, because Ray replaces bare references by what they refer to.
        stream = self._task.remote([running.evaluator], work)
        self._running[stream] = running

    def _hear(self, stream: Any) -> Trial | None:
        """Takes what a task has to say; the trial, if that is over."""
        running = self._running.pop(stream)
        self._heard = time.monotonic()
        try:
            said = ray.get(next(stream))
            if isinstance(said, bytes):
                said = pickle.loads(said)
        except _MACHINE_GONE as error:
            return self._lost(running, line(error))
        except _WORKER_DIED as error:
            if not running.overdue and running.attempts - running.losses <= self.retries:
                self._again(running)
                return None
            attempts = running.attempts - running.losses
            message = f"its worker process died (attempts: {attempts}): {line(error)}"
            return self._failed(running, Failed("worker died", message))
        except OutOfMemoryError as error:
            return self._failed(running, Failed("memory", line(error)))
        except (RayError, StopIteration) as error:
            return self._failed(running, Failed("exception", _cause(error), str(error)))
        if isinstance(said, str):
            running.started = time.monotonic()
            running.machine = said
            self._warned = ""
            # Behind the others: each has its turn, however much the first have to say.
            self._running[stream] = running
            return None
        if running.overdue:
            return self._failed(running, Failed("timeout", ""))
        assert isinstance(said, Trial)
        return said

    def _again(self, running: Running) -> None:
        running.before = running.seconds()
        self._launch(running)

    def _lost(self, running: Running, reason: str) -> Trial | None:
        running.losses += 1
        if not running.overdue and running.losses <= MOST_LOSSES:
            self._again(running)
            return None
        message = f"its machine was lost (times: {running.losses}): {reason}"
        return self._failed(running, Failed("worker died", message))

    def _failed(self, running: Running, failed: Failed) -> Trial:
        if running.overdue:  # then the death of its worker is our doing
            failed = Failed("timeout", f"took longer than {self.time_limit_s:g} s")
        return finish(running.proposal, failed, running.seconds(), running.epochs)

    def _time_left(self) -> float:
        """Seconds until there is something to look after: the next overdue trial, the machines."""
        if self.time_limit_s is None:
            return _LISTEN_S
        starts = [r.started for r in self._running.values() if r.started and not r.overdue]
        if not starts:
            return _LISTEN_S
        return min(_LISTEN_S, max(0.0, min(starts) + self.time_limit_s - time.monotonic()))

    def _end_overdue(self) -> None:
        if self.time_limit_s is None:
            return
        now = time.monotonic()
        for stream, running in self._running.items():
            started = running.started
            if started is None or running.overdue or now - started < self.time_limit_s:
                continue
            running.overdue = True
            ray.cancel(stream, force=True)  # it is heard of once more, as an error

    def _look_after(self) -> None:
        """Gives up trials whose machine vanished without a word; says what is waited for."""
        machines = self._start()
        machines.look()
        now = time.monotonic()
        for stream, running in list(self._running.items()):
            started = running.started  # perhaps on a machine that joined since the last look
            if not started or started > machines.seen or running.machine in machines.alive:
                running.gone_since = None
                continue
            running.gone_since = running.gone_since or now
            # Ray tells most losses itself, within this time. Of a machine that was cut off it
            # says nothing, nor of one whose workers outlive Ray on it.
            if now - running.gone_since > _SILENCE_S:
                del self._running[stream]
                trial = self._lost(running, "it is no longer part of the cluster")
                if trial is not None:
                    self._ended.append(trial)
        if machines.places:
            self._refuse_at = None
            return
        if self._refuse_at is not None and now > self._refuse_at:
            raise ConfigError(f"{machines.missing()} (waited {self.wait_s:g} s)")
        missing = machines.missing()
        if now - self._heard > _SILENCE_S and missing != self._warned:
            self._warned = missing
            warnings.warn(f"waiting for room on the cluster: {missing}", stacklevel=2)

    def _store(self, evaluator: Evaluator) -> Any:
        if self._stored is None or self._stored[0] is not evaluator:
            try:
                content = sent(evaluator)
            except Exception as error:  # whatever a ``__reduce__`` may raise
                raise UnsupportedRequest(
                    f"{type(evaluator).__name__} cannot be sent to Ray's workers, because it "
                    f"cannot be pickled: {line(error)}"
                ) from error
            self._stored = (evaluator, ray.put(content))
        return self._stored[1]

    # ------------------------------------------------------------------------- the cluster

    def _start(self) -> Machines:
        if self._machines is not None:
            return self._machines
        if not ray.is_initialized():
            address = self.address or os.environ.get("RAY_ADDRESS")
            with unbroken():
                if address and address != "local":
                    connect(address, self.code)
                else:
                    start_local()
                self._started_ray = True
        machines = Machines(self._need)
        machines.look()
        if not machines.places:
            if not self.wait_s:
                missing = machines.missing()
                self.close()
                raise ConfigError(missing)
            self._refuse_at = time.monotonic() + self.wait_s
        remote: Any = ray.remote  # its annotations know no ``memory=None``
        self._task = remote(
            num_returns="streaming",
            max_retries=0,
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            memory=self.memory_bytes,
            resources=dict(self.resources or {}),
            scheduling_strategy=self.placement,
        )(run_in_worker)
        self._machines = machines
        return machines


def _cause(error: Exception) -> str:
    """What went wrong outside of an evaluation, in one line."""
    if not isinstance(error, RayTaskError):
        return line(error)
    last = str(error).strip().splitlines()[-1][:300]  # of a traceback
    if "ModuleNotFoundError" not in last:
        return last
    return f"a worker lacks a module: {last} (code 'auto' sends what is not installed)"
