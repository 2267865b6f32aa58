"""What is known of a parent's values without computing them: between which numbers they lie."""

from __future__ import annotations

import math

from nas.morphism.trace import Graph, Operation, Value

Range = tuple[float, float]

_ANY: Range = (-math.inf, math.inf)
_SAME_RANGE = {
    *("max_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean"),
    *("flatten", "reshape", "view", "getitem", "transpose", "permute"),
}
_GATES = ("sigmoid", "hardsigmoid")


def clamp_of(operation: Operation) -> Range | None:
    """Between which numbers an operation cuts what it is given, if that is what it does."""
    if operation.function == "relu":
        return (0.0, math.inf)
    if operation.function == "relu6":
        return (0.0, 6.0)
    if operation.function == "hardtanh":
        given = operation.arguments
        least, most = (given.get(name, given.get(place)) for name, place in _HARDTANH)
        return (float(-1 if least is None else least), float(1 if most is None else most))
    return None


_HARDTANH = (("min_val", "1"), ("max_val", "2"))


def ranges(graph: Graph) -> list[Range]:
    """Between which numbers every value of a network lies, as far as that is clear."""
    found = [_ANY] * len(graph.shapes)
    for operation in graph.operations:
        given = [found[number] for number in operation.inputs]
        for number in operation.outputs:
            found[number] = _range(operation, given)
    return found


def _range(operation: Operation, given: list[Range]) -> Range:
    clamp = clamp_of(operation)
    if clamp is not None:
        least, most = clamp
        return tuple(min(max(end, least), most) for end in given[0])  # type: ignore[return-value]  # two
    if operation.function in _GATES:
        return (0.0, 1.0)
    if operation.function in _SAME_RANGE and len(given) == 1:
        return given[0]
    if operation.function == "avg_pool2d" and given:
        return (min(given[0][0], 0.0), max(given[0][1], 0.0))  # zeros at the borders
    if operation.function == "cat" and given:
        return (min(least for least, _ in given), max(most for _, most in given))
    two = len(given) == 2 and all(isinstance(v, Value) for v in operation.arguments.values())
    if operation.function == "add" and two:
        return (given[0][0] + given[1][0], given[0][1] + given[1][1])
    if operation.function == "mul" and two and min(given[0][0], given[1][0]) >= 0:
        return (0.0, math.inf)
    return _ANY
