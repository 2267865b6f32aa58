"""The ``Genotype(…)`` notation that papers on cells write their architectures in.

``Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), …], normal_concat=range(2, 6), …)``:
pairs of an operation and the number of the state it reads, two for each node.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from nas.errors import InvalidArchitecture, nearest

Pair = tuple[str, int]
Field = list[Pair] | list[int]


def read_genotype(
    text: str, cells: Mapping[str, int], operations: Sequence[str]
) -> tuple[dict[str, list[Pair]], dict[str, list[int]]]:
    """The pairs and the concatenated states of each cell; nothing in the text is run.

    Args:
        cells: how many pairs each field of the genotype has, as ``{"normal": 8, "reduce": 8}``.
        operations: the known ones.

    Returns:
        By the fields' names; concatenated states only where they are given.

    Raises:
        InvalidArchitecture: another form, another number of pairs, an unknown operation, or a
            state that is not there yet.
    """
    fields = _fields(text)
    concat_of = {_concat(name): name for name in cells}
    for field in fields:
        if field not in cells and field not in concat_of:
            raise InvalidArchitecture(
                f"a genotype has no field {field!r}: {nearest(field, [*cells, *concat_of])}"
            )
    pairs: dict[str, list[Pair]] = {}
    for name, length in cells.items():
        if name not in fields:
            raise InvalidArchitecture(f"the genotype has no field {name!r}: {text!r:.200}")
        found = fields[name]
        if len(found) != length:
            raise InvalidArchitecture(
                f"{name!r} has {len(found)} pairs, expected {length}: two for each node"
            )
        pairs[name] = []
        for position, pair in enumerate(found):
            last = 1 + position // 2
            if (
                not isinstance(pair, tuple)
                or len(pair) != 2
                or not isinstance(pair[0], str)
                or type(pair[1]) is not int
            ):
                raise InvalidArchitecture(
                    f"{name}[{position}]: expected a pair as ('sep_conv_3x3', 0), got {pair!r}"
                )
            if pair[0] not in operations:
                raise InvalidArchitecture(
                    f"{name}[{position}]: no operation {pair[0]!r}: {nearest(pair[0], operations)}"
                )
            if not 0 <= pair[1] <= last:
                raise InvalidArchitecture(
                    f"{name}[{position}]: node {last + 1} can read the states 0 to {last}, "
                    f"got {pair[1]}"
                )
            pairs[name].append(pair)
    concats = {
        concat_of[field]: [index for index in value if type(index) is int]
        for field, value in fields.items()
        if field in concat_of
    }
    return pairs, concats


def check_concat(name: str, given: Mapping[str, Sequence[int]], expected: Sequence[int]) -> None:
    """Raises ``InvalidArchitecture`` where a cell joins other states than its space does."""
    if name in given and sorted(given[name]) != list(expected):
        raise InvalidArchitecture(
            f"{_concat(name)} is {list(given[name])}, but the space joins {list(expected)}"
        )


def write_genotype(cells: Mapping[str, tuple[Sequence[Pair], Sequence[int]]]) -> str:
    """Pairs and concatenated states of each cell as text."""
    fields = []
    for name, (pairs, concat) in cells.items():
        states = list(concat)
        run = states == list(range(states[0], states[-1] + 1)) and len(states) > 1
        written = f"range({states[0]}, {states[-1] + 1})" if run else str(states)
        fields.append(f"{name}={list(pairs)}, {_concat(name)}={written}")
    return f"Genotype({', '.join(fields)})"


def _concat(name: str) -> str:
    return "concat" if name == "cell" else f"{name}_concat"


def _fields(text: str) -> dict[str, list[object]]:
    expected = f"expected 'Genotype(normal=[…], normal_concat=…, …)', got {text!r:.200}"
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidArchitecture(expected) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise InvalidArchitecture(expected)
    if call.func.id != "Genotype" or call.args:
        raise InvalidArchitecture(expected)
    fields: dict[str, list[object]] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise InvalidArchitecture(expected)
        fields[keyword.arg] = _value(keyword.value, keyword.arg)
    return fields


def _value(node: ast.expr, field: str) -> list[object]:
    """A list, or the numbers of a ``range(…)``."""
    is_range = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    try:
        if is_range and isinstance(node, ast.Call) and ast.unparse(node.func) == "range":
            bounds = [ast.literal_eval(bound) for bound in node.args]
            if any(type(bound) is not int or abs(bound) > 100 for bound in bounds):
                raise ValueError(bounds)
            return list(range(*bounds))
        value = ast.literal_eval(node)
        if not isinstance(value, list | tuple):
            raise TypeError(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArchitecture(
            f"{field!r} must be a list or a range, got {ast.unparse(node)!r:.200}"
        ) from error
    return list(value)
