"""The cells of NAS-Bench-101 as graphs: what takes part, which are equal, how wide they are.

A cell is a set of links (source, target) between vertices 0 (the input) to n − 1 (the output),
each from a vertex to a later one.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from nas.errors import InvalidArchitecture, nearest

Links = frozenset[tuple[int, int]]

# In the order of the benchmark's configuration: the hash labels operations by it.
OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")


@functools.lru_cache(maxsize=65536)
def taking_part(links: Links, vertices: int) -> tuple[int, ...]:
    """The vertices on a way from input to output, both included; empty if there is no way."""
    forward, backward = {0}, {vertices - 1}
    for source, target in sorted(links):
        if source in forward:
            forward.add(target)
    for source, target in sorted(links, reverse=True):
        if target in backward:
            backward.add(source)
    return tuple(sorted(forward & backward)) if vertices - 1 in forward else ()


def pruned(links: Links, vertices: int) -> tuple[Links, tuple[int, ...]]:
    """The links between vertices that take part, renumbered from 0, and those vertices."""
    kept = taking_part(links, vertices)
    number = {vertex: index for index, vertex in enumerate(kept)}
    return frozenset(
        (number[source], number[target])
        for source, target in links
        if source in number and target in number
    ), kept


def smallest_form(
    links: Links, operations: Sequence[int], vertices: int
) -> tuple[Links, tuple[int, ...]]:
    """The one form of all isomorphic cells: the least links, with them the least operations.

    Links are compared as the bits of the matrix's columns, from the second column on.

    Args:
        links: of a pruned cell.
        operations: of the vertices between input and output, as numbers.
        vertices: how many there are.
    """
    least, orders = _least_orders(links, vertices)
    return least, min(tuple(operations[vertex - 1] for vertex in order) for order in orders)


@functools.lru_cache(maxsize=65536)
def _least_orders(links: Links, vertices: int) -> tuple[Links, tuple[tuple[int, ...], ...]]:
    """The least links of all orders of the inner vertices, and all orders that give them."""
    inner = range(1, vertices - 1)
    found: dict[Links, list[tuple[int, ...]]] = {}
    for order in itertools.permutations(inner):
        place = {0: 0, vertices - 1: vertices - 1}
        place |= {vertex: index for index, vertex in enumerate(order, start=1)}
        if all(place[source] < place[target] for source, target in links):
            placed = frozenset((place[source], place[target]) for source, target in links)
            found.setdefault(placed, []).append(order)
    least = min(found, key=lambda placed: [edge in placed for edge in edges(vertices)])
    return least, tuple(found[least])


@functools.cache
def edges(vertices: int) -> tuple[tuple[int, int], ...]:
    """All possible links, column by column of the matrix."""
    return tuple((source, target) for target in range(1, vertices) for source in range(target))


def cell_hash(matrix: Sequence[Sequence[int]], operations: Sequence[str]) -> str:
    """The benchmark's name for a cell: equal for isomorphic ones, hexadecimal MD5.

    Vertices begin as (links out, links in, label), the label being −1 for the input, −2 for the
    output and else the operation's place in ``OPERATIONS``. As often as there are vertices, each
    is hashed with its sorted predecessors and its sorted successors.

    Args:
        matrix: (vertices, vertices), 1 where a link leads from the row to the column; of any
            cell, what takes no part is taken away first.
        operations: of all vertices; the first and the last, input and output, are not looked at.

    Raises:
        InvalidArchitecture: an unknown operation, or no way from input to output.
    """
    vertices = len(matrix)
    all_links = frozenset(
        (source, target) for source, target in edges(vertices) if matrix[source][target]
    )
    links, kept = pruned(all_links, vertices)
    if not kept:
        raise InvalidArchitecture(f"no way leads from input to output: {matrix}")
    labels = [-1, *(operation_number(operations[vertex]) for vertex in kept[1:-1]), -2]
    into = [[s for s, t in links if t == vertex] for vertex in range(len(kept))]
    out_of = [[t for s, t in links if s == vertex] for vertex in range(len(kept))]
    hashes = [
        _md5(str((len(out_of[vertex]), len(into[vertex]), label)))
        for vertex, label in enumerate(labels)
    ]
    for _ in kept:
        before = [
            "".join(sorted(hashes[vertex] for vertex in vertices_before))
            for vertices_before in into
        ]
        after = [
            "".join(sorted(hashes[vertex] for vertex in vertices_after))
            for vertices_after in out_of
        ]
        hashes = [
            _md5(f"{left}|{right}|{own}")
            for left, right, own in zip(before, after, hashes, strict=True)
        ]
    return _md5(str(sorted(hashes)))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def operation_number(name: str) -> int:
    """The place of an operation; raises ``InvalidArchitecture`` for one that is not there."""
    if name not in OPERATIONS:
        raise InvalidArchitecture(
            f"nasbench101: no operation {name!r}: {nearest(name, OPERATIONS)}"
        )
    return OPERATIONS.index(name)


def vertex_channels(links: Links, kept: Sequence[int], c_out: int) -> Mapping[int, int]:
    """The channels of each inner vertex that takes part.

    Those that lead to the output share its channels, the first ones taking what is left over;
    the others are as wide as the widest that they lead to.
    """
    inner, output = kept[1:-1], kept[-1]
    joined = [vertex for vertex in inner if (vertex, output) in links]
    channels: dict[int, int] = {}
    for index, vertex in enumerate(joined):
        channels[vertex] = c_out // len(joined) + (index < c_out % len(joined))
    for vertex in reversed(inner):
        if vertex not in channels:
            channels[vertex] = max(
                channels[target]
                for source, target in links
                if source == vertex and target in channels
            )
    return channels


@functools.cache
def number_of_picks(vertices: int, most_links: int) -> int:
    """How many matrices with operations of their participating vertices there are.

    Looks at all matrices at once, as bits: 2 million for 7 vertices.
    """
    pairs = edges(vertices)
    matrices = np.arange(2 ** len(pairs), dtype=np.uint32)
    count = np.zeros(len(matrices), dtype=np.uint8)
    for index in range(len(pairs)):
        count += ((matrices >> index) & 1).astype(np.uint8)
    matrices = matrices[count <= most_links]
    bits = {pair: (matrices >> index) & 1 == 1 for index, pair in enumerate(pairs)}
    every, no = np.ones(len(matrices), dtype=bool), np.zeros(len(matrices), dtype=bool)
    forward = {0: every} | dict.fromkeys(range(1, vertices), no)
    backward = {vertices - 1: every} | dict.fromkeys(range(vertices - 1), no)
    for source, target in sorted(pairs):
        forward[target] = forward[target] | (forward[source] & bits[source, target])
    for source, target in sorted(pairs, reverse=True):
        backward[source] = backward[source] | (backward[target] & bits[source, target])
    inner = no.astype(np.int64)
    for vertex in range(1, vertices - 1):
        inner = inner + (forward[vertex] & backward[vertex])
    cells = np.bincount(inner[forward[vertices - 1]])
    return sum(int(number) * len(OPERATIONS) ** size for size, number in enumerate(cells))
