"""Clusters of several machines on this one's loopback addresses, and what runs on them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from workloads import Score, wait_until

from nas.trial import Infeasible, Measured, Proposal

MB = 2**20

# A machine that does not answer four times in two seconds is lost; by default it takes fifteen.
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
    "health_check_timeout_ms": 2000,
}


def start(**options: Any) -> None:
    """Ray on this machine alone, with two CPUs; its workers see the modules of the tests."""
    ray.init(
        "local",
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * MB,
        _node_ip_address="127.0.0.2",
        **{"num_cpus": 2, **options},
    )


class Machines:
    """A cluster whose head runs no trials, and machines that come and go."""

    def __init__(self, third: int) -> None:
        self.third = third
        self.last = 1
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "node_ip_address": f"127.0.{third}.1",
                "include_dashboard": False,
                "object_store_memory": 80 * MB,
                "_system_config": QUICK,
            },
        )
        self.address = self.cluster.address

    def add(self, cpus: float = 1, wait: bool = True, **options: Any) -> Any:
        """Another machine, at an address that no other had; known to the cluster on return."""
        self.last += 1
        return self.cluster.add_node(
            wait=wait,
            num_cpus=cpus,
            node_ip_address=f"127.0.{self.third}.{self.last}",
            object_store_memory=80 * MB,
            **options,
        )

    def lose(self, machine: Any) -> None:
        """Takes a machine away without a word: its processes are killed."""
        self.cluster.remove_node(machine, allow_graceful=False)

    def counted(self, count: int) -> bool:
        """Waits until the cluster knows of so many machines, its head among them."""
        return wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == count, 60)


@contextmanager
def machines(third: int) -> Iterator[Machines]:
    """A cluster on 127.0.``third``.x that this process has not joined."""
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Machines(third)
    try:
        yield made
    finally:
        ray.shutdown()
        made.cluster.shutdown()
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]


class Where(Score):
    """Notes where each trial ran; such as are ``held`` only end when the file ``go`` is there.

    Args:
        folder: where each attempt leaves a file ``<number>-<process>-<machine>``.
        held: the numbers of those trials.
    """

    def __init__(self, folder: str, held: tuple[int, ...] = (), delay_s: float = 0.0) -> None:
        super().__init__(delay_s)
        self.folder = folder
        self.held = held

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        machine = ray.get_runtime_context().get_node_id()
        (Path(self.folder) / f"{proposal.number}-{os.getpid()}-{machine}").touch()
        end = time.monotonic() + 120
        while proposal.number in self.held and not (Path(self.folder) / "go").exists():
            assert time.monotonic() < end, "nobody let it go"
            time.sleep(0.02)
        return super().evaluate(proposal)

    def go(self) -> None:
        (Path(self.folder) / "go").touch()

    def attempts(self, number: int) -> list[tuple[int, str]]:
        """The process and the machine of each attempt at a trial so far."""
        names = [path.name.split("-") for path in Path(self.folder).glob(f"{number}-*")]
        return [(int(process), machine) for _, process, machine in names]

    def machines(self, number: int) -> set[str]:
        """Where it was tried so far."""
        return {machine for _, machine in self.attempts(number)}
