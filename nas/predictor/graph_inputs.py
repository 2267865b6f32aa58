"""Rows of numbers that hold whole graphs: what a graph network reads.

A row is, for each cell, the matrix of links (vertices × vertices, from the row to the column) and
the operations (vertices × operations, one-hot). Cells of fewer vertices than the largest of a
batch are padded with vertices that have neither operation nor link; ``unpacked`` finds out from
the length of a row how many vertices there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.encoding import HasGraphs
from nas.errors import ConfigError, UnsupportedRequest
from nas.predictor.inputs import Rows
from nas.space import SearchSpace, sample


class Graphs(NamedTuple):
    """A batch of graphs.

    Attributes:
        links: (batch, cells, vertices, vertices).
        operations: (batch, cells, vertices, operations).
    """

    links: Rows
    operations: Rows


class GraphInputs:
    """Makes such rows for the architectures of a space that is made of cells.

    Attributes:
        cells: how many graphs an architecture has.
        operations: how many kinds of vertex there are, input and output included.

    Raises:
        UnsupportedRequest: the space is not made of cells.
    """

    def __init__(self, space: SearchSpace) -> None:
        if not isinstance(space, HasGraphs):
            raise UnsupportedRequest(
                f"{space.name!r} is not made of cells (it has no graphs and graph_operations), so "
                "a graph network has nothing to read"
            )
        self.space = space
        kinds = ("input", "output", *space.graph_operations)
        self._column = {name: column for column, name in enumerate(kinds)}
        self._graphs = space.graphs
        self.cells = len(space.graphs(sample(space, np.random.default_rng(0))))
        self.operations = len(kinds)

    def __call__(self, archs: Sequence[Architecture]) -> Rows:
        """One row an architecture, as long as the largest graph among them asks for."""
        graphs = [list(self._graphs(arch).values()) for arch in archs]
        most = max((len(graph.operations) for cells in graphs for graph in cells), default=2)
        links = np.zeros((len(archs), self.cells, most, most), dtype=np.float32)
        shown = np.zeros((len(archs), self.cells, most, self.operations), dtype=np.float32)
        for row, cells in enumerate(graphs):
            for cell, graph in enumerate(cells):
                for source, target in graph.links:
                    links[row, cell, source, target] = 1.0
                for vertex, operation in enumerate(graph.operations):
                    shown[row, cell, vertex, self._column[operation]] = 1.0
        parts = [
            part.reshape(len(archs), self.cells, math.prod(part.shape[2:]))
            for part in (links, shown)
        ]
        return np.concatenate(parts, axis=2).reshape(len(archs), -1)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Nothing: rows follow from the space alone."""
        return {}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes nothing up."""


def unpacked(rows: NDArray[Any], cells: int, operations: int) -> Graphs:
    """The graphs in such rows; raises ``ConfigError`` where a row's length fits no graph."""
    per_cell = rows.shape[1] / cells if rows.ndim == 2 else 0.5
    vertices = round((math.sqrt(operations**2 + 4 * per_cell) - operations) / 2)
    if vertices < 2 or vertices * (vertices + operations) != per_cell:
        raise ConfigError(
            f"graph ensemble: rows hold {cells} graphs of {operations} operations, got shape "
            f"{rows.shape}"
        )
    each = rows.astype(np.float32).reshape(len(rows), cells, -1)
    links, shown = each[..., : vertices**2], each[..., vertices**2 :]
    return Graphs(
        links.reshape(len(rows), cells, vertices, vertices),
        shown.reshape(len(rows), cells, vertices, operations),
    )
