"""Cells as graphs: adjacency matrices, graph tensors and paths.

They need a space whose networks are made of cells (``HasGraphs``). Adjacency matrices and graph
tensors give the graphs back; paths forget how they hang together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.errors import NasError, UnsupportedRequest, nearest
from nas.space import SearchSpace, validate

MOST_PATHS = 1_000_000


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


def graph_of_edges(operations: Mapping[tuple[int, int], str]) -> CellGraph:
    """The graph of a cell that has its operations on edges: each edge becomes a vertex.

    Args:
        operations: by edge (source, target), of a cell whose node 0 is the input and whose last
            node is the output. Vertices are in their order, which must let every edge come
            before those that it leads to; an edge that is not there is ``"none"`` or left out.
    """
    edges = list(operations)
    last = max(target for _, target in edges)
    links = {(0, index) for index, (source, _) in enumerate(edges, start=1) if source == 0}
    for index, (_, target) in enumerate(edges, start=1):
        if target == last:
            links.add((index, len(edges) + 1))
        links |= {
            (index, other) for other, (source, _) in enumerate(edges, start=1) if source == target
        }
    return CellGraph(("input", *operations.values(), "output"), frozenset(links))


@runtime_checkable
class HasGraphs(Protocol):
    """A space whose networks are made of cells.

    Attributes:
        graph_operations: what a vertex between input and output may be, in a fixed order;
            ``"none"`` stands for no connection.
    """

    @property
    def graph_operations(self) -> tuple[str, ...]: ...

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The cells by name: the same names in the same order for every architecture."""


@runtime_checkable
class HasPaths(HasGraphs, Protocol):
    """A space made of cells that knows how long a way through one can be.

    Attributes:
        longest_path: the greatest number of operations on a way from input to output.
    """

    @property
    def longest_path(self) -> int: ...


class Adjacency(NamedTuple):
    """A graph as two arrays.

    Attributes:
        matrix: (vertices, vertices), 1 where a link leads from the row to the column.
        operations: (vertices, 2 + operations), one-hot: input, output, then
            ``graph_operations`` in their order.
    """

    matrix: NDArray[np.float32]
    operations: NDArray[np.float32]


class GraphTensors(NamedTuple):
    """A graph as graph networks take it: ``torch.from_numpy`` makes tensors of both.

    Attributes:
        operations: (vertices, 2 + operations), as in ``Adjacency``: a feature row a vertex.
        edge_index: (2, links), vertices from which and to which a link leads, ascending.
    """

    operations: NDArray[np.float32]
    edge_index: NDArray[np.int64]


def adjacency(space: SearchSpace, arch: Architecture) -> dict[str, Adjacency]:
    """The cells of an architecture as adjacency matrices and operations, by the cell's name.

    Raises:
        UnsupportedRequest: the space is not made of cells.
        InvalidArchitecture: ``arch`` is not one of ``space``.
    """
    encoded: dict[str, Adjacency] = {}
    for name, (operations, edge_index) in graph_tensors(space, arch).items():
        matrix = np.zeros((len(operations), len(operations)), dtype=np.float32)
        matrix[edge_index[0], edge_index[1]] = 1.0
        encoded[name] = Adjacency(matrix, operations)
    return encoded


def graph_tensors(space: SearchSpace, arch: Architecture) -> dict[str, GraphTensors]:
    """The cells of an architecture as vertex features and a list of links, by the cell's name.

    Raises:
        UnsupportedRequest: the space is not made of cells.
        InvalidArchitecture: ``arch`` is not one of ``space``.
    """
    if not isinstance(space, HasGraphs):
        raise _not_made_of_cells(space, "graph encoding")
    validate(space, arch)
    column = {name: i for i, name in enumerate(("input", "output", *space.graph_operations))}
    encoded: dict[str, GraphTensors] = {}
    for name, graph in space.graphs(arch).items():
        operations = np.zeros((len(graph.operations), len(column)), dtype=np.float32)
        for vertex, operation in enumerate(graph.operations):
            if operation not in column:
                raise UnsupportedRequest(
                    f"{space.name!r}: {name!r} has the operation {operation!r}: "
                    f"{nearest(operation, column)}"
                )
            operations[vertex, column[operation]] = 1.0
        links = np.array(sorted(graph.links), dtype=np.int64).reshape(-1, 2)
        encoded[name] = GraphTensors(operations, np.ascontiguousarray(links.T))
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


def path_count(space: HasGraphs, longest: int) -> int:
    """How many sequences of at most so many operations there are: one cell's path features."""
    operations = len(_connecting(space))
    return sum(operations**length for length in range(longest + 1))


def path_encoding(
    space: SearchSpace, arch: Architecture, longest: int | None = None
) -> NDArray[np.float32]:
    """Which paths of operations lead from input to output: 1 where one does, else 0.

    White, Neiswanger & Savani, "BANANAS: Bayesian Optimization with Neural Architectures for
    Neural Architecture Search", AAAI 2021. The features, for each cell in its order: all
    sequences of 0 operations (a direct link), of 1, … up to the longest path, those of one
    length in lexicographic order of ``graph_operations`` without ``"none"``. The length is the
    same for all architectures of a space: 85 for NAS-Bench-201.

    Args:
        longest: of the paths that are shown; longer ones are left out, which is the paper's
            truncation. By default the space's ``longest_path``, and all paths are shown.

    Raises:
        UnsupportedRequest: the space is not made of cells, does not bound its paths while
            ``longest`` is not given, has more features than ``MOST_PATHS``, or one of its paths
            is longer than it says.
        InvalidArchitecture: ``arch`` is not one of ``space``.
    """
    if not isinstance(space, HasGraphs):
        raise _not_made_of_cells(space, "path encoding")
    validate(space, arch)
    if longest is None:
        if not isinstance(space, HasPaths):
            raise UnsupportedRequest(
                f"{space.name!r} does not bound its paths (it has no longest_path): give "
                "path_encoding the longest one to show"
            )
        shown = space.longest_path
    else:
        shown = longest
    if shown < 0:
        raise UnsupportedRequest(f"longest must be at least 0, got {shown}")
    graphs = space.graphs(arch)
    number = path_count(space, shown) * len(graphs)
    if number > MOST_PATHS:
        raise UnsupportedRequest(
            f"{space.name!r} has {number:,} paths of at most {shown} operations, and at most "
            f"{MOST_PATHS:,} are encoded: give path_encoding a smaller longest"
        )
    features: list[float] = []
    for name, graph in graphs.items():
        known = dict.fromkeys(_sequences(space, shown), 0.0)
        for path in paths(graph):
            if longest is not None and len(path) > longest:
                continue
            if path not in known:
                raise UnsupportedRequest(
                    f"{space.name!r}: the path {path} of {name!r} is none of at most "
                    f"{shown} of the operations {space.graph_operations}"
                )
            known[path] = 1.0
        features.extend(known.values())
    return np.array(features, dtype=np.float32)


def _sequences(space: HasGraphs, longest: int) -> Iterator[tuple[str, ...]]:
    for length in range(longest + 1):
        yield from itertools.product(_connecting(space), repeat=length)


def _connecting(space: HasGraphs) -> list[str]:
    return [operation for operation in space.graph_operations if operation != "none"]


def _not_made_of_cells(space: SearchSpace, what: str) -> UnsupportedRequest:
    return UnsupportedRequest(
        f"{space.name!r} is not made of cells (it has no graphs and graph_operations), so it has "
        f"no {what}"
    )
