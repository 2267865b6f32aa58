"""The notations of NAS-Bench-101's cells: the benchmark's matrix, and a compact one."""

from __future__ import annotations

import ast
import re
from typing import Any

from nas.errors import InvalidArchitecture
from search_spaces.nasbench101_cells import OPERATIONS

# How the compact notation writes operations; what takes no part has none.
SHORT = {"3x3": OPERATIONS[0], "1x1": OPERATIONS[1], "pool": OPERATIONS[2]}
ABSENT, OUTPUT = "-", "out"


def read_matrix(text: str) -> tuple[list[list[int]], list[str | None]]:
    """What each vertex takes, and the operations of the inner ones."""
    match = re.fullmatch(
        r"(?:[\w.]+\()?\s*(?:matrix\s*=)?\s*(\[\s*\[.*\]\s*\])\s*,?\s*(?:ops\s*=)?\s*"
        r"(\[[^\[\]]*\])\s*,?\s*\)?",
        text.strip(),
        re.DOTALL,
    )
    try:
        if match is None:
            raise ValueError("not a matrix and a list")
        matrix, operations = (ast.literal_eval(part) for part in match.groups())
    except (ValueError, SyntaxError) as error:
        raise InvalidArchitecture(
            "nasbench101: expected a matrix and operations, as in "
            f"\"[[0, 1], [0, 0]] ['input', 'output']\"; got {text!r:.200}"
        ) from error
    _check_matrix(matrix, operations)
    vertices = range(1, len(matrix))
    return [[u for u in range(v) if matrix[u][v]] for v in vertices], operations[1:-1]


def _check_matrix(matrix: list[Any], operations: list[Any]) -> None:
    n = len(matrix)
    if not all(isinstance(row, list) and len(row) == n for row in matrix):
        raise InvalidArchitecture(f"nasbench101: the matrix must be square, got {matrix!r:.200}")
    for source, row in enumerate(matrix):
        for target, bit in enumerate(row):
            if bit not in (0, 1) or (bit and target <= source):
                raise InvalidArchitecture(
                    f"nasbench101: {bit!r} in row {source}, column {target} of the matrix, "
                    f"expected {'0 or 1' if target > source else '0, as links lead forward'}"
                )
    if len(operations) != n or [*operations[:1], *operations[-1:]] != ["input", "output"]:
        raise InvalidArchitecture(
            f"nasbench101: expected {n} operations from 'input' to 'output', got {operations}"
        )


def read_compact(text: str) -> tuple[list[list[int]], list[str | None]]:
    words = text.split()
    inputs: list[list[int]] = []
    operations: list[str | None] = []
    for vertex, word in enumerate(words, start=1):
        name, _, taken = word.partition("~")
        known = [OUTPUT] if vertex == len(words) else [*SHORT, ABSENT]
        if name not in known:
            raise InvalidArchitecture(
                f"nasbench101: {word!r} is no vertex {vertex} of {text!r:.200}: expected "
                f"'name~input+input' with the name {' or '.join(known)}"
            )
        sources = taken.split("+") if taken else []
        if not all(source.isdecimal() and int(source) < vertex for source in sources):
            raise InvalidArchitecture(
                f"nasbench101: {word!r} takes {taken!r}, expected numbers below {vertex} joined "
                "by '+'"
            )
        inputs.append([int(source) for source in sources])
        operations.append(SHORT.get(name))
    return inputs, operations[:-1]
