"""What layers with weights tie, and what takes each number or channel by itself."""

from __future__ import annotations

import math

from nas.morphism.trace import Operation
from nas.supernet.ties.groups import POSITIONS, Dimension
from nas.supernet.ties.walk import (
    ONE,
    PLACES,
    Dimensions,
    Walk,
    argument,
    tensors_of,
    together,
    unknown,
)


def convolution(walk: Walk, operation: Operation) -> list[Dimensions]:
    x, weight, bias, groups = (
        operation.arguments[name] for name in ("input", "weight", "bias", "groups")
    )
    given, held = walk.of(x), walk.of(weight)
    shape = walk.shape(weight)
    walk.fix(held[2:], POSITIONS)
    out = held[0]
    if groups == 1:
        walk.reads(given[1], weight, 1)
    elif shape[1] == 1 and groups == shape[0]:
        out = walk.ties.tie(given[1], out)
    else:
        reason = f"a convolution reads it in {groups} groups"
        walk.fix((given[1], *held[:2]), reason)
        out = f"a convolution makes it in {groups} groups"
        walk.ties.fix(held[0], out)
    if bias is not None:
        out = walk.ties.tie(out, walk.of(bias)[0])
    return [(given[0], out, *(PLACES,) * len(shape[2:]))]


def linear(walk: Walk, operation: Operation) -> list[Dimensions]:
    x, weight, bias = (operation.arguments[name] for name in ("input", "weight", "bias"))
    given = walk.of(x)
    walk.reads(given[-1], weight, 1)
    out: Dimension = walk.of(weight)[0]
    if bias is not None:
        out = walk.ties.tie(out, walk.of(bias)[0])
    return [(*given[:-1], out)]


def matmul(walk: Walk, operation: Operation) -> list[Dimensions]:
    one, other = tensors_of(operation)
    if min(len(walk.shape(one)), len(walk.shape(other))) < 2:
        return unknown(walk, operation)
    left, right = walk.of(one), walk.of(other)
    walk.reads(left[-1], other, -2)
    walk.reads(right[-2], one, -1)
    outer = together(
        walk,
        [left[:-2], right[:-2]],
        [walk.shape(one)[:-2], walk.shape(other)[:-2]],
    )
    return [(*outer, left[-2], right[-1])]


def embedding(walk: Walk, operation: Operation) -> list[Dimensions]:
    indices, weight = tensors_of(operation)
    held = walk.of(weight)
    walk.ties.fix(held[0], POSITIONS)
    return [(*walk.of(indices), held[1])]


def attention(walk: Walk, operation: Operation) -> list[Dimensions]:
    query, key, value = tensors_of(operation)  # with a mask it has no rule
    if argument(operation, 7, "enable_gqa"):
        return unknown(walk, operation)
    q, k, v = (walk.of(tensor) for tensor in (query, key, value))
    if argument(operation, 5, "is_causal"):
        walk.fix((q[-2], k[-2], v[-2]), POSITIONS)
    walk.ties.tie(q[-1], k[-1])
    walk.ties.tie(k[-2], v[-2])
    shapes = [walk.shape(tensor)[:-2] for tensor in (query, key, value)]
    return [(*together(walk, [q[:-2], k[:-2], v[:-2]], shapes), q[-2], v[-1])]


# ------------------------------------------------------------------------------------- norms


def channel_norm(walk: Walk, operation: Operation) -> list[Dimensions]:
    """Batch and instance norm, and PReLU: a number a channel."""
    x, *held = tensors_of(operation)
    given = list(walk.of(x))
    for tensor in held:
        if math.prod(walk.shape(tensor)) > 1:
            given[1] = walk.ties.tie(given[1], walk.of(tensor)[0])
    return [tuple(given)]


def layer_norm(walk: Walk, operation: Operation) -> list[Dimensions]:
    x, *held = tensors_of(operation)
    given = list(walk.of(x))
    for tensor in held:
        dimensions = walk.of(tensor)
        for place in range(-len(dimensions), 0):
            given[place] = walk.ties.tie(given[place], dimensions[place])
    return [tuple(given)]


def group_norm(walk: Walk, operation: Operation) -> list[Dimensions]:
    if operation.arguments["1"] == 1:
        return channel_norm(walk, operation)
    return unknown(walk, operation)


# ------------------------------------------------------------------------- number by number


def elementwise(walk: Walk, operation: Operation) -> list[Dimensions]:
    tensors = tensors_of(operation)
    shapes = [walk.shape(tensor) for tensor in tensors]
    made = together(walk, [walk.of(tensor) for tensor in tensors], shapes)
    return [made for _ in operation.outputs]


def each_channel(walk: Walk, operation: Operation) -> list[Dimensions]:
    """Pools and the like: the first two dimensions are kept."""
    (x,) = tensors_of(operation)
    given = walk.of(x)
    if len(given) < 3:
        return unknown(walk, operation)
    walk.fix(given[2:], PLACES)
    return [(*given[:2], *(PLACES,) * (len(given) - 2)) for _ in operation.outputs]


def pad(walk: Walk, operation: Operation) -> list[Dimensions]:
    (x,) = tensors_of(operation)
    given = walk.of(x)
    kept = len(given) - len(argument(operation, 1, "pad")) // 2
    walk.fix(given[kept:], PLACES)
    return [(*given[:kept], *(PLACES,) * (len(given) - kept))]


def reduction(walk: Walk, operation: Operation) -> list[Dimensions]:
    (x,) = tensors_of(operation)
    given = walk.of(x)
    dims = argument(operation, 1, "dim", "axis")
    if isinstance(dims, bool):
        return unknown(walk, operation)
    if dims is None:
        gone = set(range(len(given)))
    else:
        gone = {dim % len(given) for dim in ((dims,) if isinstance(dims, int) else dims)}
    made: list[Dimension] = []
    for place, dimension in enumerate(given):
        if place not in gone:
            made.append(dimension)
        elif len(walk.shapes[operation.outputs[0]]) == len(given):
            made.append(ONE)
    return [tuple(made) for _ in operation.outputs]
