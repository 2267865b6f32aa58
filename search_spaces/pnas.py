"""The PNAS space: one cell of up to five blocks, 8 operations.

Liu et al., "Progressive Neural Architecture Search", ECCV 2018. Reductions are the same cell
with stride 2. The two sides of a block are a set, so each cell has one encoding up to the
renaming of blocks: 136 cells of one block. A search that grows cells makes a space for each
number of blocks and takes an architecture from one to the next with ``Pnas.extend``.

What differs: the network around the cells is that of the DARTS code, and the states that a
cell joins are exactly the unread ones (the official code of the found network joins one more).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.encoding import CellGraph
from nas.errors import ConfigError, InvalidArchitecture
from nas.points import Point
from nas.space import Legal, validate
from search_spaces.cell_network import Place, Stem, assemble, check_arguments
from search_spaces.pairwise_cells import (
    SECOND_INPUT,
    block_choices,
    build_cell,
    cell_graph,
    cell_pairs,
    cell_slots,
    ordered_sides,
    pairs_to_picks,
    read_cells,
    strongest_pairs,
    unordered_legal,
    write_cells,
)

OPERATIONS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "conv_7x1_1x7",
    "skip_connect",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dil_conv_3x3",
)
"""``conv_7x1_1x7`` is a 1×7 convolution and then a 7×1."""

CELL = "cell"

POINTS = {
    "PNASNet_5": Point(
        "Genotype(cell=[('sep_conv_5x5', 0), ('max_pool_3x3', 0), ('sep_conv_7x7', 1), "
        "('max_pool_3x3', 1), ('sep_conv_5x5', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 4), "
        "('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 1)])",
        "Liu et al., PNAS, ECCV 2018",
    ),
}


@dataclass(frozen=True)
class Pnas:
    """PNAS: one cell of 5 blocks for normal and reduction places, 8 operations.

    Args:
        channels: of a state in the first cells; each reduction doubles them.
        cells: how many; those at a third and two thirds are reductions.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        stem: ``"cifar"`` keeps the size, ``"imagenet"`` takes it to an eighth.
        auxiliary: whether a second classifier reads the second reduction. Such a network gives
            (logits, auxiliary logits) in training.
        drop_path: the probability with which an edge is left out in training, identities excepted.
        blocks: of the cell.
        projected: how a cell joins the states that no block reads: concatenated, as in the
            paper's final network, or brought to the width of one state by a projection each,
            which architectures can share: what a search with shared weights needs.

    By default the paper's network for CIFAR-10: three cells at each size and 48 channels.
    """

    channels: int = 48
    cells: int = 11
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)
    stem: Stem = "cifar"
    auxiliary: bool = False
    drop_path: float = 0.0
    blocks: int = 5
    projected: bool = False

    name = "pnas/v1"
    paper = "Liu et al., Progressive Neural Architecture Search, ECCV 2018"
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)
    points: ClassVar[Mapping[str, Point]] = POINTS

    def __post_init__(self) -> None:
        check_arguments(self, "pnas")
        if self.blocks < 1:
            raise ConfigError(f"pnas: blocks must be at least 1, got {self.blocks}")
        choices = tuple(block_choices(CELL, self.blocks, OPERATIONS))
        object.__setattr__(self, "choices", choices)

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return unordered_legal(self.choices, prefix)

    def size(self) -> int:
        """Sets of two sides a block: 136 · 300 · 528 · 820 · 1176 for five of them."""
        sides = [state * len(OPERATIONS) for state in range(2, 2 + self.blocks)]
        return math.prod(side * (side + 1) // 2 for side in sides)

    def canonical(self, arch: Architecture) -> Architecture:
        """The architecture itself: its sides are in order already."""
        return arch

    def smallest(self) -> Pnas:
        """The same space with one block: where a search that grows cells begins."""
        return dataclasses.replace(self, blocks=1)

    def member(self, arch: Architecture) -> Pnas:
        """The space of as many blocks as this cell has, where those are fewer."""
        blocks, rest = divmod(len(arch.picks), len(self.choices) // self.blocks)
        fewer = not rest and 1 <= blocks < self.blocks
        return dataclasses.replace(self, blocks=blocks) if fewer else self

    def extend(self, arch: Architecture) -> tuple[Pnas, Iterator[Architecture]]:
        """The space of one block more, and every way to add a block to this cell.

        Raises ``InvalidArchitecture`` unless ``arch`` is one of this space.
        """
        if self.member(arch) is not self:
            raise InvalidArchitecture(
                f"pnas: a cell of {self.member(arch).blocks} blocks, where one of {self.blocks} is "
                f"to grow: {arch}"
            )
        validate(self, arch)
        larger = dataclasses.replace(self, blocks=self.blocks + 1)
        return larger, _completions(larger, arch.as_dict())

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return cell_slots(CELL, cell_pairs(arch, CELL, self.member(arch).blocks), self.projected)

    def discretize(self, weights: Mapping[str, Sequence[float]]) -> Architecture:
        """For each side of each block the strongest edge and its strongest operation.

        Args:
            weights: of every slot, over its options.
        """
        pairs = strongest_pairs(weights, CELL, self.blocks, OPERATIONS)
        picks = pairs_to_picks(CELL, ordered_sides(pairs, OPERATIONS))
        return Architecture(self.name, tuple(picks.items()))

    def build(self, builder: Builder) -> nn.Module:
        def make_cell(place: Place) -> tuple[nn.Module, int]:
            return build_cell(builder, place, CELL, self.blocks, OPERATIONS, self.projected)

        return assemble(self, make_cell)

    def parse(self, text: str) -> Architecture:
        """Reads ``Genotype(cell=[('sep_conv_5x5', 0), …])``, two pairs a block in either order.

        Concatenated states may be given as ``concat`` where they are the unread ones.
        """
        pairs = read_cells(text, (CELL,), self.blocks, OPERATIONS)[CELL]
        picks = pairs_to_picks(CELL, ordered_sides(pairs, OPERATIONS))
        return Architecture(self.name, tuple(picks.items()))

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads, of the space of as many blocks."""
        return write_cells(arch, (CELL,), self.member(arch).blocks)

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The cell with its operations as vertices, two a block."""
        return {CELL: cell_graph(cell_pairs(arch, CELL, self.member(arch).blocks))}

    graph_operations = (SECOND_INPUT, *OPERATIONS)

    @property
    def longest_path(self) -> int:
        return self.blocks + 1


def _completions(space: Pnas, made: dict[str, Scalar]) -> Iterator[Architecture]:
    step = space.legal(made)
    if step is None:
        yield Architecture(space.name, tuple(made.items()))
        return
    choice, options = step
    for option in options:
        yield from _completions(space, made | {choice.label: option})
