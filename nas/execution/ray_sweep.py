"""Whole jobs on a Ray cluster: a function and its arguments in a worker process of their own.

Beside ``nas.execution.ray``, whose tasks are trials. A job is tried once: whoever started it
hears that its worker or machine was lost, and may start it again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.errors import ConfigError
from nas.execution.need import amounts, places
from nas.execution.ray_cluster import Code, connect, line, nodes, start_local, unbroken

_END_S = 5.0
_LOOK_EVERY_S = 1.0
_MACHINE_GONE = (NodeDiedError, ObjectLostError)
_WORKER_DIED = (WorkerCrashedError, RuntimeEnvSetupError)


class JobLost(Exception):
    """The worker process of a job is gone; ``machine`` says whether its machine is, too."""

    def __init__(self, message: str, machine: bool) -> None:
        super().__init__(message)
        self.machine = machine


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a job: its result, or the error it raised (``JobLost`` among them)."""

    key: str
    result: Any = None
    error: BaseException | None = None


class RayJobs:
    """Jobs on a cluster: Ray's where it runs already, the one at an address, or a local one.

    Args:
        address: of a cluster, as ``ray.init`` takes it; else ``RAY_ADDRESS`` is looked at.
        code: whether the cluster is sent what is not installed (``ray_cluster.connect``).
    """

    def __init__(self, address: str | None = None, code: Code = "auto") -> None:
        self.address = address
        self.code: Code = code
        self._started_ray = False
        self._running: dict[Any, str] = {}
        self._machines: list[Mapping[str, float]] = []
        self._next_look = 0.0
        self._open()

    def places(self, need: Mapping[str, float]) -> int:
        """How many jobs or trials of that need the machines hold that are there now."""
        now = time.monotonic()
        if now >= self._next_look:
            self._machines = [node["Resources"] for node in nodes() if node["Alive"]]
            # As in ``Machines``: listing a thousand of them takes Ray a while.
            self._next_look = now + max(_LOOK_EVERY_S, 100 * (time.monotonic() - now))
        return sum(places(machine, need) for machine in self._machines)

    def check(self, need: Mapping[str, float]) -> None:
        """Raises ``ConfigError`` where no machine has room for one job of that need."""
        if self.places(need) == 0:
            there = "; ".join(amounts(machine, need) for machine in self._machines)
            raise ConfigError(
                f"a search needs {amounts(need, need)}, and no machine of the cluster has that: "
                f"it has {there or 'no machine'}"
            )

    def start(
        self, key: str, function: Callable[..., Any], *arguments: Any, cpus: float, gpus: float
    ) -> None:
        """Starts a job wherever there is room, or queues it where the cluster is busy."""
        threads = max(1, int(cpus))
        self._launch(key, function, arguments, threads, {"num_cpus": cpus, "num_gpus": gpus})

    def start_here(self, key: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Starts a job on this machine that takes no place, but may start trials on others."""
        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        self._launch(key, function, arguments, 1, {"num_cpus": 0, "scheduling_strategy": here})

    def _launch(
        self,
        key: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        threads: int,
        options: dict[str, Any],
    ) -> None:
        folders = [os.path.abspath(folder) for folder in sys.path]
        remote: Any = ray.remote(_call)  # its annotations know no options
        task = remote.options(max_retries=0, **options)
        self._running[task.remote(function, arguments, threads, os.getcwd(), folders)] = key

    def wait(self, timeout_s: float) -> list[Ended]:
        """The jobs that end within some seconds; as soon as one has."""
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        return [self._ended(reference) for reference in ready]

    def _ended(self, reference: Any) -> Ended:
        key = self._running.pop(reference)
        try:
            return Ended(key, ray.get(reference))
        except OutOfMemoryError as error:
            return Ended(key, error=MemoryError(line(error)))
        except (*_MACHINE_GONE, *_WORKER_DIED) as error:
            lost = JobLost(line(error), isinstance(error, _MACHINE_GONE))
            return Ended(key, error=lost)
        except RayError as error:
            cause = getattr(error, "cause", None)
            return Ended(key, error=cause if isinstance(cause, Exception) else error)

    def close(self) -> None:
        """Ends what runs, its trials too, and Ray if it was started here."""
        with unbroken():
            for reference in self._running:
                with contextlib.suppress(RayError, ValueError, RuntimeError):
                    ray.cancel(reference, force=True, recursive=True)
            if self._running:
                # Until its process is dead, a job may write another line.
                ray.wait(list(self._running), num_returns=len(self._running), timeout=_END_S)
            self._running = {}
            if self._started_ray:
                self._started_ray = False
                ray.shutdown()

    def _open(self) -> None:
        if ray.is_initialized():
            return
        address = self.address or os.environ.get("RAY_ADDRESS")
        with unbroken():
            if address:
                connect(address, self.code)
            else:
                start_local()
            self._started_ray = True


def _call(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    threads: int,
    folder: str,
    folders: list[str],
) -> Any:
    """The task: the job, where modules and relative paths are found as by whoever started it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "passive"
    if "torch" in sys.modules:  # since an earlier job, which may have had other threads
        sys.modules["torch"].set_num_threads(threads)
    sys.path.extend(one for one in folders if one not in sys.path)
    with contextlib.suppress(OSError):  # a machine without that folder finds absolute paths
        os.chdir(folder)
    return function(*arguments)
