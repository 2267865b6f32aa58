"""Encodings of architectures for the learners: one-hot, ordinal, tokens, adjacency and paths.

The first three work on any space and have inverses. The last two need a space whose networks
are made of cells (``HasGraphs``); they forget what they do not show, so they have none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.architecture import Architecture, Scalar
from nas.errors import InvalidArchitecture, NasError, UnsupportedRequest, nearest
from nas.space import SearchSpace, from_picks, validate

# ------------------------------------------------------------------------ of any space


def vocabulary_size(space: SearchSpace) -> int:
    """How many pairs of a choice and one of its options there are.

    It is the length of ``one_hot`` and the number of different ``tokens``.
    """
    return sum(len(choice.options) for choice in space.choices)


def one_hot(space: SearchSpace, arch: Architecture) -> NDArray[np.float32]:
    """One number for every option of every choice, in order: 1 where it is picked, else 0.

    An inactive choice is all zeros. Raises ``InvalidArchitecture`` unless ``arch`` is one of
    ``space``.
    """
    vector = np.zeros(vocabulary_size(space), dtype=np.float32)
    vector[tokens(space, arch)] = 1.0
    return vector


def from_one_hot(space: SearchSpace, vector: ArrayLike) -> Architecture:
    """The inverse of ``one_hot``.

    Raises:
        InvalidArchitecture: wrong length, a value that is neither 0 nor 1, two options of one
            choice, or picks that are not an architecture of the space.
    """
    values = _vector(vector, vocabulary_size(space), f"a one-hot encoding of {space.name!r}")
    picks: dict[str, Scalar] = {}
    start = 0
    for choice in space.choices:
        block = values[start : start + len(choice.options)]
        start += len(choice.options)
        wrong = block[(block != 0) & (block != 1)]
        if len(wrong):
            raise InvalidArchitecture(
                f"one-hot encoding of {space.name!r}: {wrong[0]} at {choice.label!r}, "
                "expected 0 or 1"
            )
        picked = np.flatnonzero(block)
        if len(picked) > 1:
            both = ", ".join(repr(choice.options[i]) for i in picked)
            raise InvalidArchitecture(
                f"one-hot encoding of {space.name!r}: {choice.label!r} has {len(picked)} options "
                f"at once: {both}"
            )
        if len(picked):
            picks[choice.label] = choice.options[picked[0]]
    return from_picks(space, picks)


def ordinal(space: SearchSpace, arch: Architecture) -> NDArray[np.int64]:
    """The position of the picked option for every choice, in order; −1 where it is inactive.

    Raises ``InvalidArchitecture`` unless ``arch`` is one of ``space``.
    """
    validate(space, arch)
    picks = arch.as_dict()
    return np.array(
        [
            choice.index(picks[choice.label]) if choice.label in picks else -1
            for choice in space.choices
        ],
        dtype=np.int64,
    )


def from_ordinal(space: SearchSpace, vector: ArrayLike) -> Architecture:
    """The inverse of ``ordinal``.

    Raises:
        InvalidArchitecture: wrong length, a value that is not an option's position or −1, or
            picks that are not an architecture of the space.
    """
    values = _vector(vector, len(space.choices), f"an ordinal encoding of {space.name!r}")
    picks: dict[str, Scalar] = {}
    for choice, value in zip(space.choices, values.tolist(), strict=True):
        if value == -1:
            continue
        if value != int(value) or not 0 <= value < len(choice.options):
            raise InvalidArchitecture(
                f"ordinal encoding of {space.name!r}: {value} at {choice.label!r}, expected a "
                f"whole number from 0 to {len(choice.options) - 1}, or -1 where it is inactive"
            )
        picks[choice.label] = choice.options[int(value)]
    return from_picks(space, picks)


def tokens(space: SearchSpace, arch: Architecture) -> list[int]:
    """The picks as integers below ``vocabulary_size``, in the order in which they are made.

    Only active choices appear. All choices share one vocabulary: a token is the position of its
    option in ``one_hot``. Raises ``InvalidArchitecture`` unless ``arch`` is one of ``space``.
    """
    validate(space, arch)
    first = _first_tokens(space)
    by_label = {choice.label: choice for choice in space.choices}
    return [first[label] + by_label[label].index(option) for label, option in arch.picks]


def from_tokens(space: SearchSpace, sequence: Sequence[int]) -> Architecture:
    """The inverse of ``tokens``.

    Raises:
        InvalidArchitecture: a token that is not a legal option of the choice whose turn it is,
            or too few or too many of them.
    """
    first = _first_tokens(space)
    given = list(sequence)
    made: dict[str, Scalar] = {}
    for position, token in enumerate(given):
        step = space.legal(made)
        if step is None:
            raise InvalidArchitecture(
                f"tokens of {space.name!r}: complete after {position}, but {len(given)} are given"
            )
        choice, options = step
        legal = {first[choice.label] + choice.index(option): option for option in options}
        if not isinstance(token, int | np.integer) or token not in legal:
            raise InvalidArchitecture(
                f"tokens of {space.name!r}: {token!r} at position {position}, expected one of "
                f"{sorted(legal)} for {choice.label!r}"
            )
        made[choice.label] = legal[token]
    step = space.legal(made)
    if step is not None:
        raise InvalidArchitecture(
            f"tokens of {space.name!r}: {len(given)} are too few, {step[0].label!r} is still open"
        )
    return Architecture(space.name, tuple(made.items()))


def _first_tokens(space: SearchSpace) -> dict[str, int]:
    starts = itertools.accumulate((len(choice.options) for choice in space.choices), initial=0)
    return {choice.label: start for choice, start in zip(space.choices, starts, strict=False)}


def _vector(vector: ArrayLike, length: int, what: str) -> NDArray[Any]:
    try:
        values = np.asarray(vector)
    except ValueError as error:
        raise InvalidArchitecture(f"{what} is one vector of {length} numbers: {error}") from error
    if values.shape != (length,) or values.dtype.kind not in "biuf":
        raise InvalidArchitecture(
            f"{what} is one vector of {length} numbers, got shape {values.shape} of {values.dtype}"
        )
    if not np.isfinite(values).all():
        raise InvalidArchitecture(f"{what} must be finite, got {vector!r:.200}")
    return values.astype(np.int64) if values.dtype.kind == "b" else values


# ------------------------------------------------------------------ of spaces made of cells


@dataclass(frozen=True, slots=True)
class CellGraph:
    """A cell as a directed acyclic graph with an operation at each vertex.

    Attributes:
        operations: by vertex in topological order; the first is ``"input"``, the last
            ``"output"``. A cell with a second input shows it as a vertex of its own operation
            behind the first.
        links: pairs (from, to) of vertices.
    """

    operations: tuple[str, ...]
    links: frozenset[tuple[int, int]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", tuple(self.operations))
        object.__setattr__(self, "links", frozenset(self.links))
        if (
            len(self.operations) < 2
            or self.operations[0] != "input"
            or self.operations[-1] != "output"
        ):
            raise NasError(
                "a cell graph's operations begin with 'input' and end with 'output', "
                f"got {self.operations}"
            )
        for link in self.links:
            source, target = link
            if not 0 <= source < target < len(self.operations):
                raise NasError(
                    f"a cell graph's link {link} must lead from a vertex to a later one, below "
                    f"{len(self.operations)}"
                )


@runtime_checkable
class HasGraphs(Protocol):
    """A space whose networks are made of cells.

    Attributes:
        graph_operations: what a vertex between input and output may be, in a fixed order;
            ``"none"`` stands for no connection.
        longest_path: the greatest number of operations on a way from input to output.
    """

    @property
    def graph_operations(self) -> tuple[str, ...]: ...

    @property
    def longest_path(self) -> int: ...

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The cells by name: the same names in the same order for every architecture."""


class Adjacency(NamedTuple):
    """A graph as two arrays.

    Attributes:
        matrix: (vertices, vertices), 1 where a link leads from the row to the column.
        operations: (vertices, 2 + operations), one-hot: input, output, then
            ``graph_operations`` in their order.
    """

    matrix: NDArray[np.float32]
    operations: NDArray[np.float32]


def adjacency(space: SearchSpace, arch: Architecture) -> dict[str, Adjacency]:
    """The cells of an architecture as adjacency matrices and operations, by the cell's name.

    Raises:
        UnsupportedRequest: the space is not made of cells.
        InvalidArchitecture: ``arch`` is not one of ``space``.
    """
    cells = _cells(space, "adjacency encoding")
    validate(space, arch)
    column = {name: i for i, name in enumerate(("input", "output", *cells.graph_operations))}
    encoded: dict[str, Adjacency] = {}
    for name, graph in cells.graphs(arch).items():
        vertices = len(graph.operations)
        matrix = np.zeros((vertices, vertices), dtype=np.float32)
        for source, target in graph.links:
            matrix[source, target] = 1.0
        operations = np.zeros((vertices, len(column)), dtype=np.float32)
        for vertex, operation in enumerate(graph.operations):
            if operation not in column:
                raise UnsupportedRequest(
                    f"{space.name!r}: {name!r} has the operation {operation!r}: "
                    f"{nearest(operation, column)}"
                )
            operations[vertex, column[operation]] = 1.0
        encoded[name] = Adjacency(matrix, operations)
    return encoded


def paths(graph: CellGraph) -> set[tuple[str, ...]]:
    """The operations met on each way from input to output; ``"none"`` interrupts a way."""
    ways: list[set[tuple[str, ...]]] = [set() for _ in graph.operations]
    ways[0].add(())
    last = len(graph.operations) - 1
    for target in range(1, last + 1):
        operation = graph.operations[target]
        if operation == "none":
            continue
        for source in range(target):
            if (source, target) in graph.links:
                own = () if target == last else (operation,)
                ways[target] |= {way + own for way in ways[source]}
    return ways[last]


def path_encoding(space: SearchSpace, arch: Architecture) -> NDArray[np.float32]:
    """Which paths of operations lead from input to output: 1 where one does, else 0.

    White, Neiswanger & Savani, "BANANAS: Bayesian Optimization with Neural Architectures for
    Neural Architecture Search", AAAI 2021. The features, for each cell in its order: all
    sequences of 0 operations (a direct link), of 1, … up to ``longest_path``, those of one
    length in lexicographic order of ``graph_operations`` without ``"none"``. The length is the
    same for all architectures of a space: 85 for NAS-Bench-201.

    Raises:
        UnsupportedRequest: the space is not made of cells, or one of its paths is longer than
            the space says.
        InvalidArchitecture: ``arch`` is not one of ``space``.
    """
    cells = _cells(space, "path encoding")
    validate(space, arch)
    features: list[float] = []
    for name, graph in cells.graphs(arch).items():
        present = paths(graph)
        known = dict.fromkeys(_sequences(cells), 0.0)
        for path in present:
            if path not in known:
                raise UnsupportedRequest(
                    f"{space.name!r}: the path {path} of {name!r} is none of at most "
                    f"{cells.longest_path} of the operations {cells.graph_operations}"
                )
            known[path] = 1.0
        features.extend(known.values())
    return np.array(features, dtype=np.float32)


def _sequences(cells: HasGraphs) -> Iterator[tuple[str, ...]]:
    operations = [operation for operation in cells.graph_operations if operation != "none"]
    for length in range(cells.longest_path + 1):
        yield from itertools.product(operations, repeat=length)


def _cells(space: SearchSpace, what: str) -> HasGraphs:
    if not isinstance(space, HasGraphs):
        raise UnsupportedRequest(
            f"{space.name!r} is not made of cells (it has no graphs, graph_operations and "
            f"longest_path), so it has no {what}"
        )
    return space
