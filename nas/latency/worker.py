"""The process that measures: started fresh by ``nas.latency.fresh``, it reads what to do from its
standard input and writes one line of JSON for each group that it has measured.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "nothing"
"""The name of the call that does next to nothing, which is measured with every group."""

REFERENCE = "reference"
"""That of one and the same network of the space, which tells how fast the machine is just then."""


def main() -> None:
    # Whatever a runtime prints must not come between the lines.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())

    from nas.errors import NasError

    try:
        for answer in work(request):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    except NasError as error:
        answers.write(json.dumps({"error": type(error).__name__, "message": str(error)}) + "\n")
        answers.flush()
        sys.exit(1)


def work(request: Mapping[str, Any]) -> Any:
    """Measures what a request asks for, group by group.

    A request has the descriptions of a space and a protocol, the backend, and groups of targets:
    ``{"arch": …}`` for a network, with ``"key"`` for one of its operations.
    """
    import torch

    from nas.components import create
    from nas.latency import backends
    from nas.latency.measure import Protocol, measure
    from nas.space import from_picks

    protocol = Protocol(**request["protocol"])
    torch.set_num_threads(protocol.threads)
    space = create("spaces", request["space"], "space")
    backend = request["backend"]
    yield {"machine": backends.machine(backend)}
    empty, number = backends.nothing(backend)
    first = from_picks(space, _first(space)).to_json()
    always = [{"name": REFERENCE, "arch": first}]
    for group in request["groups"]:
        calls = {NOTHING: backends.runner(backend, empty, number, protocol)}
        calls |= _calls(space, backend, protocol, [*always, *group])
        found = measure(calls, protocol)
        yield {"timings": {name: vars_of(timing) for name, timing in found.items()}}


def _first(space: Any) -> dict[str, Any]:
    """The picks of the architecture that has the first option everywhere."""
    made: dict[str, Any] = {}
    while (step := space.legal(made)) is not None:
        made[step[0].label] = step[1][0]
    return made


def vars_of(timing: Any) -> dict[str, Any]:
    """A timing as JSON."""
    import dataclasses

    return dataclasses.asdict(timing)


def _calls(
    space: Any, backend: str, protocol: Any, group: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    import torch

    from nas.architecture import Architecture
    from nas.latency import backends
    from nas.latency.units import units
    from nas.space import network

    calls = {}
    for target in group:
        arch = Architecture.from_json(target["arch"])
        if "key" in target:
            found = {one.key: one for one in units(space, arch, protocol.batch)}
            operation = found[target["key"]]
            module, inputs = operation.module(space), operation.example()
        else:
            torch.manual_seed(0)
            module = network(space, arch)
            generator = torch.Generator().manual_seed(0)
            inputs = (torch.randn(protocol.batch, *space.input, generator=generator),)
        calls[target["name"]] = backends.runner(backend, module, inputs, protocol)
    return calls


if __name__ == "__main__":
    main()
