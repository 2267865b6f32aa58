"""Where the channels are after a change of shape, and which of them are told apart by it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nas.morphism.trace import Operation
from nas.supernet.ties.groups import Axis, Dimension
from nas.supernet.ties.walk import ONE, Dimensions, Walk, argument, tensors_of, together, unknown


def reshape(walk: Walk, operation: Operation) -> list[Dimensions]:
    x = tensors_of(operation)[0]
    given, before = walk.of(x), walk.shape(x)
    after = walk.shapes[operation.outputs[0]]
    made: list[Dimension] = [ONE] * len(after)
    for taken, given_out in _factors(before, after):
        if len(taken) == len(given_out) == 1:
            made[given_out[0]] = given[taken[0]]
        elif len(given_out) == 1:  # several in one: channels are its outermost, or in no order
            first, rest = given[taken[0]], taken[1:]
            walk.fix([given[place] for place in rest], "it is flattened behind other dimensions")
            inner = math.prod(before[place] for place in rest)
            if isinstance(first, Axis):
                first = Axis(first.node, first.inner * inner)
            made[given_out[0]] = first
        else:
            sizes = tuple(after[place] for place in given_out)
            inner = math.prod(sizes[1:])
            reason = f"it is reshaped to {sizes}"
            first = given[taken[0]]
            whole = len(taken) == 1 and isinstance(first, Axis) and first.inner % inner == 0
            if whole and isinstance(first, Axis):
                made[given_out[0]] = Axis(first.node, first.inner // inner)
            else:
                walk.fix([given[place] for place in taken], reason)
                made[given_out[0]] = reason
            for place in given_out[1:]:
                made[place] = reason
    return [tuple(made)]


def _factors(
    before: tuple[int, ...], after: tuple[int, ...]
) -> Iterator[tuple[list[int], list[int]]]:
    """Which dimensions of a tensor hold what which do after a change of shape; without ones."""
    left = [place for place, size in enumerate(before) if size != 1]
    right = [place for place, size in enumerate(after) if size != 1]
    while left:
        taken, made = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(before[p] for p in taken)) != (
            b := math.prod(after[p] for p in made)
        ):
            (taken if a < b else made).append((left if a < b else right).pop(0))
        yield taken, made


def permute(walk: Walk, operation: Operation) -> list[Dimensions]:
    (x,) = tensors_of(operation)
    given = walk.of(x)
    order = [value for key, value in operation.arguments.items() if key != "0"]
    order = order[0] if len(order) == 1 and not isinstance(order[0], int) else order
    if sorted(place % len(given) for place in order) != list(range(len(given))):
        return unknown(walk, operation)
    return [tuple(given[place] for place in order)]


def transpose(walk: Walk, operation: Operation) -> list[Dimensions]:
    (x,) = tensors_of(operation)
    made = list(walk.of(x))
    one, other = (value for key, value in operation.arguments.items() if key != "0")
    made[one], made[other] = made[other], made[one]
    return [tuple(made)]


def expand(walk: Walk, operation: Operation) -> list[Dimensions]:
    x = tensors_of(operation)[0]
    given, before = walk.of(x), walk.shape(x)
    after = walk.shapes[operation.outputs[0]]
    # What is repeated is alike at every position.
    made: list[Dimension] = [walk.ties.new() for _ in after]
    for place in range(-len(before), 0):
        if before[place] == after[place]:
            made[place] = given[place]
    return [tuple(made)]


def getitem(walk: Walk, operation: Operation) -> list[Dimensions]:
    (x,) = tensors_of(operation)
    given, shape = walk.of(x), walk.shape(x)
    index = operation.arguments["1"]
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(part is None or type(part) in (int, slice, type(...)) for part in parts):
        return unknown(walk, operation)
    used = sum(part is not None and part is not ... for part in parts)
    if ... not in parts:
        parts.append(...)
    at = parts.index(...)
    parts[at : at + 1] = [slice(None)] * (len(given) - used)
    made: list[Dimension] = []
    place = 0
    for part in parts:
        if part is None:
            made.append(ONE)
            continue
        whole = isinstance(part, slice) and part.indices(shape[place]) == (0, shape[place], 1)
        if not whole:
            walk.ties.fix(given[place], "a part of it is taken by position")
        if isinstance(part, slice):
            made.append(given[place] if whole else "it is a part of another")
        place += 1
    return [tuple(made)]


def by_position(walk: Walk, operation: Operation) -> list[Dimensions]:
    """Parts along one dimension, joined or taken apart."""
    parts = tensors_of(operation)
    place = {"cat": 1, "concat": 1, "unbind": 1}.get(operation.function, 2)
    dim = argument(operation, place, "dim", "axis") or 0
    reason = f"{operation.function} tells its entries by their positions"
    for part in parts:
        walk.ties.fix(walk.of(part)[dim], reason)
    dim %= len(walk.of(parts[0]))
    rest = [walk.of(part)[:dim] + walk.of(part)[dim + 1 :] for part in parts]
    shapes = [walk.shape(part)[:dim] + walk.shape(part)[dim + 1 :] for part in parts]
    kept = together(walk, rest, shapes)
    if operation.function == "unbind":
        return [kept for _ in operation.outputs]
    return [(*kept[:dim], reason, *kept[dim:]) for _ in operation.outputs]
