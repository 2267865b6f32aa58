"""A cluster of three machines (raylets of their own on the loopback), one of which is killed."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distributed_work import MB, Made, random_search, send_by_value

from nas.budget import Budget
from nas.history import History
from nas.search import search
from nas.trial import Measured

CPUS = 2


def measure(quick: bool) -> dict[str, Any]:
    """The same search on three machines, undisturbed and with one killed after a third of it.

    What is asked of it: every trial is measured, none is recorded twice, none is missing.
    """
    trials, seconds = (18, 0.2) if quick else (240, 1.0)
    rows = {}
    for name in ("undisturbed", "killed"):
        with _cluster() as nodes, tempfile.TemporaryDirectory() as scratch:
            victim = nodes[-1] if name == "killed" else None
            rows[name] = _run(trials, seconds, victim, Path(scratch) / "run")
    return {
        "nodes": 3,
        "cpus_a_node": CPUS,
        "trials": trials,
        "least_s": seconds / 2,
        "most_s": 1.5 * seconds,
        **rows,
        "slowdown": rows["killed"]["seconds"] / rows["undisturbed"]["seconds"],
    }


@contextlib.contextmanager
def _cluster() -> Iterator[list[Any]]:
    import ray
    from ray.cluster_utils import Cluster

    send_by_value()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_HEALTH_CHECK_PERIOD_MS", "1000")
    cluster = Cluster()
    try:
        nodes = [
            cluster.add_node(
                node_ip_address=f"127.0.0.{2 + number}",
                num_cpus=CPUS,
                object_store_memory=80 * MB,
                include_dashboard=False,
            )
            for number in range(3)
        ]
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


def _run(trials: int, seconds: float, victim: Any, folder: Path) -> dict[str, Any]:
    from nas.execution.ray import RayExecutor

    executor = RayExecutor()
    begun, killed_at = time.perf_counter(), None
    ended: list[float] = []
    for trial in search(
        random_search(),
        Made(seconds / 2, 1.5 * seconds),
        executor,
        Budget(trials=trials),
        History(folder),
    ):
        ended.append(time.perf_counter())
        assert isinstance(trial.outcome, Measured), trial
        if victim is not None and killed_at is None and len(ended) >= trials // 3:
            # The machine's own process, as a loss of power would end it, with no time to say so.
            os.kill(victim.all_processes["raylet"][0].process.pid, signal.SIGKILL)
            killed_at = time.perf_counter()
    read = History(folder)
    numbers = Counter(trial.number for trial in read.trials)
    found = {
        "seconds": ended[-1] - begun,
        "measured": sum(isinstance(trial.outcome, Measured) for trial in read.trials),
        "lost": sum(number not in numbers for number in range(trials)),
        "twice": sum(count - 1 for count in numbers.values()),
        "longest_gap_s": max(b - a for a, b in itertools.pairwise(ended)),
    }
    if killed_at is None:
        return found
    before = [at for at in ended if at <= killed_at]
    after = [at for at in ended if at > killed_at]
    return found | {
        "killed_after": len(before),
        "rate_before": (len(before) - 1) / (before[-1] - before[0]),
        "rate_after": len(after) / (after[-1] - killed_at),
    }
