"""Measuring in a process of its own, whose threads are settled before anything is imported."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nas import errors
from nas.architecture import Architecture
from nas.components import OPAQUE, describe
from nas.errors import NasError, UnsupportedRequest
from nas.latency.measure import Protocol, Timing
from nas.latency.units import Operation
from nas.latency.worker import NOTHING, REFERENCE
from nas.space import SearchSpace

GROUP = 32
"""So many are measured beside one another."""


@dataclass(frozen=True)
class Group:
    """What was measured beside one another.

    Attributes:
        timings: by the operations' keys, the architectures' digests, or the names given.
        overhead: of a call that does next to nothing.
        reference: of the network that has the first option everywhere: the machine's speed.
        machine: as ``nas.latency.backends.machine`` describes it.
    """

    timings: dict[str, Timing]
    overhead: Timing
    reference: Timing
    machine: dict[str, Any]


@dataclass(frozen=True)
class Whole:
    """A network that is measured end to end, of whatever space, under a name of its own."""

    name: str
    space: SearchSpace
    arch: Architecture


Target = Operation | Architecture | Whole
"""What can be measured; an architecture is the network of it that the space in question has."""


def measured(
    space: SearchSpace,
    targets: Sequence[Target],
    backend: str,
    protocol: Protocol,
    group: int = GROUP,
) -> Iterator[Group]:
    """Measures operations, or whole networks, in a fresh process; yields group after group.

    Args:
        space: whose operations and networks they are, and whose reference network is timed with
            every group.
        group: how many are measured beside one another.

    Raises:
        UnsupportedRequest: the space cannot be made again in another process, or the process died.
        NasError: as ``nas.latency.backends.runner``.
    """
    if not targets:
        return
    description = _description(space)
    groups = [targets[start : start + group] for start in range(0, len(targets), group)]
    request = {
        "space": description,
        "backend": backend,
        "protocol": dataclasses.asdict(protocol),
        "groups": [[_target(one) for one in several] for several in groups],
    }
    threads = str(protocol.threads)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",
        # A space may be a module beside a script.
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
    }
    command = [sys.executable, "-m", "nas.latency.worker"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin as asks:
                asks.write(json.dumps(request) + "\n")
            machine: dict[str, Any] = {}
            for line in process.stdout:
                answer = json.loads(line)
                if "error" in answer:
                    raise _again(answer)
                if "machine" in answer:
                    machine = answer["machine"]
                    continue
                timings = {name: Timing(**found) for name, found in answer["timings"].items()}
                overhead = timings.pop(NOTHING)
                yield Group(timings, overhead, timings.pop(REFERENCE), machine)
        except BrokenPipeError:
            pass  # it died before it read: see below
        except BaseException:  # GeneratorExit too: whoever asked wants no more
            process.kill()
            raise
    if process.returncode:
        raise UnsupportedRequest(
            f"the process that measures {space.name!r} with {backend!r} ended with code "
            f"{process.returncode}; what it said is above"
        )


def _description(space: SearchSpace) -> dict[str, Any]:
    found = describe(space)
    if OPAQUE in found:
        raise UnsupportedRequest(
            f"{space.name!r} is measured in a fresh process, which cannot make it again: it is a "
            f"{found[OPAQUE]} that lives in a script; put it in a module of its own"
        )
    return dict(found)


def _target(one: Target) -> dict[str, Any]:
    if isinstance(one, Operation):
        return {"name": one.key, "arch": one.arch.to_json(), "key": one.key}
    if isinstance(one, Whole):
        return {"name": one.name, "arch": one.arch.to_json(), "space": _description(one.space)}
    return {"name": one.digest(), "arch": one.to_json()}


def _again(answer: dict[str, str]) -> NasError:
    """The error that the other process met."""
    kind = getattr(errors, answer["error"], NasError)
    found: NasError = kind(answer["message"])
    return found
