"""One network's values as its operations are followed, and what the rules have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nas.morphism.trace import Graph, Operation, Value, Weight
from nas.supernet.ties.groups import Dimension, Ties

Dimensions = tuple[Dimension, ...]


class Walk:
    """One network's values, as far as they are known."""

    def __init__(self, ties: Ties, graph: Graph, names: Mapping[str, str]) -> None:
        self.ties = ties
        self.shapes = graph.shapes
        self._names = names
        self.values: dict[int, Dimensions] = {
            0: ("the network is given it",) * len(graph.shapes[0])
        }

    def of(self, argument: Value | Weight) -> Dimensions:
        if isinstance(argument, Value):
            made = ("it is computed with a constant",) * len(self.shapes[argument.number])
            return self.values.get(argument.number, made)
        shared = self._names.get(argument.name)
        if shared is None:  # scale and shift of a norm that has none here are all alike
            return tuple(self.ties.new() for _ in argument.shape)
        return tuple(self.ties.at((shared, place)) for place in range(len(argument.shape)))

    def shape(self, argument: Value | Weight) -> tuple[int, ...]:
        return self.shapes[argument.number] if isinstance(argument, Value) else argument.shape

    def reads(self, dimension: Dimension, weight: Value | Weight, place: int) -> None:
        """Ties what a sum goes over, of the input and of the weights."""
        self.ties.tie(dimension, self.of(weight)[place])
        if isinstance(weight, Weight) and weight.name in self._names:
            self.ties.readers.add((self._names[weight.name], place % len(weight.shape)))

    def fix(self, dimensions: Sequence[Dimension], reason: str) -> None:
        for dimension in dimensions:
            self.ties.fix(dimension, reason)


Rule = Callable[[Walk, Operation], list[Dimensions]]

PLACES = "it is a place of an image"
ONE = "it is one number"


def tensors_of(operation: Operation) -> list[Value | Weight]:
    found: list[Value | Weight] = []
    for argument in operation.arguments.values():
        parts = argument if isinstance(argument, tuple) else (argument,)
        found += [part for part in parts if isinstance(part, Value | Weight)]
    return found


def argument(operation: Operation, position: int, *names: str) -> Any:
    """An argument by its place or by one of its names; ``None`` where it is not given."""
    for key in (str(position), *names):
        if key in operation.arguments:
            return operation.arguments[key]
    return None


def unknown(walk: Walk, operation: Operation) -> list[Dimensions]:
    reason = f"{operation.function} may tell its entries by their positions"
    for tensor in tensors_of(operation):
        walk.fix(walk.of(tensor), reason)
    return [(reason,) * len(walk.shapes[number]) for number in operation.outputs]


def together(
    walk: Walk, dimensions: Sequence[Dimensions], shapes: Sequence[tuple[int, ...]]
) -> Dimensions:
    """The dimensions of tensors that are broadcast to each other."""
    made: list[Dimension] = []
    for place in range(-max(map(len, shapes), default=0), 0):
        meeting: Dimension | None = None
        largest = max(shape[place] for shape in shapes if -place <= len(shape))
        for found, shape in zip(dimensions, shapes, strict=True):
            if -place <= len(shape) and shape[place] == largest:
                here = found[place]
                meeting = here if meeting is None else walk.ties.tie(meeting, here)
        assert meeting is not None
        made.append(meeting)
    return tuple(made)
