"""Costs of relaxed architectures: a term in the loss, and a limit on what is proposed.

Both read the exact table of what each option of each slot costs (``nas.cost.slot_table``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Protocol

import torch

from nas.architecture import Architecture
from nas.cost import SlotTable, slot_table
from nas.errors import ConfigError, InfeasibleLimit, UnsupportedRequest
from nas.objective import Objective
from nas.space import SearchSpace
from nas.supernet import EdgeGate, Gate, Gates, HardSample, Sparse

METRICS = ("parameters", "macs", "weight_bytes")
"""What is a sum over slots."""

Derive = Callable[[Mapping[str, Sequence[float]]], Architecture]


@dataclass(frozen=True)
class Penalty:
    """What is added to an architecture step's loss, in nats, for each cost of the gates.

    A cost counts relative to that of equal weights on all options: where the expected cost is
    that, the term is just the number given here. What is not open counts in neither.

    Attributes:
        macs, parameters: the factors; 0 is no term.
    """

    macs: float = 0.0
    parameters: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"penalty: {field.name} must be zero or more, got {value!r}")


class ExpectedCost:
    """A penalty as a function of gates, with gradients to all of their weights.

    Args:
        slots: the options of every slot, in the order of the gates' weights.

    Raises:
        UnsupportedRequest: the costs of the space are no sum over its slots.
    """

    def __init__(
        self, space: SearchSpace, penalty: Penalty, slots: Mapping[str, Sequence[str]]
    ) -> None:
        table = slot_table(space)
        self.terms: dict[str, torch.Tensor] = {
            label: torch.zeros(len(options)) for label, options in slots.items()
        }
        for field in fields(penalty):
            factor = getattr(penalty, field.name)
            costs = {
                label: torch.tensor([float(getattr(table.slots[label][o], field.name)) for o in os])
                for label, os in slots.items()
            }
            equal = float(sum(cost.mean() for cost in costs.values()))
            if factor and equal:
                for label, cost in costs.items():
                    self.terms[label] += factor * cost / equal

    def __call__(self, gates: Gates) -> torch.Tensor:
        parts = []
        for label, terms in self.terms.items():
            weights = gate_weights(label, gates[label])
            parts.append((weights * terms.to(weights)).sum())
        return torch.stack(parts).sum()


def gate_weights(label: str, gate: Gate) -> torch.Tensor:
    """The weights of a gate over all of its options.

    Raises:
        UnsupportedRequest: it is a path, which has none.
    """
    if isinstance(gate, EdgeGate):
        return gate_weights(label, gate.gate)
    if isinstance(gate, HardSample | Sparse):
        return gate.weights
    if isinstance(gate, torch.Tensor):
        return gate
    raise UnsupportedRequest(f"the gate of {label!r} is {gate!r}: a path has no expected cost")


class CostTable(Protocol):
    """One cost as a sum over slots."""

    @property
    def slots(self) -> Mapping[str, Mapping[str, float]]: ...

    def total(self, options: Mapping[str, str]) -> float: ...


class Limits:
    """The hard limits among objectives that are sums over slots, and how they are kept.

    A weight loses λ times its option's cost, with the smallest λ under which what is derived
    keeps every limit (Lagrange; found by bisection). Among architectures that are sums of their
    slots it finds those that no other of the same cost or less outweighs, as far as they lie on
    the convex hull: a limit may be kept with room to spare.

    Args:
        measured: tables of further metrics, by the metric.

    Raises:
        UnsupportedRequest: there are such limits, and the costs of the space are no sum.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        measured: Mapping[str, CostTable] = MappingProxyType({}),
    ) -> None:
        self.space = space
        self.measured = measured
        self.limits = {
            objective.metric: objective.limit
            for objective in objectives
            if (objective.metric in METRICS or objective.metric in measured)
            and objective.direction == "minimize"
            and objective.limit is not None
        }
        self._table: SlotTable | None = None
        if any(metric not in measured for metric in self.limits):
            self._table = slot_table(space)

    def excess(self, arch: Architecture) -> str | None:
        """The first limit an architecture breaks, in words."""
        if not self.limits:
            return None
        held = self.space.slots(arch)
        total: dict[str, float] = {} if self._table is None else self._table.total(held)._asdict()
        for metric, limit in self.limits.items():
            value = self.measured[metric].total(held) if metric in self.measured else total[metric]
            if value > limit:
                return f"{metric} is {value}, must be at most {limit:g}"
        return None

    def derive(
        self,
        derive: Derive,
        weights: Mapping[str, Sequence[float]],
        slots: Mapping[str, Sequence[str]],
    ) -> Architecture:
        """The architecture that ``derive`` makes of weights, moved until it keeps the limits.

        Args:
            slots: the options of every slot, in the order of their weights.

        Raises:
            InfeasibleLimit: even where only cost counts, what is derived breaks a limit.
        """
        arch = derive(weights)
        if self.excess(arch) is None:
            return arch
        costs = {
            label: [self._relative(label, option) for option in options]
            for label, options in slots.items()
        }

        def charged(factor: float) -> Architecture:
            return derive(
                {
                    label: [
                        w - factor * c
                        for w, c in zip(ws, costs.get(label, [0.0] * len(ws)), strict=True)
                    ]
                    for label, ws in weights.items()
                }
            )

        low, high = 0.0, 1e-3
        while (excess := self.excess(charged(high))) is not None:
            low, high = high, 2 * high
            if high > 1e12:
                raise InfeasibleLimit(
                    f"{self.space.name!r}: the cheapest architecture that can be derived breaks a "
                    f"limit: {excess}. Raise the limit, or make the space's networks smaller"
                )
        for _ in range(40):
            middle = (low + high) / 2
            if self.excess(charged(middle)) is None:
                high = middle
            else:
                low = middle
        return charged(high)

    def _relative(self, label: str, option: str) -> float:
        cost = 0.0
        for metric, limit in self.limits.items():
            if metric in self.measured:
                cost += self.measured[metric].slots[label][option] / max(limit, 1e-12)
            elif self._table is not None:
                cost += float(getattr(self._table.slots[label][option], metric)) / max(limit, 1.0)
        return cost
