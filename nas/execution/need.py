"""What a trial needs of a machine, and how many such trials machines hold."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nas.errors import ConfigError

_OWN = {"CPU": "cpus", "GPU": "gpus", "memory": "memory_bytes"}


def checked_need(
    cpus: float, gpus: float, memory_bytes: int | None, resources: Mapping[str, float] | None
) -> dict[str, float]:
    """The need by Ray's names of resources.

    Raises:
        ConfigError: an amount is out of range, a resource has an argument of its own, or nothing
            is needed at all.
    """
    resources = resources or {}
    for name in resources:
        if name in _OWN:
            raise ConfigError(f"resources: {name} of a trial is given as {_OWN[name]}")
    named = {f"resources.{name}": amount for name, amount in resources.items()}
    for name, amount in {"cpus": cpus, "gpus": gpus, **named}.items():
        if not (math.isfinite(amount) and amount >= 0):
            raise ConfigError(f"{name} must be zero or more, got {amount}")
        if name != "cpus" and amount > 1 and amount != int(amount):
            raise ConfigError(f"{name} must be a whole number where it is above 1, got {amount}")
    if not any([cpus, gpus, *resources.values()]):
        raise ConfigError("a trial needs cpus or gpus above zero, or other resources; got none")
    return {"CPU": cpus, "GPU": gpus, "memory": float(memory_bytes or 0), **resources}


def places(machine: Mapping[str, float], need: Mapping[str, float]) -> int:
    """How many trials of that need one machine holds."""
    # With Ray's own precision, so that ten trials of 0.1 fit one CPU.
    return min(
        int(round(machine.get(name, 0.0) * 1e4) // round(amount * 1e4))
        for name, amount in need.items()
        if amount > 0
    )


def amounts(resources: Mapping[str, float], named: Mapping[str, float] | None = None) -> str:
    """Resources as words: always the CPUs, GPUs and memory, and of the others those ``named``."""
    words = [f"{resources.get('CPU', 0):g} CPUs", f"{resources.get('GPU', 0):g} GPUs"]
    own = [name for name in named or () if name not in _OWN]
    words += [f"{resources.get(name, 0):g} of {name!r}" for name in own]
    return f"{', '.join(words)} and {resources.get('memory', 0.0):.0f} bytes of memory"
