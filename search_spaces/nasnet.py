"""The NASNet space, in which AmoebaNet was found too: cells of five blocks, 13 operations.

Zoph, Vasudevan, Shlens & Le, "Learning Transferable Architectures for Scalable Image
Recognition", CVPR 2018; Real, Aggarwal, Huang & Le, "Regularized Evolution for Image Classifier
Architecture Search", AAAI 2019. What differs: a block always adds its two sides (the paper may
also concatenate them, which it never found useful), and the network around the cells is that of
the DARTS code, by whose genotypes the published cells are counted. There, dilated convolutions
are depthwise-separable, and what the 2018 code joins by hand (in NASNet-A an input that is read)
is left to the rule.
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
from nas.errors import ConfigError
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
    read_cells,
    strongest_pairs,
    write_cells,
)

OPERATIONS = (
    "skip_connect",
    "conv_3x1_1x3",
    "conv_7x1_1x7",
    "dil_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
)
"""``conv_7x1_1x7`` is a 1×7 convolution and then a 7×1: the genotypes' name for it."""

CELLS = ("normal", "reduce")

POINTS = {
    "NASNet_A": Point(
        "Genotype("
        "normal=[('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), "
        "('sep_conv_3x3', 0), ('avg_pool_3x3', 1), ('skip_connect', 0), ('avg_pool_3x3', 0), "
        "('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 1)], "
        "normal_concat=[2, 3, 4, 5, 6], "
        "reduce=[('sep_conv_5x5', 1), ('sep_conv_7x7', 0), ('max_pool_3x3', 1), "
        "('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('sep_conv_5x5', 0), ('skip_connect', 3), "
        "('avg_pool_3x3', 2), ('sep_conv_3x3', 2), ('max_pool_3x3', 1)], "
        "reduce_concat=[4, 5, 6])",
        "Zoph et al., NASNet, CVPR 2018",
    ),
    "AmoebaNet_A": Point(
        "Genotype("
        "normal=[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('avg_pool_3x3', 3), ('sep_conv_3x3', 1), "
        "('skip_connect', 1), ('skip_connect', 0), ('avg_pool_3x3', 1)], "
        "normal_concat=[4, 5, 6], "
        "reduce=[('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('max_pool_3x3', 0), "
        "('sep_conv_7x7', 2), ('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('conv_7x1_1x7', 0), ('sep_conv_3x3', 5)], "
        "reduce_concat=[3, 4, 6])",
        "Real et al., AmoebaNet, AAAI 2019",
    ),
}


@dataclass(frozen=True)
class NasNet:
    """NASNet and AmoebaNet: normal and reduction cells of 5 blocks, 13 operations.

    Args:
        channels: of a state in the first cells; each reduction doubles them.
        cells: how many; those at a third and two thirds are reductions.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        stem: ``"cifar"`` keeps the size, ``"imagenet"`` takes it to an eighth.
        auxiliary: whether a second classifier reads the second reduction. Such a network gives
            (logits, auxiliary logits) in training.
        drop_path: the probability with which an edge is left out in training, identities excepted.
        blocks: of a cell.
        projected: how a cell joins the states that no block reads: concatenated, as in the
            paper's final network, or brought to the width of one state by a projection each,
            which architectures can share: what a search with shared weights needs.

    By default the DARTS code's network for CIFAR-10, which it compares these cells in.
    """

    channels: int = 36
    cells: int = 20
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)
    stem: Stem = "cifar"
    auxiliary: bool = False
    drop_path: float = 0.0
    blocks: int = 5
    projected: bool = False

    name = "nasnet/v1"
    paper = "Zoph et al., NASNet, CVPR 2018; Real et al., AmoebaNet, AAAI 2019"
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)
    points: ClassVar[Mapping[str, Point]] = POINTS

    def __post_init__(self) -> None:
        check_arguments(self, "nasnet")
        if self.blocks < 1:
            raise ConfigError(f"nasnet: blocks must be at least 1, got {self.blocks}")
        cells = (block_choices(cell, self.blocks, OPERATIONS) for cell in CELLS)
        object.__setattr__(self, "choices", tuple(itertools.chain.from_iterable(cells)))

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return math.prod(len(choice.options) for choice in self.choices)

    def canonical(self, arch: Architecture) -> Architecture:
        """The sides of each block in order, by input and then by operation."""
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
        """Reads ``Genotype(normal=[('sep_conv_5x5', 1), …], reduce=…)``, two pairs a block.

        Concatenated states may be given where they are the unread ones.
        """
        picks: dict[str, Scalar] = {}
        for cell, pairs in read_cells(text, CELLS, self.blocks, OPERATIONS).items():
            picks |= pairs_to_picks(cell, pairs)
        return Architecture(self.name, tuple(picks.items()))

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads."""
        return write_cells(arch, CELLS, self.blocks)

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """Both cells with their operations as vertices, two a block."""
        return {cell: cell_graph(cell_pairs(arch, cell, self.blocks)) for cell in CELLS}

    graph_operations = (SECOND_INPUT, *OPERATIONS)

    @property
    def longest_path(self) -> int:
        return self.blocks + 1
