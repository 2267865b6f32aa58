"""The process that measures: started fresh by ``nas.latency.fresh``, it reads what to do from its
standard input and writes one line of JSON for each group that it has measured.
"""

from __future__ import annotations

import dataclasses
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
    ``{"arch": …}`` for a network, with ``"space"`` for one of another space, with ``"key"`` for
    one of its operations.
    """
    import torch

    from nas.components import create
    from nas.latency import backends
    from nas.latency.measure import Protocol, measure
    from nas.plain import plainest

    protocol = Protocol(**request["protocol"])
    torch.set_num_threads(protocol.threads)
    space = create("spaces", request["space"], "space")
    backend = request["backend"]
    yield {"machine": backends.machine(backend)}
    empty, number = backends.nothing(backend)
    always = [{"name": REFERENCE, "arch": plainest(space).to_json()}]
    for group in request["groups"]:
        calls = {NOTHING: backends.runner(backend, empty, number, protocol)}
        calls |= _calls(space, backend, protocol, [*always, *group])
        found = measure(calls, protocol)
        yield {"timings": {name: dataclasses.asdict(timing) for name, timing in found.items()}}


def _calls(
    space: Any, backend: str, protocol: Any, group: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    import torch

    from nas.architecture import Architecture
    from nas.components import create
    from nas.latency import backends
    from nas.latency.units import units
    from nas.space import network

    calls = {}
    found: dict[str, Any] = {}  # operations by their keys; an architecture that has one has many
    for target in group:
        arch = Architecture.from_json(target["arch"])
        if "key" in target:
            if target["key"] not in found:
                found |= {one.key: one for one in units(space, arch, protocol.batch)}
            operation = found[target["key"]]
            module, inputs = operation.module(space), operation.example()
        else:
            own = create("spaces", target["space"], "space") if "space" in target else space
            torch.manual_seed(0)
            module = network(own, arch)
            generator = torch.Generator().manual_seed(0)
            inputs = (torch.randn(protocol.batch, *own.input, generator=generator),)
        calls[target["name"]] = backends.runner(backend, module, inputs, protocol)
    return calls


if __name__ == "__main__":
    main()
