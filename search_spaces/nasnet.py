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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nas.architecture import Architecture, Scalar
from nas.points import Point
from search_spaces.pairwise_cells import pairs_to_picks, read_cells, write_cells
from search_spaces.two_cells import CELLS, TwoCells

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
class NasNet(TwoCells):
    """NASNet and AmoebaNet: normal and reduction cells of 5 blocks, 13 operations.

    The arguments are those of ``TwoCells``. By default the DARTS code's network for CIFAR-10,
    which it compares these cells in.
    """

    name = "nasnet/v1"
    paper = "Zoph et al., NASNet, CVPR 2018; Real et al., AmoebaNet, AAAI 2019"
    operations = OPERATIONS
    points: ClassVar[Mapping[str, Point]] = POINTS

    def parse(self, text: str) -> Architecture:
        """Reads ``Genotype(normal=[('sep_conv_5x5', 1), …], reduce=…)``, two pairs a block.

        Concatenated states may be given where they are the unread ones.
        """
        picks: dict[str, Scalar] = {}
        for cell, pairs in read_cells(text, CELLS, self.blocks, self.operations).items():
            picks |= pairs_to_picks(cell, pairs)
        return Architecture(self.name, tuple(picks.items()))

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads."""
        return write_cells(arch, CELLS, self.blocks)
