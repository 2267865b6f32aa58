"""Cells of blocks with two inputs: what the NASNet, PNAS and ENAS spaces share.

A block reads two states of its cell, which may be the same, applies an operation to each, and
adds the two. States 0 and 1 are the cell's inputs, block n gives state n. All states that no
block reads are joined along the channels: blocks' outputs and, as in the official code of all
three papers, the cell's inputs too, halved by a factorised reduction where the cell reduces.

Every pair of a side of a block and a state it may read is an edge of its own, labelled
``normal/4/left<-2``. How the unread states are joined is one of two: concatenated, where they
are the subset ``normal/join``, as in the papers' final networks; or projected, where each has a
1×1 convolution of its own and these are summed, with an edge ``normal/join<-4`` a state. The
latter is a 1×1 convolution of the former, in slices that all cells with that state can share:
what a search with shared weights needs, and what the ENAS code does there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder, Factory
from nas.encoding import CellGraph
from nas.layers.cells import Cell, Concatenate, FactorizedReduction, SumOfEdges
from nas.space import Legal, next_choice
from search_spaces.cell_network import Place, operation
from search_spaces.genotype import Pair, check_concat, read_genotype, write_genotype

SIDES = ("left", "right")
SECOND_INPUT = "second_input"


class Block(nn.Module):
    """The sum of two sides, each of which reads one state."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left = left
        self.right = right

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        return self.left(states) + self.right(states)


class Projection(nn.Module):
    """ReLU and a 1×1 convolution: a state's part in what a cell gives on."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.c = c
        self.conv = nn.Conv2d(c, c, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.relu(x))


class ProjectedSum(nn.Module):
    """What a cell gives on: the sum of its joined states' projections, batch norm."""

    def __init__(self, c: int, projections: nn.Module) -> None:
        super().__init__()
        self.c = c
        self.projections = projections
        self.norm = nn.BatchNorm2d(c)

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        return self.norm(self.projections(states))


class ConcatenateHalved(nn.Module):
    """States joined along the channels, some of them halved in size first."""

    def __init__(self, joined: tuple[int, ...], halves: nn.ModuleDict) -> None:
        super().__init__()
        self.joined = joined
        self.halves = halves

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        halved = {int(index): half(states[int(index)]) for index, half in self.halves.items()}
        return torch.cat([halved.get(index, states[index]) for index in self.joined], dim=1)


# ----------------------------------------------------------------------------- the encoding


def block_choices(cell: str, blocks: int, operations: Sequence[str]) -> Iterator[Choice]:
    """For each block both inputs, then both operations: the order of the papers' controllers."""
    for state in range(2, 2 + blocks):
        for side in SIDES:
            yield Choice(f"{cell}/{state}/{side}/input", tuple(range(state)))
        for side in SIDES:
            yield Choice(f"{cell}/{state}/{side}/op", tuple(operations))


def unordered_legal(choices: Sequence[Choice], prefix: Mapping[str, Scalar]) -> Legal | None:
    """The next choice where the right side of a block is never before its left.

    Sides are ordered by their input and then by their operation.
    """
    step = next_choice(choices, prefix)
    if step is None or "/right/" not in step[0].label:
        return step
    choice, options = step
    left = choice.label.replace("/right/", "/left/")
    if choice.label.endswith("/input"):
        return choice, options[choice.index(prefix[left]) :]
    inputs = [prefix[label.removesuffix("op") + "input"] for label in (left, choice.label)]
    if inputs[0] == inputs[1]:
        return choice, options[choice.index(prefix[left]) :]
    return step


def cell_pairs(arch: Architecture, cell: str, blocks: int) -> list[Pair]:
    """The operation and the state of each side of each block."""
    picks = arch.as_dict()
    return [
        (str(picks[f"{cell}/{state}/{side}/op"]), int(picks[f"{cell}/{state}/{side}/input"]))
        for state in range(2, 2 + blocks)
        for side in SIDES
    ]


def pairs_to_picks(cell: str, pairs: Sequence[Pair]) -> dict[str, Scalar]:
    """The inverse of ``cell_pairs``, in the order of the choices."""
    picks: dict[str, Scalar] = {}
    for state, block in _blocks(pairs):
        for side, (_, source) in zip(SIDES, block, strict=True):
            picks[f"{cell}/{state}/{side}/input"] = source
        for side, (name, _) in zip(SIDES, block, strict=True):
            picks[f"{cell}/{state}/{side}/op"] = name
    return picks


def ordered_sides(pairs: Sequence[Pair], operations: Sequence[str]) -> list[Pair]:
    """The same cell with the sides of each block in order: a sum does not know which is left."""
    return [
        pair
        for _, block in _blocks(pairs)
        for pair in sorted(block, key=lambda pair: (pair[1], operations.index(pair[0])))
    ]


def unread(pairs: Sequence[Pair]) -> tuple[int, ...]:
    """The states that no block reads: those the cell joins."""
    read = {source for _, source in pairs}
    return tuple(state for state in range(2 + len(pairs) // 2) if state not in read)


def _blocks(pairs: Sequence[Pair]) -> Iterator[tuple[int, Sequence[Pair]]]:
    for start in range(0, len(pairs), 2):
        yield 2 + start // 2, pairs[start : start + 2]


# ----------------------------------------------------------------------------- the notation


def read_cells(
    text: str, cells: Sequence[str], blocks: int, operations: Sequence[str]
) -> dict[str, list[Pair]]:
    """The pairs of each cell from a ``Genotype(…)``; concatenated states must be the unread."""
    pairs, concats = read_genotype(text, dict.fromkeys(cells, 2 * blocks), operations)
    for cell in cells:
        check_concat(cell, concats, unread(pairs[cell]))
    return pairs


def write_cells(arch: Architecture, cells: Sequence[str], blocks: int) -> str:
    """What ``read_cells`` reads."""
    pairs = {cell: cell_pairs(arch, cell, blocks) for cell in cells}
    return write_genotype({cell: (pairs[cell], unread(pairs[cell])) for cell in cells})


def strongest_pairs(
    weights: Mapping[str, Sequence[float]], cell: str, blocks: int, operations: Sequence[str]
) -> list[Pair]:
    """For each side of each block the edge and operation of the largest weight.

    Args:
        weights: of every edge, over ``"none"`` and the operations; the former takes no part.
    """
    pairs = []
    for state in range(2, 2 + blocks):
        for side in SIDES:
            best = max(
                (weight, -source, -index)
                for source in range(state)
                for index, weight in enumerate(list(weights[_edge(cell, state, side, source)])[1:])
            )
            pairs.append((operations[-best[2]], -best[1]))
    return pairs


# ------------------------------------------------------------------------------- the network


def cell_slots(cell: str, pairs: Sequence[Pair], projected: bool) -> dict[str, str]:
    """All edges of a cell to an operation or ``"none"``, and the states that it joins."""
    slots = {}
    for state, block in _blocks(pairs):
        for side, (name, taken) in zip(SIDES, block, strict=True):
            for source in range(state):
                slots[_edge(cell, state, side, source)] = name if source == taken else "none"
    joined = unread(pairs)
    if not projected:
        return slots | {f"{cell}/join": "+".join(map(str, joined))}
    for state in range(2 + len(pairs) // 2):
        slots[f"{cell}/join<-{state}"] = "project" if state in joined else "none"
    return slots


def build_cell(
    builder: Builder,
    place: Place,
    cell: str,
    blocks: int,
    operations: tuple[str, ...],
    projected: bool,
) -> tuple[nn.Module, int]:
    """A cell and the channels of what it gives on."""
    describe = _projected_cell if projected else _concatenated_cell
    width = 1 if projected else len(builder.subset(f"{cell}/join", of=2 + blocks))
    module = builder.part(describe, cell, blocks, operations, *place.plain())
    return module, place.c * width


def _concatenated_cell(
    builder: Builder, cell: str, blocks: int, operations: tuple[str, ...], *plain: Any
) -> Cell:
    place = Place(*plain)
    nodes = _nodes(builder, place, cell, blocks, operations)
    joined = builder.subset(f"{cell}/join", of=2 + blocks)
    halves = nn.ModuleDict(
        {
            str(state): FactorizedReduction(c_in=place.c, c_out=place.c)
            for state in joined
            if place.stride(state) == 2
        }
    )
    join = ConcatenateHalved(joined, halves) if halves else Concatenate(joined)
    return Cell(*place.prepare(), nodes, join)


def _projected_cell(
    builder: Builder, cell: str, blocks: int, operations: tuple[str, ...], *plain: Any
) -> Cell:
    place = Place(*plain)
    nodes = _nodes(builder, place, cell, blocks, operations)
    edges = nn.ModuleDict()
    for state in range(2 + blocks):
        project: Factory = partial(Projection, c=place.c)
        if place.stride(state) == 2:
            project = partial(FactorizedReduction, c_in=place.c, c_out=place.c)
        edge = builder.edge(f"{cell}/join<-{state}", {"none": None, "project": project})
        if edge is not None:
            edges[str(state)] = edge
    return Cell(*place.prepare(), nodes, ProjectedSum(place.c, SumOfEdges(edges)))


def _nodes(
    builder: Builder, place: Place, cell: str, blocks: int, operations: Sequence[str]
) -> nn.ModuleList:
    nodes = nn.ModuleList()
    for state in range(2, 2 + blocks):
        sides = []
        for side in SIDES:
            edges = nn.ModuleDict()
            for source in range(state):
                options = _options(operations, place.c, place.stride(source))
                edge = builder.edge(_edge(cell, state, side, source), options)
                if edge is not None:
                    edges[str(source)] = place.dropped(edge)
            sides.append(SumOfEdges(edges))
        nodes.append(Block(*sides))
    return nodes


def _edge(cell: str, state: int, side: str, source: int) -> str:
    return f"{cell}/{state}/{side}<-{source}"


def _options(operations: Sequence[str], c: int, stride: int) -> dict[str, Factory | None]:
    return {"none": None} | {name: operation(name, c, stride) for name in operations}


# -------------------------------------------------------------------------------- the graph


def cell_graph(pairs: Sequence[Pair]) -> CellGraph:
    """The cell with its operations as vertices, two a block, behind the two inputs."""
    vertices = {0: [0], 1: [1]}
    links = {(0, 1)}
    for state, block in _blocks(pairs):
        first = 2 * state - 2
        vertices[state] = [first, first + 1]
        for vertex, (_, source) in zip(vertices[state], block, strict=True):
            links |= {(origin, vertex) for origin in vertices[source]}
    output = 2 + len(pairs)
    links |= {(vertex, output) for state in unread(pairs) for vertex in vertices[state]}
    operations = ("input", SECOND_INPUT, *(name for name, _ in pairs), "output")
    return CellGraph(operations, frozenset(links))
