"""Hierarchical motifs, and the flat graph they are compared with.

Liu, Simonyan, Vinyals, Fernando & Kavukcuoglu, "Hierarchical Representations for Efficient
Architecture Search", ICLR 2018. Level 1 are six operations; level 2 six motifs, graphs of 4 nodes
with operations on their edges; level 3 the cell, a graph of 5 nodes with motifs on its edges.
``none`` is no edge. A node joins what its edges give by depthwise concatenation, so widths grow
along a graph: convolutions give the stage's channels, other operations as many as they take. A
motif ends in a 1×1 convolution back to the width of its input. Every placement of a motif has
weights of its own.

The network: a 3×3 convolution, three stages of cells, twice the channels from stage to stage, a
3×3 separable convolution after each cell, of stride 2 between stages. The defaults are the paper's
small network for the search; ``channels=64, cells=2`` is the one for evaluation.

What differs from the paper: an edge may not become ``none`` where the graph's output would be cut
off from its input, so every motif and the cell compute something; edges that lead nowhere are left
out of the network. A separable convolution has one batch norm and ReLU, at its end. Widths depend
on the graph, so there is no mixture of options.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder, Factory
from nas.encoding import CellGraph, graph_of_edges
from nas.layers import ConvBNReLU
from nas.space import Legal, check_input
from search_spaces.hierarchical_graphs import (
    PRIMITIVES,
    Graph,
    Motif,
    build_graph,
    build_network,
    check_sizes,
    count_connected,
    edges_of,
    graph_of,
    next_edge,
    picks_of,
    primitives,
    without_dead_edges,
)


@dataclass(frozen=True)
class Hierarchical:
    """Hierarchical motifs: operations, motifs of operations, a cell of motifs.

    Args:
        channels: of the first stage; the later ones have twice and four times as many.
        cells: in each of the three stages.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        motifs: how many there are.
        motif_nodes: of each motif, input and output included.
        nodes: of the cell, likewise.
    """

    channels: int = 16
    cells: int = 1
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)
    motifs: int = 6
    motif_nodes: int = 4
    nodes: int = 5

    name = "hierarchical/v1"
    paper = "Liu et al., Hierarchical Representations for Efficient Architecture Search, ICLR 2018"
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "hierarchical"))
        check_sizes(self, "hierarchical", motifs=1, motif_nodes=2, nodes=2)
        choices = [
            Choice(f"{motif}/{source}->{target}", ("none", *PRIMITIVES))
            for motif in self._motifs
            for source, target in edges_of(self.motif_nodes)
        ]
        choices += [
            Choice(f"cell/{source}->{target}", ("none", *self._motifs))
            for source, target in edges_of(self.nodes)
        ]
        object.__setattr__(self, "choices", tuple(choices))

    @property
    def _motifs(self) -> tuple[str, ...]:
        return tuple(f"motif{number}" for number in range(1, self.motifs + 1))

    @property
    def _graphs(self) -> dict[str, int]:
        """The nodes of each graph, by its name."""
        return dict.fromkeys(self._motifs, self.motif_nodes) | {"cell": self.nodes}

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_edge(self.choices, self._graphs, prefix)

    def size(self) -> int:
        """How many there are: those of a motif for each motif, times those of the cell."""
        motif = count_connected(self.motif_nodes, len(PRIMITIVES))
        return motif**self.motifs * count_connected(self.nodes, self.motifs)

    def canonical(self, arch: Architecture) -> Architecture:
        """Without edges that lead nowhere, motifs numbered by what they are.

        Motifs are numbered in the order in which the cell's edges first use them, equal ones
        are one; those that are not used are an identity from input to output. Orders of nodes
        that give isomorphic graphs stay apart.
        """
        graphs = self._live(arch)
        numbers: dict[tuple[tuple[tuple[int, int], str], ...], str] = {}
        cell: Graph = {}
        for edge, motif in graphs["cell"].items():
            cell[edge] = motif
            if motif != "none":
                content = tuple(graphs[motif].items())
                cell[edge] = numbers.setdefault(content, f"motif{len(numbers) + 1}")
        unused = dict.fromkeys(edges_of(self.motif_nodes), "none")
        unused[0, self.motif_nodes - 1] = "identity"
        used = {motif: dict(content) for content, motif in numbers.items()}
        forms = {motif: used.get(motif, unused) for motif in self._motifs} | {"cell": cell}
        return Architecture(self.name, picks_of(forms))

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {label: str(option) for label, option in picks_of(self._live(arch))}

    def build(self, builder: Builder) -> nn.Module:
        return build_network(self, functools.partial(self._cell, builder))

    def _cell(self, builder: Builder, c_in: int, c: int) -> tuple[Motif, int]:
        def motif(name: str, c_motif: int) -> nn.Module:
            made, c_made = build_graph(builder, name, self.motif_nodes, c_motif, primitives(c))
            return nn.Sequential(made, ConvBNReLU(c_in=c_made, c_out=c_motif, kernel_size=1))

        def options(c_edge: int) -> dict[str, Factory | None]:
            made: dict[str, Factory | None] = {"none": None}
            for name in self._motifs:
                made[name] = functools.partial(motif, name, c_edge)
            return made

        return build_graph(builder, "cell", self.nodes, c_in, options)

    def _live(self, arch: Architecture) -> dict[str, Graph]:
        picks = arch.as_dict()
        return {
            name: without_dead_edges(graph_of(picks, name, nodes))
            for name, nodes in self._graphs.items()
        }

    @property
    def graph_operations(self) -> tuple[str, ...]:
        return ("none", *PRIMITIVES, *self._motifs)

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The motifs and the cell, whose vertices are motifs; edges are vertices here."""
        picks = arch.as_dict()
        return {
            name: graph_of_edges(graph_of(picks, name, nodes))
            for name, nodes in self._graphs.items()
        }


@dataclass(frozen=True)
class FlatMotif:
    """The paper's flat representation: a cell that is one graph with operations on its edges.

    Args:
        channels: of the first stage; the later ones have twice and four times as many.
        cells: in each of the three stages.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        nodes: of the cell, input and output included; the paper's 11 have 55 edges.
    """

    channels: int = 16
    cells: int = 1
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)
    nodes: int = 11

    name = "hierarchical_flat/v1"
    paper = Hierarchical.paper
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "hierarchical_flat"))
        check_sizes(self, "hierarchical_flat", nodes=2)
        choices = [
            Choice(f"cell/{source}->{target}", ("none", *PRIMITIVES))
            for source, target in edges_of(self.nodes)
        ]
        object.__setattr__(self, "choices", tuple(choices))

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_edge(self.choices, {"cell": self.nodes}, prefix)

    def size(self) -> int:
        return count_connected(self.nodes, len(PRIMITIVES))

    def canonical(self, arch: Architecture) -> Architecture:
        """Without edges that lead nowhere."""
        return Architecture(self.name, picks_of({"cell": self._live(arch)}))

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {label: str(option) for label, option in picks_of({"cell": self._live(arch)})}

    def build(self, builder: Builder) -> nn.Module:
        return build_network(
            self, lambda c_in, c: build_graph(builder, "cell", self.nodes, c_in, primitives(c))
        )

    def _live(self, arch: Architecture) -> Graph:
        return without_dead_edges(graph_of(arch.as_dict(), "cell", self.nodes))

    graph_operations = ("none", *PRIMITIVES)

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The cell; its edges are vertices here."""
        return {"cell": graph_of_edges(graph_of(arch.as_dict(), "cell", self.nodes))}
