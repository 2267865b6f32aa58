"""Spaces of a normal and a reduction cell, made of blocks with two inputs each.

NASNet's and ENAS's differ in their operations and in how their papers write architectures down.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.encoding import CellGraph
from nas.errors import ConfigError
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

CELLS = ("normal", "reduce")


@dataclass(frozen=True)
class TwoCells(ABC):
    """What is common to them; a space gives its name, its operations and its notation.

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
            papers' final networks, or brought to the width of one state by a projection each,
            which architectures can share: what a search with shared weights needs.
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

    name: ClassVar[str]
    operations: ClassVar[tuple[str, ...]]
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = self.name.partition("/")[0]
        check_arguments(self, space)
        if self.blocks < 1:
            raise ConfigError(f"{space}: blocks must be at least 1, got {self.blocks}")
        cells = (block_choices(cell, self.blocks, self.operations) for cell in CELLS)
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
            picks |= pairs_to_picks(cell, ordered_sides(pairs, self.operations))
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
            pairs = strongest_pairs(weights, cell, self.blocks, self.operations)
            picks |= pairs_to_picks(cell, pairs)
        return Architecture(self.name, tuple(picks.items()))

    def build(self, builder: Builder) -> nn.Module:
        def make_cell(place: Place) -> tuple[nn.Module, int]:
            return build_cell(
                builder, place, place.kind, self.blocks, self.operations, self.projected
            )

        return assemble(self, make_cell)

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """Both cells with their operations as vertices, two a block."""
        return {cell: cell_graph(cell_pairs(arch, cell, self.blocks)) for cell in CELLS}

    @property
    def longest_path(self) -> int:
        return self.blocks + 1

    @property
    def graph_operations(self) -> tuple[str, ...]:
        return (SECOND_INPUT, *self.operations)
