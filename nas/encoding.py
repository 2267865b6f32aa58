"""Encodings of architectures for the learners: one-hot, ordinal, tokens, adjacency and paths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CellGraph:
    """A cell as a directed acyclic graph with an operation at each vertex.

    Attributes:
        operations: by vertex in topological order; the first is ``"input"``, the last
            ``"output"``.
        links: pairs (from, to) of vertices.
    """

    operations: tuple[str, ...]
    links: frozenset[tuple[int, int]]
