"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from evaluators.one_shot import OneShot
    from nas.specialize import Inherited

# Before torch is imported: two threads on a busy machine are far slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Where these are set, pytest diffs what differs in full, which of two long lists takes minutes.
for name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(name, None)

# A suite started in the background ignores Ctrl-C, and so would the processes it interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test takes the power away, and what a killed process has written stays; on a slow disk the
# thousands of searches in here would do little but wait for it.
os.fsync = lambda fd: None

_PLACES = [
    Path(os.environ["NASFORGE_BENCHMARK_DATA"])
    if "NASFORGE_BENCHMARK_DATA" in os.environ
    else Path(__file__).parents[2] / "shared" / "data",
]


def pytest_collection_finish() -> None:
    """What is imported stays: each collection would go through the whole of it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def benchmark_data() -> Callable[[str], Path]:
    """The path of a benchmark table, or a skip that says where it was looked for."""

    def find(name: str) -> Path:
        for place in _PLACES:
            if (place / name).exists():
                return place / name
        pytest.skip(
            f"{name} is not in {_PLACES[0]} (set NASFORGE_BENCHMARK_DATA to the tables' folder)"
        )

    return find


@pytest.fixture(scope="session")
def elastic_evaluator(tmp_path_factory: pytest.TempPathFactory) -> OneShot:
    """One over the small elastic space, its supernet trained and on disk."""
    from elastic import one_shot

    evaluator = one_shot(tmp_path_factory.mktemp("trained") / "supernet.safetensors")
    evaluator.fit()
    return evaluator


@pytest.fixture(scope="session")
def inherited(elastic_evaluator: OneShot) -> Inherited:
    """Networks that take their weights from that supernet."""
    from elastic import DIGITS

    from nas.specialize import Inherited
    from nas.supernet.files import load_supernet

    shared = load_supernet(elastic_evaluator.checkpoint)
    return Inherited(shared, DIGITS(), recalibration_batches=2)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray with two CPUs, which all the tests of a module share: starting it takes seconds."""
    import ray
    from clusters import start

    start()
    yield
    ray.shutdown()
