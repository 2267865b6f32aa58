"""The NAS-Bench-101 space: a cell of up to 7 vertices and 9 links with 3 operations.

Ying, Klein, Christiansen, Real, Murphy & Hutter, "NAS-Bench-101: Towards Reproducible Neural
Architecture Search", ICML 2019. Three stacks of three cells; a 2×2 max pool and twice the channels
between stacks. A vertex sums what leads to it (the input through a 1×1 projection), the output
concatenates, and adds the projected input where that leads to it directly; the output's channels
are divided among the vertices that lead to it.

Picks are the 21 links, then the operations of the vertices that take part: those on a way from
input to output. Many sequences of picks (``size``) mean one cell. The benchmark's 423,624 cells are
those that ``canonical`` tells apart: it takes away what takes no part and renumbers isomorphic
cells alike. So does the benchmark's hash (``cell_hash``), and for these sizes the two agree.
Isomorphic cells compute the same where the output's channels divide evenly; where they do not,
the vertex that comes first in a cell gets the spare one, and the benchmark overlooks that too.

``sample`` of nas.space is uniform over decisions and fills the links from the first column on;
``sample_uniformly`` is uniform over sequences of picks. What differs from the paper: any input
size, class count, number of stacks and cells; batch norm has torch's momentum. Widths depend on
the graph, so there is no mixture of links.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder, Factory
from nas.encoding import CellGraph
from nas.errors import ConfigError, InvalidArchitecture
from nas.layers import ConvBNReLU, GlobalAveragePool
from nas.points import Point
from nas.space import Legal, check_input
from search_spaces.nasbench101_cells import (
    OPERATIONS,
    Links,
    cell_hash,
    edges,
    number_of_picks,
    operation_number,
    pruned,
    smallest_form,
    taking_part,
    vertex_channels,
)
from search_spaces.nasbench101_text import ABSENT, OUTPUT, SHORT, read_compact, read_matrix


class Cell(nn.Module):
    """A graph of vertices: 0 is the cell's input, each later one takes what ``inputs`` lists.

    Inner vertices sum the first ``channels`` of what they take and apply their operation, those
    that take nothing are not there. The last vertex, the output, concatenates. Whoever takes the
    cell's input adds a projection of it.
    """

    def __init__(
        self,
        inputs: tuple[tuple[int, ...], ...],
        channels: tuple[int, ...],
        projections: nn.ModuleDict,
        operations: nn.ModuleDict,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.channels = channels
        self.projections = projections
        self.operations = operations

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output = len(self.inputs)
        states = {0: x}
        for vertex in range(1, output):
            taken = self.inputs[vertex - 1]
            if len(taken) > 0:
                c = self.channels[vertex - 1]
                terms = [states[source][:, :c] for source in taken if source > 0]
                if 0 in taken:
                    terms.append(self.projections[f"{vertex}"](x))
                states[vertex] = self.operations[f"{vertex}"](sum(terms[1:], start=terms[0]))
        taken = self.inputs[-1]
        joined = [states[source] for source in taken if source > 0]
        terms = [torch.cat(joined, dim=1)] if len(joined) > 0 else []
        if 0 in taken:
            terms.append(self.projections[f"{output}"](x))
        return sum(terms[1:], start=terms[0])


@dataclass(frozen=True)
class NasBench101:
    """NAS-Bench-101: cells of 7 vertices and at most 9 links with 3 operations.

    Args:
        channels: of the stem and the first stack; each later stack has twice as many.
        stacks: how many, with a pool that halves the size between them.
        cells: in each stack.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        vertices: of a cell, input and output included.
        links: of a cell at most.

    The defaults are the benchmark's own network for CIFAR-10.
    """

    channels: int = 128
    stacks: int = 3
    cells: int = 3
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)
    vertices: int = 7
    links: int = 9

    name = "nasbench101/v1"
    paper = "Ying et al., NAS-Bench-101, ICML 2019"
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)
    points: ClassVar[Mapping[str, Point]] = {
        "inception": Point(
            "1x1~0 3x3~0 3x3~0 3x3~3 pool~0 out~1+2+4+5",
            "Ying et al., NAS-Bench-101: the example of its code, an Inception-like cell",
        ),
    }

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "nasbench101"))
        if len(self.input) != 3:
            raise ConfigError(
                f"nasbench101: input must be (channels, height, width), got {self.input}"
            )
        for argument, least, most in (
            ("channels", max(1, self.vertices - 2), None),
            ("stacks", 1, None),
            ("cells", 1, None),
            ("classes", 1, None),
            ("vertices", 2, 7),
            ("links", 1, None),
        ):
            value = getattr(self, argument)
            if value < least or (most is not None and value > most):
                expected = f"at least {least}" if most is None else f"from {least} to {most}"
                raise ConfigError(f"nasbench101: {argument} must be {expected}, got {value}")
        choices = [Choice(f"{source}->{target}", (0, 1)) for source, target in self._edges]
        choices += [Choice(f"op{vertex}", OPERATIONS) for vertex in self._inner]
        object.__setattr__(self, "choices", tuple(choices))

    @property
    def _edges(self) -> tuple[tuple[int, int], ...]:
        return edges(self.vertices)

    @property
    def _inner(self) -> range:
        return range(1, self.vertices - 1)

    # ------------------------------------------------------------------------------ choices

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        bits: list[Scalar] = []
        for choice in self.choices[: len(self._edges)]:
            if choice.label not in prefix:
                return choice, tuple(
                    bit for bit in (0, 1) if _completes((*bits, bit), self.vertices, self.links)
                )
            bits.append(prefix[choice.label])
        kept = taking_part(_links(prefix, self._edges), self.vertices)
        for vertex, choice in zip(self._inner, self.choices[len(self._edges) :], strict=True):
            if vertex in kept and choice.label not in prefix:
                return choice, choice.options
        return None

    def size(self) -> int:
        """How many sequences of picks there are, not how many different cells."""
        return number_of_picks(self.vertices, self.links)

    def sample_uniformly(self, rng: np.random.Generator) -> Architecture:
        """A random architecture: all sequences of picks are equally likely."""
        while True:
            bits = rng.integers(2, size=len(self._edges))
            links = frozenset(edge for edge, bit in zip(self._edges, bits, strict=True) if bit)
            kept = taking_part(links, self.vertices) if len(links) <= self.links else ()
            # A matrix stands for as many architectures as its vertices have operations.
            absent = self.vertices - len(kept)
            if kept and rng.random() < len(OPERATIONS) ** -absent:
                drawn = rng.integers(len(OPERATIONS), size=len(kept) - 2)
                return self._architecture(links, dict(zip(kept[1:-1], drawn.tolist(), strict=True)))

    def canonical(self, arch: Architecture) -> Architecture:
        """The form of all isomorphic cells: vertices that take part first, in the least order.

        See ``smallest_form`` in nasbench101_cells for what is least.
        """
        links, kept = pruned(self._links(arch), self.vertices)
        numbers = [operation_number(str(arch[f"op{vertex}"])) for vertex in kept[1:-1]]
        links, operations = smallest_form(links, numbers, len(kept))
        return self._architecture(
            frozenset((source, self._place(target, len(kept))) for source, target in links),
            dict(enumerate(operations, start=1)),
        )

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        links = self._links(arch)
        kept = taking_part(links, self.vertices)
        slots: dict[str, str] = {}
        for vertex in range(1, self.vertices):
            taken = [source for source in kept if vertex in kept and (source, vertex) in links]
            slots[f"inputs/{vertex}"] = "+".join(map(str, taken))
            if taken and vertex in self._inner:
                slots[f"op{vertex}"] = str(arch[f"op{vertex}"])
        return slots

    # ------------------------------------------------------------------------------ network

    def build(self, builder: Builder) -> nn.Module:
        c = self.channels
        layers: list[nn.Module] = []
        for stack in range(self.stacks):
            if stack:
                layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
            for _ in range(self.cells):
                c_out = self.channels * 2**stack
                layers.append(self._cell(builder, c, c_out))
                c = c_out
        return nn.Sequential(
            ConvBNReLU(c_in=self.input[0], c_out=self.channels, kernel_size=3),
            nn.Sequential(*layers),
            GlobalAveragePool(),
            nn.Linear(c, self.classes),
        )

    def _cell(self, builder: Builder, c_in: int, c_out: int) -> Cell:
        output = self.vertices - 1
        inputs = tuple(builder.subset(f"inputs/{v}", of=v) for v in range(1, self.vertices))
        kept = [0, *(v for v in range(1, self.vertices) if inputs[v - 1])]
        links = frozenset((source, v) for v in kept[1:] for source in inputs[v - 1])
        channels = {**vertex_channels(links, kept, c_out), output: c_out}
        projections, operations = nn.ModuleDict(), nn.ModuleDict()
        for vertex in kept[1:]:
            c = channels[vertex]
            if 0 in inputs[vertex - 1]:
                projections[f"{vertex}"] = ConvBNReLU(c_in=c_in, c_out=c, kernel_size=1)
            if vertex != output:
                options: dict[str, Factory] = {
                    OPERATIONS[0]: functools.partial(ConvBNReLU, c_in=c, c_out=c, kernel_size=3),
                    OPERATIONS[1]: functools.partial(ConvBNReLU, c_in=c, c_out=c, kernel_size=1),
                    OPERATIONS[2]: functools.partial(nn.MaxPool2d, 3, stride=1, padding=1),
                }
                operations[f"{vertex}"] = builder.slot(f"op{vertex}", options)
        widths = tuple(channels.get(vertex, 0) for vertex in range(1, self.vertices))
        return Cell(inputs, widths, projections, operations)

    # ---------------------------------------------------------------------------- notations

    def model_spec(self, arch: Architecture) -> tuple[list[list[int]], list[str]]:
        """Matrix and operations as the benchmark takes them, without what takes no part."""
        links, kept = pruned(self._links(arch), self.vertices)
        matrix = [[int((u, v) in links) for v in range(len(kept))] for u in range(len(kept))]
        return matrix, ["input", *(str(arch[f"op{vertex}"]) for vertex in kept[1:-1]), "output"]

    def cell_hash(self, arch: Architecture) -> str:
        """The benchmark's name for the cell, by which its tables are asked."""
        return cell_hash(*self.model_spec(arch))

    def parse(self, text: str) -> Architecture:
        """Reads a matrix with operations, or the compact notation that ``format`` writes.

        The first as in ``[[0, 1, 0], [0, 0, 1], [0, 0, 0]] ['input', 'maxpool3x3', 'output']``,
        also within ``ModelSpec(matrix=…, ops=…)``; the second as in ``pool~0 out~1``. Both may
        have fewer vertices than the space. A matrix with too many links is read without those
        that take no part.
        """
        inputs, operations = read_matrix(text) if "[" in text else read_compact(text)
        if not 1 <= len(inputs) < self.vertices:
            raise InvalidArchitecture(
                f"nasbench101: expected 2 to {self.vertices} vertices, got {len(inputs) + 1} in "
                f"{text!r:.200}"
            )
        links = frozenset(
            (source, self._place(vertex, len(inputs) + 1))
            for vertex, taken in enumerate(inputs, start=1)
            for source in taken
        )
        kept = taking_part(links, self.vertices)
        if not kept:
            raise InvalidArchitecture(
                f"nasbench101: no way leads from input to output in {text!r:.200}"
            )
        if len(links) > self.links:
            links = frozenset(link for link in links if set(link) <= set(kept))
        if len(links) > self.links:
            raise InvalidArchitecture(
                f"nasbench101: {len(links)} links in {text!r:.200}, expected at most {self.links}"
            )
        numbers: dict[int, int] = {}
        for vertex in kept[1:-1]:
            operation = operations[vertex - 1]
            if operation is None:
                raise InvalidArchitecture(
                    f"nasbench101: vertex {vertex} takes part but has no operation in {text!r:.200}"
                )
            numbers[vertex] = operation_number(operation)
        return self._architecture(links, numbers)

    def format(self, arch: Architecture) -> str:
        """The operation of each vertex and where it takes its inputs: ``1x1~0 3x3~0+1 out~2``."""
        links, picks = self._links(arch), arch.as_dict()
        short = {operation: name for name, operation in SHORT.items()}
        words = []
        for vertex in range(1, self.vertices):
            name = OUTPUT if vertex == self.vertices - 1 else ABSENT
            if f"op{vertex}" in picks:
                name = short[str(picks[f"op{vertex}"])]
            taken = "+".join(str(source) for source in range(vertex) if (source, vertex) in links)
            words.append(f"{name}~{taken}" if taken else name)
        return " ".join(words)

    # ------------------------------------------------------------------------------- graphs

    graph_operations = ("none", *OPERATIONS)

    @property
    def longest_path(self) -> int:
        return self.vertices - 2

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The cell with all its vertices; those that take no part are ``none`` and unlinked."""
        picks, links = arch.as_dict(), self._links(arch)
        kept = taking_part(links, self.vertices)
        inner = (str(picks.get(f"op{vertex}", "none")) for vertex in self._inner)
        return {
            "cell": CellGraph(
                ("input", *inner, "output"),
                frozenset(link for link in links if set(link) <= set(kept)),
            )
        }

    # ------------------------------------------------------------------------------ helpers

    def _links(self, arch: Architecture) -> Links:
        return _links(arch.as_dict(), self._edges)

    def _place(self, vertex: int, vertices: int) -> int:
        """Where a vertex of a cell with fewer vertices goes: the output is always the last."""
        return self.vertices - 1 if vertex == vertices - 1 else vertex

    def _architecture(self, links: Links, operations: Mapping[int, int]) -> Architecture:
        picks: dict[str, Scalar] = {f"{s}->{t}": int((s, t) in links) for s, t in self._edges}
        picks |= {f"op{v}": OPERATIONS[number] for v, number in sorted(operations.items())}
        return Architecture(self.name, tuple(picks.items()))


def _links(picks: Mapping[str, Scalar], pairs: Sequence[tuple[int, int]]) -> Links:
    return frozenset((source, target) for source, target in pairs if picks[f"{source}->{target}"])


@functools.lru_cache(maxsize=65536)
def _completes(bits: tuple[Scalar, ...], vertices: int, most: int) -> bool:
    """Whether a way from input to output is still possible with the links that are left."""
    pairs = edges(vertices)
    # How many more links the shortest way to a vertex needs; those still open cost one.
    cost = dict.fromkeys(pairs[len(bits) :], 1)
    cost |= {pair: 0 for pair, bit in zip(pairs, bits, strict=False) if bit}
    needed = {0: 0}
    for source, target in pairs:
        if source in needed and (source, target) in cost:
            through = needed[source] + cost[source, target]
            needed[target] = min(needed.get(target, through), through)
    return vertices - 1 in needed and sum(map(bool, bits)) + needed[vertices - 1] <= most
