"""Work that several processes of a Ray cluster do together, as ranks of ``torch.distributed``.

Ray Train's ``TorchTrainer`` starts them, joins them (NCCL where each has a GPU, else Gloo), and
starts them again where one died. What its work goes on from, rank 0 tells the driver and an actor
beside it, the keeper; from there it reaches the next attempt, wherever that runs. So no disk has
to be shared, and what came of the work is the driver's.

What the work itself raises is raised by the driver at once: it would happen again.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import get_current_placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.errors import ConfigError, UnsupportedRequest, WorkerError
from nas.execution.need import places
from nas.execution.ray_cluster import connect, line, nodes, start_local, unbroken
from nas.execution.ray_worker import received, sent

if TYPE_CHECKING:
    from nas.supernet.workers import Resumable, Workers

T = TypeVar("T")

LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_LISTEN_S = 0.5
_END_S = 20.0
"""How long Ray Train may take to end after the work is done."""

_get: Callable[..., Any] = ray.get
_remote: Any = ray.remote  # its annotations know little of what it takes
_remove: Callable[..., None] = remove_placement_group


def run_on_ray(
    work: Resumable[T],
    kept: bytes,
    workers: Workers,
    threads: int = 1,
    on_kept: Callable[[bytes, Any], None] = lambda content, told: None,
) -> T:
    """Does work in so many processes of a cluster; gives what rank 0 made of it.

    Each has ``threads`` CPU cores. Where Ray runs already, or an address is given, that cluster is
    used; otherwise one on this machine, which ends with the work.

    Args:
        kept: what the work goes on from at first.
        on_kept: called here with whatever rank 0 keeps.

    Raises:
        UnsupportedRequest: the work cannot be pickled, or Ray Train is not installed.
        ConfigError: the cluster has no room for so many, or there is none at the address.
        WorkerError: workers died more often than is retried; the message says of what.
        Exception: whatever the work raised in any of them.
    """
    try:
        content = sent(work)
    except Exception as error:  # whatever a ``__reduce__`` may raise
        raise UnsupportedRequest(
            "this cannot be sent to Ray's workers, because it cannot be pickled: "
            f"{type(error).__name__}: {error}"
        ) from error
    need = {"CPU": float(max(1, threads)), "GPU": workers.gpus}
    with _cluster(workers.address), tempfile.TemporaryDirectory(prefix="nasforge-") as folder:
        loopback = _check_room(workers, need)
        keeper = _remote(
            num_cpus=0,
            max_concurrency=16,
            scheduling_strategy=NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            ),
        )(_Keeper).remote(kept)
        taken: list[Any] = []
        settings = (workers.count, need, workers.retries, folder, loopback)
        ended = keeper.fit.remote([ray.put(content)], *settings)
        try:
            found: T = _listen(keeper, ended, workers, on_kept, taken)
            return found
        finally:
            _end(keeper, ended, taken)


def _listen(
    keeper: Any,
    ended: Any,
    workers: Workers,
    on_kept: Callable[[bytes, Any], None],
    taken: list[Any],
) -> Any:
    """Hears the keeper until the work is done, or over.

    Args:
        taken: gets the places on the cluster that the workers of each attempt have.
    """
    try:
        while True:
            over, _ = ray.wait([ended], timeout=0)
            for kind, *said in _get(keeper.hear.remote(0.0 if over else _LISTEN_S)):
                if kind == "kept":
                    on_kept(*said)
                elif kind == "placed":
                    taken += said
                elif kind == "failed":
                    raise pickle.loads(said[0])
                else:
                    ray.wait([ended], timeout=_END_S)
                    return pickle.loads(said[0])
            if over:
                _get(ended)
                raise WorkerError("workers on Ray ended and left no result")
    except RayTaskError as error:
        raise WorkerError(
            f"{workers.count} workers on Ray were started {workers.retries + 1} times, and one "
            f"died or was lost each time: {_reason(error)}"
        ) from error
    except RayActorError as error:
        raise WorkerError(f"what started the workers on Ray died: {line(error)}") from error


def _end(keeper: Any, ended: Any, taken: list[Any]) -> None:
    """Ends what is under way, workers included, and gives back their places on the cluster.

    Ray keeps the places of a Ray Train that is killed for as long as this process lives. So its
    workers are killed and it ends by itself: an attempt that it still makes does nothing.
    """
    with suppress(RayError, ValueError):
        taken += [said[0] for kind, *said in _get(keeper.stop.remote()) if kind == "placed"]
        over, _ = ray.wait([ended], timeout=0)
        if not over:
            for places_of_workers in taken[-1:]:
                _remove(places_of_workers)
            ray.wait([ended], timeout=_END_S)
    ray.kill(keeper)


def _reason(error: RayTaskError) -> str:
    """What Ray Train says of a failure, in one line."""
    failures = getattr(error.cause, "worker_failures", None)
    if not failures:
        return line(error.cause) if error.cause else line(error)
    return "; ".join(f"rank {rank}: {line(failures[rank])}" for rank in sorted(failures))


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Ray within: the one that runs, the one at an address, or one on this machine."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    with unbroken():
        if address:
            connect(address)
        else:
            start_local()
    try:
        yield
    finally:
        with unbroken():
            ray.shutdown()


def _check_room(workers: Workers, need: dict[str, float]) -> bool:
    """Refuses a cluster without room for all workers; whether all of it is this machine."""
    there = [node for node in nodes() if node["Alive"]]
    room = sum(places(node["Resources"], need) for node in there)
    if room < workers.count:
        raise ConfigError(
            f"workers: {workers.count} want {need['CPU']:g} CPUs and {need['GPU']:g} GPUs each, "
            f"and the cluster has room for {room}"
        )
    return all(str(node["NodeManagerAddress"]).startswith("127.") for node in there)


# -------------------------------------------------------------------------------- on the cluster


class _Keeper:
    """Has what the work goes on from, and what the driver has not heard yet. An actor.

    Args:
        kept: the former, at first.
    """

    def __init__(self, kept: bytes) -> None:
        self.latest = kept
        self._said: list[tuple[Any, ...]] = []
        self._news = threading.Condition()
        self._stopped = False

    def kept(self) -> bytes:
        return self.latest

    def tell(self, kind: str, *said: Any) -> None:
        with self._news:
            if kind == "kept":
                self.latest = said[0]
            self._said.append((kind, *said))
            self._news.notify_all()

    def enter(self, places_of_workers: Any = None) -> bool:
        """Whether a worker that has just started is to work; rank 0 says in which places."""
        with self._news:
            if not self._stopped and places_of_workers is not None:
                self._said.append(("placed", places_of_workers))
                self._news.notify_all()
            return not self._stopped

    def stop(self) -> list[tuple[Any, ...]]:
        """No worker is to work from now on; what was told since the last time."""
        with self._news:
            self._stopped = True
            said, self._said = self._said, []
            return said

    def hear(self, timeout_s: float) -> list[tuple[Any, ...]]:
        """What was told since the last time; waits for something so long."""
        with self._news:
            self._news.wait_for(lambda: bool(self._said), timeout_s)
            said, self._said = self._said, []
            return said

    def fit(
        self,
        work: list[Any],
        count: int,
        need: dict[str, float],
        retries: int,
        folder: str,
        loopback: bool,
    ) -> None:
        """Runs the work to its end; raises Ray Train's error where workers died too often.

        Args:
            work: a reference to it, in a list, as it was ``sent``.
            folder: where Ray Train may write.
            loopback: whether all machines are this one: Gloo then needs to be told.
        """
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        environment = {
            "OMP_NUM_THREADS": str(int(need["CPU"])),
            "OMP_WAIT_POLICY": "passive",
            **({"GLOO_SOCKET_IFNAME": LOOPBACK} if loopback else {}),
        }
        TorchTrainer(
            _attempt,
            train_loop_config={"work": work, "keeper": ray.get_runtime_context().current_actor},
            # NCCL wants a GPU for each rank.
            torch_config=TorchConfig(backend="nccl" if need["GPU"] >= 1 else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=count, use_gpu=need["GPU"] > 0, resources_per_worker=need
            ),
            run_config=RunConfig(  # type: ignore[call-arg]  # its type is that of Ray Train's first version
                storage_path=folder,
                failure_config=FailureConfig(max_failures=retries),
                worker_runtime_env={"env_vars": environment},
            ),
        ).fit()


def _attempt(config: dict[str, Any]) -> None:
    """What each worker does, at every start."""
    keeper = config["keeper"]
    work = received(_get(config["work"][0]))

    import torch

    from nas.supernet.parallel import Distributed, LostRank
    from nas.supernet.workers import sendable

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if torch.cuda.is_available():
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    group = Distributed()
    places_of_workers = get_current_placement_group() if group.rank == 0 else None
    if not _get(keeper.enter.remote(places_of_workers)):
        return

    def keep(content: bytes, told: Any) -> None:
        if group.rank == 0:
            _get(keeper.tell.remote("kept", content, told))

    try:
        found = work(_get(keeper.kept.remote()), group, keep)
    except (LostRank, RayError):
        raise  # another's end, or the cluster's trouble: the next attempt may do better
    except Exception as error:
        with suppress(RayError):
            _get(keeper.tell.remote("failed", pickle.dumps(sendable(error))))
        raise
    if group.rank == 0:
        _get(keeper.tell.remote("done", pickle.dumps(found)))
