"""The expected cost of a relaxed architecture, and how it enters a loss.

A cost is a fixed part and a term for the option of each slot: exact counts of the space, or
milliseconds that a user measured. Its expectation under weights over the options is linear in
them, and equals the architecture's own cost where they are one-hot.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas.cost import slot_table
from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.latency.table import FORMAT, load_for
from nas.space import SearchSpace
from nas.supernet import Gates
from strategies.hardware import gate_weights

COUNTED = ("macs", "parameters")
"""What a space itself tells."""

MEASURED = "latency_ms"
"""The metric of a table that a user gives."""

BASE = "base"
"""The entry of such a table for all of the network that is not open."""

Resource = str | Mapping[str, Any]
"""``"macs"``, ``"parameters"``, a table of latencies, or the JSON file that holds one.

A file may be a table that ``nas latency profile`` wrote. Any other, and a table given as a value,
gives milliseconds by slot and option, ``{"stage2/block1/op": {"ir_k3_e3": 0.8}}``, and
those of the rest of the network as ``{"base": 2.5}``, 0 where that is missing.
"""


@dataclass(frozen=True)
class ResourceTable:
    """One cost of a space's networks as a sum over their slots.

    Attributes:
        metric: what is counted, ``macs`` or ``parameters``, or ``latency_ms``.
        base: of what is not open.
        slots: slot label to option to its cost.
    """

    metric: str
    base: float
    slots: Mapping[str, Mapping[str, float]]

    def total(self, options: Mapping[str, str]) -> float:
        """Of a network whose slots hold these options."""
        return self.base + sum(self.slots[label][option] for label, option in options.items())

    def least(self) -> float:
        """Of the cheapest network."""
        return self.base + sum(min(options.values()) for options in self.slots.values())


def resource_table(
    space: SearchSpace, resource: Resource, slots: Mapping[str, Sequence[str]]
) -> ResourceTable:
    """The table that a strategy was asked for.

    Args:
        slots: the options of every slot (``Supernet.slots``), which the table has to cover.

    Raises:
        UnsupportedRequest: the costs of the space are no sum over its slots.
        ConfigError: the file cannot be read, a slot or an option is missing or unknown, or a
            latency is no number of zero or more.
        DataError, UnsupportedRequest: as ``nas.latency.table.load_for``, of such a table.
    """
    if isinstance(resource, str) and resource in COUNTED:
        table = slot_table(space)
        costs = {
            label: {option: getattr(table.slots[label][option], resource) for option in options}
            for label, options in slots.items()
        }
        return ResourceTable(resource, getattr(table.base, resource), costs)
    where = "resource"
    if isinstance(resource, str):
        path, where = resource, f"resource {resource!r}"
        resource = _read(path)
        if resource.get("format") == FORMAT:
            found = load_for(path, space).slots(space)
            return ResourceTable(MEASURED, found.base, _all_of(found.slots, slots, where))
    return _measured(resource, slots, where)


def _read(path: str) -> Mapping[str, Any]:
    try:
        table = json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(
            f"resource is {path!r}: neither one of {COUNTED} nor a table's file "
            f"({error.strerror}): {nearest(path, COUNTED)}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"resource {path!r} is no JSON: {error}") from error
    if not isinstance(table, Mapping):
        raise ConfigError(f"resource {path!r} must map slots to options to milliseconds")
    return table


def _all_of(
    given: Mapping[str, Mapping[str, float]], slots: Mapping[str, Sequence[str]], where: str
) -> dict[str, dict[str, float]]:
    """A table's costs in the order of a strategy's slots; both are read off the same space."""
    if set(given) != set(slots) or any(set(given[label]) != set(slots[label]) for label in slots):
        raise UnsupportedRequest(f"{where}: the space's slots are not its choices")
    return {label: {o: given[label][o] for o in options} for label, options in slots.items()}


def _measured(
    given: Mapping[str, Any], slots: Mapping[str, Sequence[str]], where: str
) -> ResourceTable:
    for label in given:
        if label not in slots and label != BASE:
            raise ConfigError(f"{where}: the space has no slot {label!r}: {nearest(label, slots)}")
    costs: dict[str, dict[str, float]] = {}
    for label, options in slots.items():
        found = given.get(label)
        if not isinstance(found, Mapping):
            raise ConfigError(f"{where}: slot {label!r} is missing; its options are {options}")
        for option in found:
            if option not in options:
                raise ConfigError(
                    f"{where}: slot {label!r} has no option {option!r}: {nearest(option, options)}"
                )
        for option in options:
            if option not in found:
                raise ConfigError(f"{where}: slot {label!r} lacks the option {option!r}")
        costs[label] = {o: _milliseconds(found[o], f"{where}: {label}/{o}") for o in options}
    return ResourceTable(MEASURED, _milliseconds(given.get(BASE, 0.0), f"{where}: {BASE}"), costs)


def _milliseconds(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where} must be a number of milliseconds, got {value!r}")
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{where} must be zero or more milliseconds, got {value!r}")
    return float(value)


class ExpectedResource:
    """The expected cost of gates, with gradients to all of their weights.

    Counts of a large network do not fit single precision, so the sum is in double.

    Args:
        slots: the options of every slot, in the order of the gates' weights.
    """

    def __init__(self, table: ResourceTable, slots: Mapping[str, Sequence[str]]) -> None:
        self.table = table
        self._terms = {
            label: torch.tensor(
                [float(table.slots[label][option]) for option in options], dtype=torch.float64
            )
            for label, options in slots.items()
        }

    def __call__(self, gates: Gates) -> torch.Tensor:
        """The expectation under the weights of these gates, in the table's unit; ()."""
        total = torch.tensor(float(self.table.base), dtype=torch.float64)
        for label, terms in self._terms.items():
            if label not in gates:
                raise UnsupportedRequest(f"no gate for {label!r}: {nearest(label, gates)}")
            weights = gate_weights(label, gates[label]).double()
            total = total.to(weights.device) + weights @ terms.to(weights.device)
        return total

    def even(self) -> float:
        """Where all options of a slot weigh the same."""
        return float(self.table.base) + float(sum(terms.mean() for terms in self._terms.values()))


def check_logarithm(table: ResourceTable, unit: float) -> None:
    """Refuses a unit in which the logarithm of a network's cost would not be positive.

    Raises:
        ConfigError: the cheapest network costs no more than one unit.
    """
    if not (math.isfinite(unit) and unit > 0):
        raise ConfigError(f"unit must be above 0, got {unit!r}")
    if table.least() <= unit:
        raise ConfigError(
            f"unit is {unit:g}, but the cheapest network costs {table.least():g} {table.metric}: "
            "the logarithm of a cost must be positive, so give a smaller unit"
        )
