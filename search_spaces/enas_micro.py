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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nas.architecture import Architecture, Scalar
from nas.errors import InvalidArchitecture
from nas.points import Point
from search_spaces.pairwise_cells import cell_pairs, pairs_to_picks
from search_spaces.two_cells import CELLS, TwoCells

OPERATIONS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect")
"""In the order of the arc string's numbers."""

POINTS = {
    "ENAS_micro": Point(
        "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1",
        "Pham et al., ENAS, ICML 2018 (scripts/cifar10_micro_final.sh)",
    ),
}


@dataclass(frozen=True)
class EnasMicro(TwoCells):
    """ENAS micro: normal and reduction cells of 5 nodes, two inputs a node, 5 operations.

    The arguments are those of ``TwoCells``, whose blocks are the nodes. By default the official
    final network for CIFAR-10: 15 normal cells, 2 reductions. The official search projects
    (``projected``), its final networks concatenate.
    """

    cells: int = 17

    name = "enas_micro/v1"
    paper = "Pham et al., Efficient Neural Architecture Search, ICML 2018"
    operations = OPERATIONS
    points: ClassVar[Mapping[str, Point]] = POINTS

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
                if source > 1 + position // 4 or operation >= len(self.operations):
                    raise InvalidArchitecture(
                        f"{cell}: node {position // 4} has the input {source} and the operation "
                        f"{operation}, expected at most {1 + position // 4} and "
                        f"{len(self.operations) - 1}"
                    )
                pairs.append((self.operations[operation], source))
            picks |= pairs_to_picks(cell, pairs)
        return Architecture(self.name, tuple(picks.items()))

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads."""
        pairs = [pair for cell in CELLS for pair in cell_pairs(arch, cell, self.blocks)]
        return " ".join(f"{source} {self.operations.index(name)}" for name, source in pairs)
