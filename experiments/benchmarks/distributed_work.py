"""What the trials of ``distributed.py`` do, nothing or sleep; and the searches they are of."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.budget import Cost
from nas.components import create
from nas.objective import Metric, maximize, minimize
from nas.strategy import Strategy
from nas.tables import load
from nas.trial import Fidelity, Measured, Proposal
from search_spaces.darts import Darts

MB = 2**20


def leave_the_scripts_folder() -> None:
    """Of this folder's files one is called as a package is, and a script's folder comes first."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != here]


def send_by_value() -> None:
    """Has Ray's workers get this module's classes whole, because they do not find the module."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Made:
    """A made-up score of the trial's seed; with ``most_s`` above zero it sleeps first.

    The notes say when it began and ended, in seconds of this machine's monotonic clock, which all
    its processes share, and in which process.
    """

    metrics = (Metric("score", "1", "maximize"),)

    def __init__(self, least_s: float = 0.0, most_s: float = 0.0) -> None:
        self.least_s = least_s
        self.most_s = most_s

    def evaluate(self, proposal: Proposal) -> Measured:
        begin = time.monotonic()
        share = proposal.seed % 10_007 / 10_007
        if self.most_s:
            time.sleep(self.least_s + share * (self.most_s - self.least_s))
        notes = {"begin": begin, "end": time.monotonic(), "process": os.getpid()}
        return Measured({"score": share}, Cost(epochs=1.0), notes if self.most_s else {})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 1.0


def random_search(seed: int = 0) -> Strategy:
    """Random search among the 10¹⁸ cells of DARTS, where hardly any is drawn twice."""
    given = {"space": Darts(), "objectives": (maximize("score"),), "seed": seed}
    made: Strategy = create("strategies", "random", "strategy", given)
    return made


def evolution(table: str, dataset: str | None, seed: int = 0) -> tuple[Strategy, Any]:
    """Regularised evolution with its defaults, and the table that it looks cells up in."""
    described = dict(load(table).space) or {"name": "nasbench201"}
    space = create("spaces", described, "space")
    document = {"name": "tabular", "table": table, "dataset": dataset}
    evaluator = create("evaluators", document, "evaluator", {"space": space})
    given = {"space": space, "objectives": (maximize("accuracy"), minimize("macs")), "seed": seed}
    strategy: Strategy = create("strategies", "regularized_evolution", "strategy", given)
    return strategy, evaluator


@contextlib.contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """A Ray of so many (pretended) CPUs on this machine's loopback."""
    import ray

    send_by_value()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        "local",
        num_cpus=cpus,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * MB,
        _node_ip_address="127.0.0.2",
    )
    try:
        yield
    finally:
        ray.shutdown()


def resident_bytes() -> int:
    """What this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
