"""Processes that do one piece of work together, as ranks of ``torch.distributed``.

On a Ray cluster they are Ray Train's (``nas.execution.ray_train``). On this machine they are
started here: anew rather than forked; they talk to each other over the loopback device and to the
process that started them over a socket each. None outlives it, whatever ends it: the end of its
side of the socket is the end of theirs.
"""

from __future__ import annotations

import functools
import math
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import distributed

from nas.errors import ConfigError, UnsupportedRequest, WorkerError, nearest
from nas.supernet.parallel import Distributed, Group, LostRank, check_shares
from nas.training import Device, choose_device

T = TypeVar("T", covariant=True)

_PATIENCE_S = 5.0
"""How long what a rank died of may come after word of a rank that misses it."""

_START = "from nas.supernet.workers import serve; serve()"


class Work(Protocol[T]):
    """What every worker does; picklable."""

    def __call__(self, group: Group, report: Callable[..., None]) -> T:
        """Gives a value that can be pickled; that of rank 0 counts.

        Args:
            report: takes values that can be pickled to the process that started the workers.
        """


@dataclass(frozen=True)
class Workers:
    """Processes that train together; a number alone stands for so many on this machine.

    Attributes:
        count: how many.
        on: ``"processes"`` on this machine, or ``"ray"``: of a Ray cluster.
        gpus: GPUs of each of Ray's workers; a fraction shares one.
        address: of Ray's cluster, as ``ray.init`` takes it; where there is none, one on this
            machine is started.
        retries: how often Ray's workers start again, from the last epoch, after one of them died.
    """

    count: int
    on: Literal["processes", "ray"] = "processes"
    gpus: float = 0
    address: str | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"workers must be at least 1, got {self.count}")
        if self.on not in KINDS:
            raise ConfigError(f"workers: there is no {self.on!r}: {nearest(self.on, KINDS)}")
        if not (math.isfinite(self.gpus) and self.gpus >= 0):
            raise ConfigError(f"workers: gpus must be zero or more, got {self.gpus}")
        if self.retries < 0:
            raise ConfigError(f"workers: retries must be zero or more, got {self.retries}")
        if self.on == "processes" and (self.gpus or self.address is not None):
            raise ConfigError("workers: gpus and address are of workers on Ray; say on: ray")


KINDS = ("processes", "ray")


def as_workers(workers: int | Workers) -> Workers:
    """Workers, of their number or themselves.

    Raises:
        ConfigError: there is less than one.
    """
    return workers if isinstance(workers, Workers) else Workers(workers)


class Resumable(Protocol[T]):
    """Work that can go on from what was kept of it; picklable."""

    def __call__(self, kept: bytes, group: Group, keep: Callable[[bytes, Any], None]) -> T:
        """Gives a value that can be pickled; that of rank 0 counts.

        Args:
            kept: what rank 0 kept last, or what the caller gave.
            keep: takes what a later start goes on from, and something to be told of it.
        """


def run_resumable(
    work: Resumable[T],
    kept: bytes,
    workers: Workers,
    device: Device = "cpu",
    threads: int = 1,
    on_kept: Callable[[bytes, Any], None] | None = None,
) -> T:
    """Does work on workers of either kind; gives what rank 0 made of it.

    Args:
        on_kept: called here with whatever rank 0 keeps.

    Raises:
        WorkerError: a worker died, on Ray more often than is retried.
        Exception: whatever the work raised in any of them.
    """
    if workers.on == "ray":
        from nas.execution.ray_train import run_on_ray  # Ray takes a second to import

        return run_on_ray(work, kept, workers, threads, on_kept or _unheard)
    return run_workers(functools.partial(work, kept), workers.count, device, threads, on_kept)


def check_workers(workers: int | Workers, examples: int, batch_size: int, device: Device) -> None:
    """Refuses workers that have too few rows of a batch each, or no GPU on this machine.

    Raises:
        ConfigError: as said.
    """
    found = as_workers(workers)
    check_shares(examples, batch_size, found.count)
    if found.on == "processes":
        check_devices(device, found.count)


def check_devices(device: Device, size: int) -> None:
    """Refuses workers on a GPU that do not have one each.

    Raises:
        ConfigError: as said.
    """
    gpus = torch.cuda.device_count()
    if size > 1 and choose_device(device).type == "cuda" and gpus < size:
        raise ConfigError(
            f"workers: {size} want a GPU each and there are {gpus}; give device 'cpu', or workers "
            f"of at most {gpus}"
        )


def run_workers(
    work: Work[T],
    size: int,
    device: Device = "cpu",
    threads: int = 1,
    on_report: Callable[..., None] | None = None,
) -> T:
    """Does work in so many new processes; gives what rank 0 made of it.

    On GPUs they have one each and are joined by NCCL, else by Gloo. Unless the environment says
    otherwise, ``OMP_NUM_THREADS`` and ``OMP_WAIT_POLICY=passive`` are set before torch is imported,
    and ``GLOO_SOCKET_IFNAME`` and ``NCCL_SOCKET_IFNAME`` to the loopback device.

    Args:
        threads: of each worker.
        on_report: called here with whatever rank 0 reports.

    Raises:
        UnsupportedRequest: the work cannot be pickled.
        WorkerError: a worker died; the message names it.
        Exception: whatever the work raised in any of them. The others are ended.
    """
    check_devices(device, size)
    backend = "nccl" if choose_device(device).type == "cuda" else "gloo"
    content = _pickled(work)
    workers: list[_Worker] = []
    # The ranks find each other through a file: no port that others could take, or listen to.
    with tempfile.TemporaryDirectory(prefix="nasforge-") as folder:
        try:
            for rank in range(size):
                workers.append(_Worker(rank, _environment(threads)))
            for rank, worker in enumerate(workers):
                worker.give(_Place(rank, size, backend, str(Path(folder) / "ranks")), content)
            return _listen(workers, on_report or _unheard)
        finally:
            for worker in workers:
                worker.process.kill()
            for worker in workers:
                worker.process.wait()
                worker.connection.close()


class _Place(NamedTuple):
    """A worker's in its group; ``store`` is a file through which the ranks find each other."""

    rank: int
    size: int
    backend: str
    store: str


class _Worker:
    def __init__(self, rank: int, environment: Mapping[str, str]) -> None:
        self.rank = rank
        self.connection, theirs = Pipe()
        with theirs:
            self.process = Popen(
                [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
                stdin=DEVNULL,
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for us: we end them
            )

    def give(self, place: _Place, content: bytes) -> None:
        with suppress(OSError):  # it died at once: that is heard when it is listened to
            self.connection.send_bytes(pickle.dumps(tuple(place)))
            self.connection.send_bytes(content)

    def hear(self) -> tuple[Any, ...]:
        """The next message.

        Raises:
            EOFError, OSError: there is none, and never will be.
        """
        message: tuple[Any, ...] = pickle.loads(self.connection.recv_bytes())
        return message


def _listen(workers: Sequence[_Worker], on_report: Callable[..., None]) -> Any:
    """Hears all workers until they are done; raises what the first of them failed from."""
    open_ones = {worker.connection: worker for worker in workers}
    result = None
    lost: LostRank | None = None
    deadline: float | None = None
    while open_ones:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = wait(list(open_ones), left)
        if not ready and lost is not None:
            raise lost
        for connection in ready:
            worker = open_ones[connection]  # type: ignore[index]  # typed as any kind of handle
            try:
                kind, *values = worker.hear()
            except (EOFError, OSError):
                raise WorkerError(_died(worker, len(workers))) from None
            if kind == "report":
                on_report(*values)
                continue
            del open_ones[worker.connection]
            if kind == "done" and worker.rank == 0:
                (result,) = values
            elif kind == "failed" and isinstance(values[0], LostRank):
                # Another's end is the cause, and about to be heard of.
                lost = lost or values[0]
                deadline = deadline or time.monotonic() + _PATIENCE_S
            elif kind == "failed":
                raise values[0]
    if lost is not None:
        raise lost
    return result


def _died(worker: _Worker, size: int) -> str:
    code = worker.process.wait()
    how = f"with exit code {code}"
    if code < 0:
        with suppress(ValueError):
            how = f"of signal {-code} ({signal.Signals(-code).name})"
    return (
        f"worker {worker.rank} of {size} (process {worker.process.pid}) died {how}, and the others "
        "were ended"
    )


def _unheard(*values: Any) -> None:
    """Hears nothing."""


def _environment(threads: int) -> dict[str, str]:
    loopback = "lo" if sys.platform == "linux" else "lo0"
    unless_set = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
    }
    folders = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    return {**unless_set, **os.environ, "PYTHONPATH": folders}


def _pickled(work: Work[Any]) -> bytes:
    """What lives in a script goes by value, so that the workers need not run the script."""
    try:
        content = pickle.dumps(work)
    except Exception:  # whatever pickle, or a ``__reduce__``, raises for a lambda
        content = b"__main__"
    if b"__main__" not in content:
        return content
    from nas.execution.ray import dumps_by_value  # Ray takes a second to import

    try:
        return dumps_by_value(work)
    except Exception as error:
        raise UnsupportedRequest(
            "this cannot be sent to workers, because it cannot be pickled: "
            f"{type(error).__name__}: {error}"
        ) from error


# ---------------------------------------------------------------------------- in the workers


def serve() -> None:
    """What a worker process runs: the work it is sent; then it waits for its end."""
    connection = Connection(int(sys.argv[1]))
    try:
        place = _Place(*pickle.loads(connection.recv_bytes()))
        content = connection.recv_bytes()
    except EOFError:
        return
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    message: tuple[Any, ...]
    try:
        message = "done", _work(place, content, connection)
    except BaseException as error:  # SystemExit too: whoever started us has to know
        message = "failed", sendable(error)
    sys.stdout.flush()
    _tell(connection, message)
    threading.Event().wait()  # until everyone is done, and we are ended


def _work(place: _Place, content: bytes, connection: Connection[Any, Any]) -> Any:
    work: Work[Any] = pickle.loads(content)
    if place.backend == "nccl":
        torch.cuda.set_device(place.rank)
    store = distributed.FileStore(place.store, place.size)  # type: ignore[attr-defined]  # torch exports it from C
    distributed.init_process_group(
        place.backend, store=store, rank=place.rank, world_size=place.size
    )

    def report(*values: Any) -> None:
        if place.rank == 0:
            _tell(connection, ("report", *values))

    result = work(Distributed(), report)
    return result if place.rank == 0 else None


def _tell(connection: Connection[Any, Any], message: tuple[Any, ...]) -> None:
    # Not ``send``, which pickles tensors as references to this process.
    connection.send_bytes(pickle.dumps(message))


def _end_with(connection: Connection[Any, Any]) -> None:
    """Ends this process when the one that started it is gone, whatever is going on here."""
    with suppress(EOFError, OSError):
        connection.recv_bytes()
    os._exit(1)


def sendable(error: BaseException) -> Exception:
    """The error with where it was raised, or one that says the same where it cannot be sent."""
    trace = "".join(traceback.format_exception(error))
    kept = error if isinstance(error, Exception) else None
    try:
        if kept is not None:
            pickle.loads(pickle.dumps(kept))
    except Exception:  # whatever its ``__reduce__`` does
        kept = None
    if kept is None:
        kept = WorkerError(f"a worker failed: {type(error).__name__}: {error}")
    kept.add_note(f"in a worker:\n{trace}")
    return kept
