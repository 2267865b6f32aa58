"""The ENAS micro space: cells of five nodes, each with two inputs and 5 operations.

Pham, Guan, Zoph, Le & Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML
2018. The arc string of the official code is read and written: for each node input, operation,
input, operation, first of the normal cell, then of the reduction cell.

What differs: the paper writes that there are 1.3·10¹¹ = (5·5!)⁴ networks, which counts one
operation for all nodes of a cell; picks are counted here, as for every space. The network around
the cells is that of the DARTS code: an input that changes its width is projected once where the
official code does it twice, reductions are strided operations in the search too, and the
classifier has a bias.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.encoding import CellGraph
from nas.errors import ConfigError, InvalidArchitecture
from nas.points import Point
from nas.space import Legal, next_choice
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
    strongest_pairs,
)

OPERATIONS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect")
"""In the order of the arc string's numbers."""

CELLS = ("normal", "reduce")

POINTS = {
    "ENAS_micro": Point(
        "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1",
        "Pham et al., ENAS, ICML 2018 (scripts/cifar10_micro_final.sh)",
    ),
}


@dataclass(frozen=True)
class EnasMicro:
    """ENAS micro: normal and reduction cells of 5 nodes, two inputs a node, 5 operations.

    Args:
        channels: of a state in the first cells; each reduction doubles them.
        cells: how many; those at a third and two thirds are reductions.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        stem: ``"cifar"`` keeps the size, ``"imagenet"`` takes it to an eighth.
        auxiliary: whether a second classifier reads the second reduction. Such a network gives
            (logits, auxiliary logits) in training.
        drop_path: the probability with which an edge is left out in training, identities excepted.
        blocks: nodes of a cell.
        projected: how a cell joins the states that nothing reads: concatenated, as in the
            official final network, or brought to the width of one state by a projection each,
            as in the official search, where architectures share the projections.

    By default the official final network for CIFAR-10: 15 normal cells, 2 reductions.
    """

    channels: int = 36
    cells: int = 17
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)
    stem: Stem = "cifar"
    auxiliary: bool = False
    drop_path: float = 0.0
    blocks: int = 5
    projected: bool = False

    name = "enas_micro/v1"
    paper = "Pham et al., Efficient Neural Architecture Search, ICML 2018"
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)
    points: ClassVar[Mapping[str, Point]] = POINTS

    def __post_init__(self) -> None:
        check_arguments(self, "enas_micro")
        if self.blocks < 1:
            raise ConfigError(f"enas_micro: blocks must be at least 1, got {self.blocks}")
        cells = (block_choices(cell, self.blocks, OPERATIONS) for cell in CELLS)
        object.__setattr__(self, "choices", tuple(itertools.chain.from_iterable(cells)))

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return math.prod(len(choice.options) for choice in self.choices)

    def canonical(self, arch: Architecture) -> Architecture:
        """The sides of each node in order, by input and then by operation."""
        picks: dict[str, Scalar] = {}
        for cell in CELLS:
            pairs = cell_pairs(arch, cell, self.blocks)
            picks |= pairs_to_picks(cell, ordered_sides(pairs, OPERATIONS))
        return Architecture(self.name, tuple(picks.items()))

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        slots: dict[str, str] = {}
        for cell in CELLS:
            slots |= cell_slots(cell, cell_pairs(arch, cell, self.blocks), self.projected)
        return slots

    def discretize(self, weights: Mapping[str, Sequence[float]]) -> Architecture:
        """For each side of each block the strongest edge and its strongest operation.

        Args:
            weights: of every slot, over its options.
        """
        picks: dict[str, Scalar] = {}
        for cell in CELLS:
            pairs = strongest_pairs(weights, cell, self.blocks, OPERATIONS)
            picks |= pairs_to_picks(cell, pairs)
        return Architecture(self.name, tuple(picks.items()))

    def build(self, builder: Builder) -> nn.Module:
        def make_cell(place: Place) -> tuple[nn.Module, int]:
            return build_cell(builder, place, place.kind, self.blocks, OPERATIONS, self.projected)

        return assemble(self, make_cell)

    def parse(self, text: str) -> Architecture:
        """Reads the official arc: ``0 2 0 0 …``, four numbers a node, both cells in a row."""
        words = text.split()
        expected = len(CELLS) * self.blocks * 4
        if len(words) != expected or not all(word.isdecimal() for word in words):
            raise InvalidArchitecture(
                f"expected {expected} numbers, (input, operation) twice for each of "
                f"{self.blocks} nodes of 2 cells; got {len(words)} words in {text!r:.200}"
            )
        numbers = [int(word) for word in words]
        picks: dict[str, Scalar] = {}
        for index, cell in enumerate(CELLS):
            length = 4 * self.blocks
            own = numbers[index * length : (index + 1) * length]
            pairs = []
            for position in range(0, length, 2):
                source, operation = own[position : position + 2]
                if source > 1 + position // 4 or operation >= len(OPERATIONS):
                    raise InvalidArchitecture(
                        f"{cell}: node {position // 4} has the input {source} and the operation "
                        f"{operation}, expected at most {1 + position // 4} and "
                        f"{len(OPERATIONS) - 1}"
                    )
                pairs.append((OPERATIONS[operation], source))
            picks |= pairs_to_picks(cell, pairs)
        return Architecture(self.name, tuple(picks.items()))

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads."""
        pairs = [pair for cell in CELLS for pair in cell_pairs(arch, cell, self.blocks)]
        return " ".join(f"{source} {OPERATIONS.index(name)}" for name, source in pairs)

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """Both cells with their operations as vertices, two a node."""
        return {cell: cell_graph(cell_pairs(arch, cell, self.blocks)) for cell in CELLS}

    graph_operations = (SECOND_INPUT, *OPERATIONS)

    @property
    def longest_path(self) -> int:
        return self.blocks + 1
