"""What runs in Ray's worker processes: a trial, on an evaluator that is loaded once."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle

from nas.evaluator import Evaluator
from nas.execution.guard import finish, run_trial
from nas.execution.ray_sharing import Packed, packed, unpacked
from nas.trial import Failed

# It has no annotations.
dumps_by_value: Callable[[object], bytes] = cloudpickle.dumps
"""Pickles what lives in a script as well; ``pickle.loads`` reads it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An evaluator on its way to the workers.

    Attributes:
        content: pickled, its shared tensors apart.
        folders: where the driver finds modules; where a worker's machine has such folders (a
            shared disk, the same machine), it finds them there too.
        folder: the driver's working folder; workers work there, if it exists where they are.
    """

    content: Packed
    folders: tuple[str, ...]
    folder: str


def sent(evaluator: object) -> Sent:
    """The evaluator (or other work) as it is now, as bytes; raises whatever its pickling raises."""
    # As bytes, but for what it shares: Ray itself would hand every worker the same read-only
    # arrays, and evaluators that write into theirs work in one process and would not here.
    content = packed(evaluator)
    # Ray tells its workers of the script's folder alone; tests and notebooks have more.
    folders = tuple(os.path.abspath(folder) for folder in sys.path)
    return Sent(content, folders, os.getcwd())


def received(found: Sent) -> Any:
    """What was sent, in a worker that sees the driver's folders where its machine has them."""
    sys.path.extend(folder for folder in found.folders if folder not in sys.path)
    with contextlib.suppress(OSError):
        os.chdir(found.folder)
    return unpacked(found.content)


def run_in_worker(evaluator: list[Any], work: bytes) -> Iterator[str | bytes]:
    """The task: yields the id of its machine as the trial starts, then the trial, pickled.

    Args:
        evaluator: a reference to one that is ``sent``, in a list: Ray replaces bare references
            by what they refer to.
        work: pickled: the proposal, the earlier trial if any, the epochs it is to train, the
            threads it computes with, the bytes it may take.
    """
    proposal, earlier, epochs, threads, memory_bytes = pickle.loads(work)
    # Read when torch is imported: by the evaluator, as it is loaded or later.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "passive"
    machine = ray.get_runtime_context().get_node_id()
    try:
        loaded = _load(evaluator[0])
    except Exception as error:  # anything, such as a module that this machine has not
        message = f"the evaluator cannot be loaded in a worker: {type(error).__name__}: {error}"
        yield machine
        yield pickle.dumps(finish(proposal, Failed("exception", message), 0.0, epochs))
        return
    if "torch" in sys.modules:  # since an earlier trial, which may have had other threads
        sys.modules["torch"].set_num_threads(threads)
    yield machine
    yield pickle.dumps(run_trial(loaded, proposal, earlier, memory_bytes=memory_bytes))


@functools.lru_cache(maxsize=1)
def _load(reference: Any) -> Evaluator:
    """The evaluator behind a reference, unpickled once a worker process."""
    loaded: Evaluator = received(ray.get(reference))
    return loaded
