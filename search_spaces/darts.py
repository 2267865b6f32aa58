"""The DARTS space: cells of four nodes, each with two inputs.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019. The network is
the paper's evaluation network, and its parameters and multiply-accumulates those of the
official code. What differs: odd sizes are rounded up where the official factorised reduction
fails, and the auxiliary head has its second norm at the ImageNet sizes too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder, Factory
from nas.encoding import CellGraph
from nas.errors import ConfigError, InvalidArchitecture, UnsupportedRequest
from nas.layers.cells import Cell, Concatenate, SumOfEdges
from nas.points import Point
from nas.space import Legal, next_choice
from nas.supernet.form import norm_behind, without_affine
from search_spaces.cell_network import Place, Stem, assemble, check_arguments, operation
from search_spaces.genotype import Pair, check_concat, read_genotype, write_genotype

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
CELLS = ("normal", "reduce")
SECOND_INPUT = "second_input"

_DARTS = "Liu, Simonyan & Yang, DARTS, ICLR 2019"


POINTS = {
    "DARTS_V1": Point(
        "Genotype("
        "normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5], "
        "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2), "
        "('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])",
        _DARTS,
    ),
    "DARTS_V2": Point(
        "Genotype("
        "normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), "
        "('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
        "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), "
        "('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])",
        _DARTS,
    ),
    "PC_DARTS_cifar": Point(
        "Genotype("
        "normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), "
        "('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), "
        "('avg_pool_3x3', 0), ('dil_conv_3x3', 1)], normal_concat=[2, 3, 4, 5], "
        "reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), "
        "('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], reduce_concat=[2, 3, 4, 5])",
        "Xu et al., PC-DARTS, ICLR 2020",
    ),
}


@dataclass(frozen=True)
class Darts:
    """DARTS: normal and reduction cells of 4 nodes, two of 14 edges a node, 7 operations.

    An architecture picks for each node the two states it reads and an operation for each, so
    each has one encoding. The slots are all 14 edges of both cells, with ``"none"`` on those
    that are not taken.

    Args:
        channels: of a state in the first cells; each reduction doubles them.
        cells: how many; those at a third and two thirds are reductions.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        stem: ``"cifar"`` keeps the size, ``"imagenet"`` takes it to an eighth.
        auxiliary: whether a second classifier reads the second reduction. Such a network gives
            (logits, auxiliary logits) in training; its head is exported and counted with its
            parameters. Its weights but for the head's fit the network without one.
        drop_path: the probability with which an edge is left out in training, identities excepted.
        nodes: of a cell.

    The defaults are the paper's network for CIFAR-10.
    """

    channels: int = 36
    cells: int = 20
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)
    stem: Stem = "cifar"
    auxiliary: bool = False
    drop_path: float = 0.0
    nodes: int = 4

    name = "darts/v1"
    paper = _DARTS
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)
    points: ClassVar[Mapping[str, Point]] = POINTS

    def __post_init__(self) -> None:
        check_arguments(self, "darts")
        if self.nodes < 1:
            raise ConfigError(f"darts: nodes must be at least 1, got {self.nodes}")
        choices = []
        for cell, node in itertools.product(CELLS, self._nodes()):
            if node > 2:  # the first node has no choice of inputs
                pairs = itertools.combinations(range(node), 2)
                options = tuple(f"{low}+{high}" for low, high in pairs)
                choices.append(Choice(f"{cell}/{node}/inputs", options))
            choices.append(Choice(f"{cell}/{node}/low", OPERATIONS[1:]))
            choices.append(Choice(f"{cell}/{node}/high", OPERATIONS[1:]))
        object.__setattr__(self, "choices", tuple(choices))

    def _nodes(self) -> range:
        return range(2, 2 + self.nodes)

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return int(math.prod(math.comb(node, 2) * 7**2 for node in self._nodes())) ** 2

    def canonical(self, arch: Architecture) -> Architecture:
        """The architecture itself.

        Renaming nodes would keep the function too, but only up to the order in which the next
        cell's convolution adds their channels.
        """
        return arch

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        """All edges, as ``normal/0->2``, to an operation or ``"none"``."""
        slots = {}
        for cell, node in itertools.product(CELLS, self._nodes()):
            taken = {source: name for name, source in _pairs(arch, cell, node)}
            for source in range(node):
                slots[f"{cell}/{source}->{node}"] = taken.get(source, "none")
        return slots

    def discretize(self, weights: Mapping[str, Sequence[float]]) -> Architecture:
        """The paper's rule: of each node the two strongest edges, of each edge its strongest
        operation; ``"none"`` takes part in neither.

        Args:
            weights: of every slot, over ``OPERATIONS``.

        Raises:
            UnsupportedRequest: a slot has no weights.
        """
        for kind in CELLS:
            if f"{kind}/0->2" not in weights:
                raise UnsupportedRequest(
                    f"{self.name!r}: no weights for {kind} cells; a network of {self.cells} cells "
                    "may have none of them (from 3 cells on there are both)"
                )
        picks: dict[str, Scalar] = {}
        for cell, node in itertools.product(CELLS, self._nodes()):
            edges = [list(weights[f"{cell}/{source}->{node}"])[1:] for source in range(node)]
            ranked = sorted((-max(edge), source) for source, edge in enumerate(edges))
            low, high = sorted(source for _, source in ranked[:2])
            picks |= _picks(
                cell, node, (_strongest(edges[low]), low), (_strongest(edges[high]), high)
            )
        return Architecture(self.name, tuple(picks.items()))

    def adapt(self, network: nn.Module) -> None:
        """The paper's search network: in cells no norm has scale and shift, and pools have one."""
        norm_behind(network, (nn.MaxPool2d, nn.AvgPool2d))
        for module in network.modules():
            if isinstance(module, Cell):
                without_affine(module)

    def build(self, builder: Builder) -> nn.Module:
        def make_cell(place: Place) -> tuple[nn.Module, int]:
            cell = builder.part(_cell, self.nodes, *place.plain())
            return cell, place.c * self.nodes

        return assemble(self, make_cell)

    def parse(self, text: str) -> Architecture:
        """Reads ``Genotype(normal=[('sep_conv_3x3', 1), …], normal_concat=…, reduce=…, …)``.

        The order of the two edges of a node does not matter.
        """
        pairs, concats = read_genotype(text, dict.fromkeys(CELLS, 2 * self.nodes), OPERATIONS[1:])
        picks: dict[str, Scalar] = {}
        for cell in CELLS:
            check_concat(cell, concats, self._nodes())
            for node in self._nodes():
                edges = pairs[cell][2 * (node - 2) : 2 * (node - 1)]
                low, high = sorted(edges, key=lambda pair: pair[1])
                if low[1] == high[1]:
                    raise InvalidArchitecture(
                        f"{cell}: node {node} reads state {low[1]} twice, expected two states"
                    )
                picks |= _picks(cell, node, low, high)
        return Architecture(self.name, tuple(picks.items()))

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads."""
        return write_genotype(
            {
                cell: (
                    [pair for node in self._nodes() for pair in _pairs(arch, cell, node)],
                    self._nodes(),
                )
                for cell in CELLS
            }
        )

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """Both cells with the taken edges' operations as vertices, two a node."""
        return {cell: self._graph(arch, cell) for cell in CELLS}

    def _graph(self, arch: Architecture, cell: str) -> CellGraph:
        operations = ["input", SECOND_INPUT]
        vertices = {0: [0], 1: [1]}
        links = {(0, 1)}
        for node in self._nodes():
            vertices[node] = []
            for name, source in _pairs(arch, cell, node):
                links |= {(vertex, len(operations)) for vertex in vertices[source]}
                vertices[node].append(len(operations))
                operations.append(name)
        output = len(operations)
        links |= {(vertex, output) for node in self._nodes() for vertex in vertices[node]}
        return CellGraph((*operations, "output"), frozenset(links))

    graph_operations = (SECOND_INPUT, *OPERATIONS[1:])

    @property
    def longest_path(self) -> int:
        return self.nodes + 1


def _cell(builder: Builder, number: int, *plain: Any) -> Cell:
    place = Place(*plain)
    nodes = nn.ModuleList()
    for node in range(2, 2 + number):
        edges = nn.ModuleDict()
        for source in range(node):
            label = f"{place.kind}/{source}->{node}"
            edge = builder.edge(label, _options(place.c, place.stride(source)))
            if edge is not None:
                edges[str(source)] = place.dropped(edge)
        nodes.append(SumOfEdges(edges))
    return Cell(*place.prepare(), nodes, Concatenate(joined=tuple(range(2, 2 + number))))


def _options(c: int, stride: int) -> dict[str, Factory | None]:
    options: dict[str, Factory | None] = {"none": None}
    for name in OPERATIONS[1:]:
        options[name] = operation(name, c, stride)
    return options


def _pairs(arch: Architecture, cell: str, node: int) -> Iterator[Pair]:
    """The operations of a node's two edges with the states that they read, the lower first."""
    inputs = "0+1" if node == 2 else str(arch[f"{cell}/{node}/inputs"])
    for side, source in zip(("low", "high"), inputs.split("+"), strict=True):
        yield str(arch[f"{cell}/{node}/{side}"]), int(source)


def _picks(cell: str, node: int, low: Pair, high: Pair) -> dict[str, Scalar]:
    """The inverse of ``_pairs``, in the order of the choices."""
    picks: dict[str, Scalar] = {f"{cell}/{node}/inputs": f"{low[1]}+{high[1]}"} if node > 2 else {}
    return picks | {f"{cell}/{node}/low": low[0], f"{cell}/{node}/high": high[0]}


def _strongest(weights: Sequence[float]) -> str:
    """The operation of the largest weight, the first of equals; without ``"none"``."""
    return OPERATIONS[1 + max(range(len(weights)), key=weights.__getitem__)]
