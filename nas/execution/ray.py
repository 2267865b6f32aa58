"""Trials on a Ray cluster: the loop is ours, scheduling and the care of workers are Ray's.

A trial is a Ray task that yields twice: nothing when it starts, and the trial when it ends. So
the driver knows since when a trial has run, and the time limit of one that waits for a place on
a busy cluster does not run yet. Trials whose worker died are submitted again by this file and not
by Ray, which would not say that the second attempt has started, and would repeat without end what
its memory monitor ended.

A local cluster ends with its driver, also where that is killed: workers within seconds, two idle
agents of Ray's within a minute.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    WorkerCrashedError,
)

from nas.budget import Cost
from nas.errors import ConfigError, UnsupportedRequest
from nas.evaluator import Evaluator
from nas.execution.guard import check_limits, finish, planned, run_trial
from nas.trial import Failed, Proposal, Trial

# Linux gives the whole of 127/8 to the loopback device. Ray takes 127.0.0.1 for "this machine"
# and goes on with the address it has in the network.
_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"

# These have no annotations.
dumps_by_value: Callable[[object], bytes] = cloudpickle.dumps
"""Pickles what lives in a script as well; ``pickle.loads`` reads it."""
_nodes: Callable[[], list[dict[str, Any]]] = ray.nodes

_WORKER_DIED = (WorkerCrashedError, NodeDiedError, ObjectLostError)


class RayExecutor:
    """Runs trials in worker processes, on this machine or a cluster.

    The evaluator is sent once, as it is when it is first submitted, and every worker process
    keeps its copy from one trial to the next. Ray starts when it is first needed: where it runs
    already, or an address is given, that cluster is used; otherwise one on this machine is
    started, and ended by ``close``.

    Args:
        workers: how many trials run at a time; by default as many as the cluster holds.
        cpus: CPU cores a trial; also the threads it computes with.
        gpus: GPUs a trial; a fraction shares one.
        memory_bytes: memory that Ray reserves for a trial, and that it may take beyond what its
            worker holds (Linux).
        retries: how often a trial whose worker process died is run again.
        time_limit_s: a trial that has run for longer is ended together with its worker process,
            whatever it does; loading the evaluator does not count.
        address: of a cluster, as ``ray.init`` takes it; else ``RAY_ADDRESS`` is looked at.

    Raises:
        ConfigError: an argument is out of range or, at the first use, no machine of the cluster
            has room for a trial.
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
    ) -> None:
        check_limits(time_limit_s, memory_bytes)
        if workers is not None and workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}")
        for name, value in (("cpus", cpus), ("gpus", gpus)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be zero or more, got {value}")
        if cpus == gpus == 0:
            raise ConfigError("a trial needs cpus or gpus above zero, got 0 of both")
        if gpus > 1 and gpus != int(gpus):
            raise ConfigError(f"gpus must be a whole number where it is above 1, got {gpus}")
        if retries < 0:
            raise ConfigError(f"retries must be zero or more, got {retries}")
        self.workers = workers
        self.cpus = cpus
        self.gpus = gpus
        self.memory_bytes = memory_bytes
        self.retries = retries
        self.time_limit_s = time_limit_s
        self.address = address
        self._task: Any = None
        self._places = 0
        self._started_ray = False
        self._stored: tuple[Evaluator, Any] | None = None
        self._running: dict[Any, _Running] = {}

    # --------------------------------------------------------------------- what there is

    @property
    def free(self) -> int:
        self._start()
        return max(0, self._places - len(self._running))

    @property
    def idle(self) -> bool:
        return not self._running

    @property
    def committed(self) -> Cost:
        running = list(self._running.values())  # a copy: a progress bar asks from its own thread
        return Cost(
            trials=len(running),
            seconds=sum(trial.seconds() for trial in running),
            epochs=sum(trial.epochs for trial in running),
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
            raise UnsupportedRequest(f"all {self._places} places of this executor are taken")
        epochs = planned(evaluator, proposal, earlier)
        self._launch(_Running(self._store(evaluator), proposal, earlier, epochs))

    def next(self) -> Trial:
        if self.idle:
            raise UnsupportedRequest("nothing was submitted")
        while True:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=self._time_left())
            trial = self._hear(ready[0]) if ready else None
            if trial is not None:
                return trial
            self._end_overdue()

    def close(self) -> None:
        """Ends what is in flight, and Ray if this executor started it; may be used again."""
        with _unbroken():
            for stream in self._running:
                with contextlib.suppress(RayError, ValueError, RuntimeError):
                    ray.cancel(stream, force=True)
            self._running = {}
            self._stored = None
            self._task = None
            if self._started_ray:
                self._started_ray = False
                ray.shutdown()

    def _launch(self, running: _Running) -> None:
        running.started = None
        running.attempts += 1
        stream = self._task.remote(
            # In a list, because Ray replaces bare references by what they refer to.
            [running.evaluator],
            running.proposal,
            running.earlier,
            running.epochs,
            max(1, int(self.cpus)),
            self.memory_bytes,
        )
        self._running[stream] = running

    def _hear(self, stream: Any) -> Trial | None:
        """Takes what a task has to say; the trial, if that is over."""
        running = self._running.pop(stream)
        try:
            trial = ray.get(next(stream))
        except _WORKER_DIED as error:
            if not running.overdue and running.attempts <= self.retries:
                running.before = running.seconds()
                self._launch(running)
                return None
            message = f"its worker process died (attempts: {running.attempts}): {_line(error)}"
            return self._failed(running, Failed("worker died", message))
        except OutOfMemoryError as error:
            return self._failed(running, Failed("memory", _line(error)))
        except (RayError, StopIteration) as error:
            return self._failed(running, Failed("exception", _line(error), str(error)))
        if trial is None:
            running.started = time.monotonic()
            # Behind the others: each has its turn, however much the first have to say.
            self._running[stream] = running
            return None
        if running.overdue:
            return self._failed(running, Failed("timeout", ""))
        assert isinstance(trial, Trial)
        return trial

    def _failed(self, running: _Running, failed: Failed) -> Trial:
        if running.overdue:  # then the death of its worker is our doing
            failed = Failed("timeout", f"took longer than {self.time_limit_s:g} s")
        return finish(running.proposal, failed, running.seconds(), running.epochs)

    def _time_left(self) -> float | None:
        """Seconds until the next trial is overdue; ``None`` if none can be."""
        if self.time_limit_s is None:
            return None
        starts = [r.started for r in self._running.values() if r.started and not r.overdue]
        if not starts:
            return None
        return max(0.0, min(starts) + self.time_limit_s - time.monotonic())

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

    def _store(self, evaluator: Evaluator) -> Any:
        if self._stored is None or self._stored[0] is not evaluator:
            try:
                # As bytes: Ray itself would hand every worker the same read-only arrays, and
                # evaluators that write into theirs work in one process and would not here.
                content = dumps_by_value(evaluator)
            except Exception as error:  # whatever a ``__reduce__`` may raise
                raise UnsupportedRequest(
                    f"{type(evaluator).__name__} cannot be sent to Ray's workers, because it "
                    f"cannot be pickled: {_line(error)}"
                ) from error
            # Ray tells its workers of the script's folder alone; tests and notebooks have more.
            folders = [os.path.abspath(folder) for folder in sys.path]
            self._stored = (evaluator, ray.put((folders, content)))
        return self._stored[1]

    # ------------------------------------------------------------------------- the cluster

    def _start(self) -> None:
        if self._task is not None:
            return
        if not ray.is_initialized():
            address = self.address or os.environ.get("RAY_ADDRESS")
            with _unbroken():
                if address:
                    _connect(address)
                else:
                    _start_local()
                self._started_ray = True
        need = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory_bytes or 0)}
        machines = [node["Resources"] for node in _nodes() if node["Alive"]]
        places = sum(_places(machine, need) for machine in machines)
        if places == 0:
            self.close()
            raise ConfigError(
                f"a trial needs {_amounts(need)}, and no machine of the cluster has that: it has "
                + "; ".join(_amounts(machine) for machine in machines)
            )
        self._places = self.workers or places
        remote: Any = ray.remote  # its annotations know no ``memory=None``
        self._task = remote(
            num_returns="streaming",
            max_retries=0,
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            memory=self.memory_bytes,
        )(_run)


@dataclass(slots=True, eq=False)
class _Running:
    """A trial in flight.

    Attributes:
        evaluator: the reference to it.
        earlier: the trial it continues or was made from, with its artifacts.
        started: when the present attempt did, if it has.
        before: seconds that attempts before it ran.
        overdue: its time is up, and Ray was told to end it.
    """

    evaluator: Any
    proposal: Proposal
    earlier: Trial | None
    epochs: float
    attempts: int = 0
    started: float | None = None
    before: float = 0.0
    overdue: bool = False

    def seconds(self) -> float:
        now = 0.0 if self.started is None else time.monotonic() - self.started
        return self.before + now


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
    """Keeps an interrupt from the keyboard until the end.

    Where Ray is broken off while it starts or ends, some of its processes stay for a minute.
    Whoever is out of patience interrupts three times.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(signum: int, frame: FrameType | None) -> None:
        held.append(signum)
        if len(held) == 3:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def _start_local() -> None:
    # Ray's processes take these from us; it would report its use to its makers.
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = before or "0"
    try:
        ray.init(
            "local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=_LOOPBACK,
        )
    finally:
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "/" not in host:
            # Ray ends the whole process where nobody answers.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"address: no Ray cluster at {address!r}: {_line(error)}") from error


def _places(machine: Mapping[str, float], need: Mapping[str, float]) -> int:
    """How many trials of that need one machine holds."""
    # With Ray's own precision, so that ten trials of 0.1 fit one CPU.
    return min(
        int(round(machine.get(name, 0.0) * 1e4) // round(amount * 1e4))
        for name, amount in need.items()
        if amount > 0
    )


def _amounts(resources: Mapping[str, float]) -> str:
    memory = resources.get("memory", 0.0)
    return (
        f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs and "
        f"{memory:.0f} bytes of memory"
    )


def _line(error: BaseException) -> str:
    """An error in one line; Ray's own go on with advice."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip()[:300] if lines else type(error).__name__


# ------------------------------------------------------------------------- in the workers


def _run(
    evaluator: list[Any],
    proposal: Proposal,
    earlier: Trial | None,
    epochs: float,
    threads: int,
    memory_bytes: int | None,
) -> Iterator[Trial | None]:
    """The task: yields ``None`` as the trial starts, then the trial."""
    # Read when torch is imported: by the evaluator, as it is loaded or later.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        loaded = _load(evaluator[0])
    except Exception as error:  # anything, such as a module that this machine has not
        message = f"the evaluator cannot be loaded in a worker: {type(error).__name__}: {error}"
        yield None
        yield finish(proposal, Failed("exception", message), 0.0, epochs)
        return
    if "torch" in sys.modules:  # since an earlier trial, which may have had other threads
        sys.modules["torch"].set_num_threads(threads)
    yield None
    yield run_trial(loaded, proposal, earlier, memory_bytes=memory_bytes)


@functools.lru_cache(maxsize=1)
def _load(reference: Any) -> Evaluator:
    """The evaluator behind a reference, unpickled once a worker process."""
    folders, content = ray.get(reference)
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    loaded: Evaluator = cloudpickle.loads(content)
    return loaded
