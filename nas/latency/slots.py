"""A table of latencies as a sum over the slots of a space, and its expectation under gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.architecture import Architecture, Scalar
from nas.errors import UnsupportedRequest, nearest
from nas.space import SearchSpace, sample

if TYPE_CHECKING:
    import torch

    from nas.latency.table import LatencyTable
    from nas.supernet import Gates

_CHECKS = 12
_CLOSE = 1e-6


@dataclass(frozen=True)
class SlotLatencies:
    """Latencies as a sum over slots.

    Attributes:
        base: milliseconds of a network whose slots all hold their cheapest option.
        slots: slot label to option to the milliseconds that it adds.
    """

    base: float
    slots: Mapping[str, Mapping[str, float]]

    def total(self, options: Mapping[str, str]) -> float:
        """Milliseconds of a network whose slots hold these options."""
        return self.base + sum(self.slots[label][option] for label, option in options.items())

    def expected(self, gates: Gates) -> torch.Tensor:
        """The expected milliseconds under weights over the options, in double precision; ().

        Args:
            gates: a tensor of weights (or a gate that has one) for each slot, in the order of the
                slot's options; an option's name is that option alone.
        """
        import torch

        total = torch.tensor(self.base, dtype=torch.float64)
        for label, options in self.slots.items():
            if label not in gates:
                raise UnsupportedRequest(f"no gate for {label!r}: {nearest(label, gates)}")
            gate = gates[label]
            gate = getattr(gate, "gate", gate)  # of an edge
            if isinstance(gate, str):
                total = total + options[gate]
                continue
            weights = getattr(gate, "weights", gate)
            if not isinstance(weights, torch.Tensor) or weights.shape != (len(options),):
                raise UnsupportedRequest(
                    f"the gate of {label!r} must be {len(options)} weights, one for each of "
                    f"{', '.join(options)}; got {gate!r:.120}"
                )
            costs = torch.tensor(list(options.values()), dtype=torch.float64)
            total = total.to(weights.device) + weights.double() @ costs.to(weights.device)
        return total


def slot_latencies(table: LatencyTable, space: SearchSpace) -> SlotLatencies:
    """What each option of each slot adds, by the table.

    A few random architectures are predicted as well, and have to equal the sum.

    Raises:
        UnsupportedRequest: the space has choices that are no slots, the latencies are no sum over
            them, or the table lacks operations.
    """
    options = _options(space)
    first = {label: names[0] for label, names in options.items()}
    least = table.predict(space, _of(space, first))
    added: dict[str, dict[str, float]] = {}
    for label, names in options.items():
        added[label] = {
            name: table.predict(space, _of(space, {**first, label: name})) - least for name in names
        }
    base = least + sum(min(costs.values()) for costs in added.values())
    found = SlotLatencies(
        base,
        {
            label: {name: cost - min(costs.values()) for name, cost in costs.items()}
            for label, costs in added.items()
        },
    )
    rng = np.random.default_rng(0)
    for _ in range(_CHECKS):
        arch = sample(space, rng)
        whole, total = table.predict(space, arch), found.total(space.slots(arch))
        if abs(whole - total) > _CLOSE * whole:
            raise UnsupportedRequest(
                f"the latencies of {space.name!r} are no sum over its slots: {arch} takes "
                f"{whole:.6g} ms, its slots add up to {total:.6g} ms"
            )
    return found


def _options(space: SearchSpace) -> dict[str, tuple[str, ...]]:
    """The slots of a space that has no other choices, with their options."""
    labels = set(space.slots(sample(space, np.random.default_rng(0))))
    for choice in space.choices:
        if choice.label not in labels or choice.conditions():
            raise UnsupportedRequest(
                f"the latencies of {space.name!r} are no sum over its slots: the choice "
                f"{choice.label!r} is none, or is not always open"
            )
    return {choice.label: tuple(map(str, choice.options)) for choice in space.choices}


def _of(space: SearchSpace, held: Mapping[str, str]) -> Architecture:
    picks: list[tuple[str, Scalar]] = [
        (choice.label, held[choice.label]) for choice in space.choices
    ]
    return Architecture(space.name, tuple(picks))
