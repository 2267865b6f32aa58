"""The NAS-Bench-201 space: a cell of 4 nodes whose 6 edges take one of 5 operations.

Dong & Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
ICLR 2020. 15,625 architectures; the cell is stacked ``cells`` times in each of three stages with
``channels``, 2 and 4 times ``channels``, a residual block halving the size between stages.

What differs from the paper: any input size and class count; an average pool in the residual
blocks rounds odd sizes up, as the convolution beside it does. A cell's ``none`` edges are left
out of the network; operations that lead nowhere stay, because the benchmark's parameter and MAC
counts include them (``canonical`` takes them away).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder, Factory
from nas.encoding import CellGraph
from nas.errors import ConfigError, InvalidArchitecture, nearest
from nas.layers import GlobalAveragePool, ReLUConvBN, ResidualReduction
from nas.space import Legal, check_input, next_choice

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NODES = 4
EDGES = tuple((source, target) for target in range(1, NODES) for source in range(target))


class Cell(nn.Module):
    """A graph of nodes 0 (the input) to 3 (the output): each sums the edges that lead to it."""

    def __init__(self, edges: nn.ModuleDict) -> None:
        super().__init__()
        self.edges = edges

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = [x]
        for target in range(1, 4):
            terms = [
                self.edges[f"{source}_{target}"](states[source])
                for source in range(target)
                if f"{source}_{target}" in self.edges
            ]
            states.append(sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(x))
        return states[-1]


@dataclass(frozen=True)
class NasBench201:
    """NAS-Bench-201: cells of 4 nodes and 6 edges with 5 operations; 15,625 architectures.

    Args:
        channels: of the first stage; the later ones have twice and four times as many.
        cells: in each of the three stages.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).

    The defaults are the benchmark's own network for CIFAR-10.
    """

    channels: int = 16
    cells: int = 5
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)

    name = "nasbench201/v1"
    choices = tuple(Choice(f"{source}->{target}", OPERATIONS) for source, target in EDGES)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "nasbench201"))
        if len(self.input) != 3:
            raise ConfigError(
                f"nasbench201: input must be (channels, height, width), got {self.input}"
            )
        for argument in ("channels", "cells", "classes"):
            if getattr(self, argument) < 1:
                raise ConfigError(
                    f"nasbench201: {argument} must be at least 1, got {getattr(self, argument)}"
                )

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return int(len(OPERATIONS) ** len(EDGES))

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {label: str(option) for label, option in arch.picks}

    def canonical(self, arch: Architecture) -> Architecture:
        """Equal networks, equal form.

        Edges that cannot reach the output become ``none``, so do skips and pools of a node that
        is always zero; and where nodes 1 and 2 are not joined, the smaller of the two namings
        stands for both.
        """
        operations = _without_dead_edges(dict(zip(EDGES, _operations(arch), strict=True)))
        forms = [operations]
        if operations[1, 2] == "none":
            swap = {0: 0, 1: 2, 2: 1, 3: 3}
            forms.append(
                {
                    (a, b): "none" if (a, b) == (1, 2) else operations[swap[a], swap[b]]
                    for a, b in EDGES
                }
            )
        best = min(forms, key=lambda form: [OPERATIONS.index(form[edge]) for edge in EDGES])
        return _architecture([best[edge] for edge in EDGES])

    def build(self, builder: Builder) -> nn.Module:
        c_in = self.input[0]
        stages: list[nn.Module] = []
        c = self.channels
        for stage in range(3):
            if stage:
                stages.append(ResidualReduction(c_in=c, c_out=2 * c))
                c = 2 * c
            stages.extend(_cell(builder, c) for _ in range(self.cells))
        stem = nn.Sequential(
            nn.Conv2d(c_in, self.channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(self.channels),
        )
        return nn.Sequential(
            stem,
            nn.Sequential(*stages),
            nn.BatchNorm2d(c),
            nn.ReLU(),
            GlobalAveragePool(),
            nn.Linear(c, self.classes),
        )

    def parameters_and_macs(self, arch: Architecture) -> tuple[int, int]:
        """Both in closed form, without building anything.

        The benchmark's own table counts the classifier's bias additions as well: its FLOPs are
        these MACs plus ``classes``.
        """
        counts = [_operations(arch).count(f"nor_conv_{k}x{k}") for k in (1, 3)]
        c_in, height, width = self.input
        c = self.channels
        parameters = 9 * c_in * c + 2 * c
        macs = 9 * c_in * c * height * width
        for stage in range(3):
            if stage:
                height, width = -(-height // 2), -(-width // 2)
                convolutions = 9 * c * 2 * c + 9 * 2 * c * 2 * c + c * 2 * c
                parameters += convolutions + 8 * c
                macs += convolutions * height * width
                c = 2 * c
            for number, kernel_size in zip(counts, (1, 3), strict=True):
                weights = self.cells * number * kernel_size**2 * c * c
                parameters += weights + self.cells * number * 2 * c
                macs += weights * height * width
        parameters += 2 * c + c * self.classes + self.classes
        macs += c * self.classes
        return parameters, macs

    def parse(self, text: str) -> Architecture:
        """Reads ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|…~0|…~1|…~2|``."""
        operations = []
        nodes = text.strip().split("+")
        if len(nodes) != NODES - 1:
            raise InvalidArchitecture(
                f"expected {NODES - 1} nodes joined by '+', as in "
                f"'|op~0|+|op~0|op~1|+|op~0|op~1|op~2|'; got {text!r:.200}"
            )
        for target, node in enumerate(nodes, start=1):
            edges = node.strip("|").split("|")
            if len(edges) != target:
                raise InvalidArchitecture(
                    f"node {target} needs {target} edges, got {len(edges)} in {node!r}"
                )
            for source, edge in enumerate(edges):
                match = re.fullmatch(r"(\w+)~(\d)", edge)
                if match is None or int(match.group(2)) != source:
                    raise InvalidArchitecture(
                        f"node {target}: expected 'operation~{source}', got {edge!r}"
                    )
                if match.group(1) not in OPERATIONS:
                    raise InvalidArchitecture(
                        f"node {target}: no operation {match.group(1)!r}: "
                        f"{nearest(match.group(1), OPERATIONS)}"
                    )
                operations.append(match.group(1))
        return _architecture(operations)

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads."""
        operations = dict(zip(EDGES, _operations(arch), strict=True))
        return "+".join(
            "|" + "".join(f"{operations[source, target]}~{source}|" for source in range(target))
            for target in range(1, NODES)
        )

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The cell with its operations as vertices: each edge of the cell is a vertex here."""
        edges = list(EDGES)
        operations = ("input", *_operations(arch), "output")
        links = set()
        for index, (source, target) in enumerate(edges, start=1):
            if source == 0:
                links.add((0, index))
            if target == NODES - 1:
                links.add((index, len(edges) + 1))
            for other, (next_source, _) in enumerate(edges, start=1):
                if target == next_source:
                    links.add((index, other))
        return {"cell": CellGraph(operations, frozenset(links))}

    graph_operations = OPERATIONS
    longest_path = NODES - 1


def _cell(builder: Builder, c: int) -> Cell:
    options: dict[str, Factory | None] = {
        "none": None,
        "skip_connect": nn.Identity,
        "nor_conv_1x1": lambda: ReLUConvBN(c_in=c, c_out=c, kernel_size=1),
        "nor_conv_3x3": lambda: ReLUConvBN(c_in=c, c_out=c, kernel_size=3),
        "avg_pool_3x3": lambda: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    }
    edges = nn.ModuleDict()
    for source, target in EDGES:
        operation = builder.edge(f"{source}->{target}", options)
        if operation is not None:
            edges[f"{source}_{target}"] = operation
    return Cell(edges)


def _operations(arch: Architecture) -> list[str]:
    return [str(option) for _, option in arch.picks]


def _architecture(operations: list[str]) -> Architecture:
    labels = [choice.label for choice in NasBench201.choices]
    return Architecture(NasBench201.name, tuple(zip(labels, operations, strict=True)))


def _without_dead_edges(operations: dict[tuple[int, int], str]) -> dict[tuple[int, int], str]:
    live = dict(operations)
    before: dict[tuple[int, int], str] = {}
    while before != live:
        before = dict(live)
        for source, target in EDGES:
            leads_on = target == NODES - 1 or any(
                live[target, after] != "none" for after in range(target + 1, NODES)
            )
            # A convolution of zeros is not zero: its batch norm shifts it.
            zero = source > 0 and all(live[first, source] == "none" for first in range(source))
            passes_zero_on = live[source, target] in ("skip_connect", "avg_pool_3x3")
            if not leads_on or (zero and passes_zero_on):
                live[source, target] = "none"
    return live
