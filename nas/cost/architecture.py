"""Costs of architectures, from their space's description."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from nas.architecture import Architecture
from nas.cost.breakdown import LayerCost, breakdown
from nas.cost.counting import NetworkCost, count
from nas.cost.reading import read
from nas.cost.table import BatchCosts, SlotTable, trace_table
from nas.errors import UnsupportedRequest
from nas.space import SearchSpace, member, network, sample, validate

_CHECKS = 6

Found = TypeVar("Found")


def architecture_cost(space: SearchSpace, arch: Architecture) -> NetworkCost:
    """The cost of an architecture's stand-alone network, without its weights.

    The same integers as ``count(network(space, arch), space.input)``, without building what was
    met before. What the fast reading cannot follow exactly is built on meta tensors and counted.
    Costs of spaces that are frozen dataclasses are remembered.

    Raises:
        InvalidArchitecture: ``arch`` is not one of ``space``.
        UnsupportedRequest: as ``count``.
    """
    validate(space, arch)
    space = member(space, arch)
    found: NetworkCost = (_remembered if _is_value(space) else _cost)(space, arch)
    return found


def _cost(space: SearchSpace, arch: Architecture) -> NetworkCost:
    try:
        return NetworkCost(*read(space, arch))
    except Exception:
        # Whatever it was: the built network has the last word, and the better message.
        return _of_built(space, arch, count)


_remembered: Any = functools.lru_cache(maxsize=4096)(_cost)


def architecture_breakdown(space: SearchSpace, arch: Architecture) -> list[LayerCost]:
    """``breakdown`` of an architecture's stand-alone network; no weights are made for it."""
    return _of_built(space, arch, breakdown)


def _of_built(
    space: SearchSpace,
    arch: Architecture,
    look: Callable[[torch.nn.Module, tuple[int, ...]], Found],
) -> Found:
    try:
        with torch.device("meta"):
            built = network(space, arch)
        return look(built, space.input)
    except Exception:
        # Its forward may read values, which meta tensors do not have.
        with torch.random.fork_rng(devices=[]):
            return look(network(space, arch), space.input)


def _is_value(space: SearchSpace) -> bool:
    """Whether a space is known by its arguments: equal ones are the same, and stay so."""
    parameters = getattr(type(space), "__dataclass_params__", None)
    if not dataclasses.is_dataclass(space) or not parameters.frozen or not parameters.eq:
        return False
    try:
        hash(space)
    except TypeError:
        return False
    return True


# ---------------------------------------------------------------------------------- tables


def slot_table(space: SearchSpace) -> SlotTable:
    """The exact table of what each option of each slot costs.

    A few random architectures are read as well, and have to equal the table's sum.

    Raises:
        UnsupportedRequest: the costs of the space are no sum over its slots.
    """
    table = _table(space)
    if isinstance(table, str):
        raise UnsupportedRequest(table)
    return table


def _table(space: SearchSpace) -> SlotTable | str:
    found: SlotTable | str = (_remembered_table if _is_value(space) else _checked_table)(space)
    return found


def _checked_table(space: SearchSpace) -> SlotTable | str:
    """The table, or why there is none."""
    try:
        table = trace_table(space)
        rng = np.random.default_rng(0)
        for _ in range(_CHECKS):
            arch = sample(space, rng)
            cost = architecture_cost(space, arch)
            if table.total(space.slots(arch)) != (cost.parameters, cost.macs, cost.weight_bytes):
                return f"{space.name!r} has no table of costs: that of {arch} is no sum over slots"
    except Exception as error:
        return str(error)
    return table


_remembered_table: Any = functools.lru_cache(maxsize=64)(_checked_table)


def parameters_and_macs(space: SearchSpace, arch: Architecture) -> tuple[int, int]:
    """Both alone: from the slot table where the space has one, else from the reading.

    Raises:
        InvalidArchitecture: ``arch`` is not one of ``space``.
    """
    space = member(space, arch)
    table = _table(space) if _is_value(space) else None
    if isinstance(table, SlotTable):
        validate(space, arch)
        terms = table.total(space.slots(arch))
        return terms.parameters, terms.macs
    cost = architecture_cost(space, arch)
    return cost.parameters, cost.macs


def batch_costs(space: SearchSpace, ordinals: ArrayLike) -> BatchCosts:
    """Parameters, multiply-accumulates and weight bytes of many architectures at once.

    Args:
        ordinals: integers (n, choices), a row the ordinal encoding of an architecture
            (``nas.encoding.ordinal``). Positions are checked, legality is not.

    Raises:
        UnsupportedRequest: the costs of the space are no sum over its slots, or its slots are not
            its choices one to one.
        InvalidArchitecture: ordinals of another shape, or out of range.
    """
    table = slot_table(space)
    columns = [(choice.label, [str(o) for o in choice.options]) for choice in space.choices]
    plain = not any(choice.conditions() for choice in space.choices)
    rng = np.random.default_rng(0)
    for arch in [sample(space, rng) for _ in range(_CHECKS)] if plain else []:
        plain = plain and dict(space.slots(arch)) == {k: str(v) for k, v in arch.picks}
    if not plain:
        raise UnsupportedRequest(
            f"{space.name!r}: its slots are not its choices one to one, so its architectures are "
            "not summed in batches; use parameters_and_macs for each"
        )
    return table.batch(columns, ordinals)
