"""The NAS-Bench-201 space: a cell of 4 nodes whose 6 edges take one of 5 operations.

Dong & Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
ICLR 2020. 15,625 architectures; the cell is stacked ``cells`` times in each of three stages with
``channels``, 2 and 4 times ``channels``, a residual block halving the size between stages.

What differs from the paper: any input size and class count; an average pool in the residual
blocks rounds odd sizes up, as the convolution beside it does. A cell's ``none`` edges are left
out of the network; operations that lead nowhere stay, because the benchmark's parameter and MAC
counts include them (``canonical`` takes them away). And fewer operations, where wanted.

Two foldings of the 15,625 cells:

* ``canonical`` identifies cells that compute the same function of the input and of their weights,
  with a one-to-one correspondence of the convolutions that matter: 5,234 forms. Folded are edges
  that cannot reach the output, nodes that are always zero, skips (a node is the sum of what is
  skipped to it), average pools of sums (pooling is linear, and leaves a constant map as it is),
  the names and the order of nodes and terms, and the kernel of a convolution of a zero node (it
  gives its norm's constant, whatever its kernel). Kept apart are one convolution that is used
  twice and two convolutions of the same input, which have weights of their own.
* ``unique_form`` is the paper's own simplification, which gives its 6,466. It writes each node as
  the sum of its terms, a skip being replaced by what its node says, and an edge that is ``none``
  or starts from a node ``#`` becoming ``#``. It does not keep functions: it takes one convolution
  used twice for two. And it does not find all equal ones: it counts the zeros of a sum, does not
  see that node 2 is zero when both of its edges are, and takes a sum in a sum for another sum.
  Without its rule for zeros it gives 12,751.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder, Factory
from nas.encoding import CellGraph, graph_of_edges
from nas.errors import ConfigError, InvalidArchitecture, nearest
from nas.layers import GlobalAveragePool, ReLUConvBN, ResidualReduction
from nas.space import Legal, check_input, next_choice
from nas.supernet.form import without_affine

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

    Fewer operations are a space of their own: ``nasbench201:none,skip_connect,nor_conv_3x3/v1``.

    Args:
        channels: of the first stage; the later ones have twice and four times as many.
        cells: in each of the three stages.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        operations: what an edge may be: two at least of ``OPERATIONS``, in their order.

    The defaults are the benchmark's own network for CIFAR-10.
    """

    channels: int = 16
    cells: int = 5
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)
    operations: tuple[str, ...] = OPERATIONS

    name = "nasbench201/v1"
    paper = "Dong & Yang, NAS-Bench-201, ICLR 2020"
    choices = tuple(Choice(f"{source}->{target}", OPERATIONS) for source, target in EDGES)
    graph_operations = OPERATIONS
    longest_path = NODES - 1

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
        operations = _checked_operations(self.operations)
        object.__setattr__(self, "operations", operations)
        if operations != OPERATIONS:
            choices = tuple(Choice(choice.label, operations) for choice in self.choices)
            object.__setattr__(self, "name", f"nasbench201:{','.join(operations)}/v1")
            object.__setattr__(self, "choices", choices)
            object.__setattr__(self, "graph_operations", operations)

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return int(len(self.operations) ** len(EDGES))

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {label: str(option) for label, option in arch.picks}

    def canonical(self, arch: Architecture) -> Architecture:
        """The first cell, in the order of the options, that computes the same function.

        Convolutions correspond one to one, but for those that do not matter: see the module.
        """
        forms = _representatives(self.operations)
        return self._architecture(forms[tuple(_operations(arch))])

    def adapt(self, network: nn.Module) -> None:
        """The benchmark's search network: in cells no norm has scale and shift."""
        for module in network.modules():
            if isinstance(module, Cell):
                without_affine(module)

    def build(self, builder: Builder) -> nn.Module:
        stages: list[nn.Module] = []
        c = self.channels
        for stage in range(3):
            if stage:
                stages.append(builder.part(_reduction, c))
                c = 2 * c
            stages.extend(builder.part(_cell, c, self.operations) for _ in range(self.cells))
        return nn.Sequential(
            builder.part(_stem, self.input[0], self.channels),
            nn.Sequential(*stages),
            builder.part(_norm, c),
            nn.ReLU(),
            GlobalAveragePool(),
            builder.part(_classifier, c, self.classes),
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
                if match.group(1) not in self.operations:
                    raise InvalidArchitecture(
                        f"node {target}: no operation {match.group(1)!r}: "
                        f"{nearest(match.group(1), self.operations)}"
                    )
                operations.append(match.group(1))
        return self._architecture(operations)

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads."""
        operations = dict(zip(EDGES, _operations(arch), strict=True))
        return "+".join(
            "|" + "".join(f"{operations[source, target]}~{source}|" for source in range(target))
            for target in range(1, NODES)
        )

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The cell with its operations as vertices: each edge of the cell is a vertex here."""
        return {"cell": graph_of_edges(dict(zip(EDGES, _operations(arch), strict=True)))}

    def _architecture(self, operations: Sequence[str]) -> Architecture:
        labels = [choice.label for choice in self.choices]
        return Architecture(self.name, tuple(zip(labels, operations, strict=True)))


def _checked_operations(value: Sequence[str]) -> tuple[str, ...]:
    for operation in value:
        if operation not in OPERATIONS:
            raise ConfigError(
                f"nasbench201: no operation {operation!r}: {nearest(operation, OPERATIONS)}"
            )
    operations = tuple(operation for operation in OPERATIONS if operation in value)
    if tuple(value) != operations or len(operations) < 2:
        raise ConfigError(
            "nasbench201: operations must be two at least, each once, in the order "
            f"{', '.join(OPERATIONS)}; got {value!r}"
        )
    return operations


def _stem(builder: Builder, c_in: int, c_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out))


def _norm(builder: Builder, c: int) -> nn.Module:
    return nn.BatchNorm2d(c)


def _classifier(builder: Builder, c: int, classes: int) -> nn.Module:
    return nn.Linear(c, classes)


def _reduction(builder: Builder, c: int) -> nn.Module:
    return ResidualReduction(c_in=c, c_out=2 * c)


def _cell(builder: Builder, c: int, operations: Sequence[str]) -> Cell:
    factories: dict[str, Factory | None] = {
        "none": None,
        "skip_connect": nn.Identity,
        "nor_conv_1x1": functools.partial(ReLUConvBN, c_in=c, c_out=c, kernel_size=1),
        "nor_conv_3x3": functools.partial(ReLUConvBN, c_in=c, c_out=c, kernel_size=3),
        "avg_pool_3x3": functools.partial(
            nn.AvgPool2d, 3, stride=1, padding=1, count_include_pad=False
        ),
    }
    options = {operation: factories[operation] for operation in operations}
    edges = nn.ModuleDict()
    for source, target in EDGES:
        operation = builder.edge(f"{source}->{target}", options)
        if operation is not None:
            edges[f"{source}_{target}"] = operation
    return Cell(edges)


def _operations(arch: Architecture) -> list[str]:
    return [str(option) for _, option in arch.picks]


# ------------------------------------------------------------------------------ equal cells


def unique_form(arch: Architecture) -> str:
    """The paper's name for a class of isomorphic cells: 6,466 different ones (see the module)."""
    operations = dict(zip(EDGES, _operations(arch), strict=True))
    nodes = ["0"]
    for target in range(1, NODES):
        terms = []
        for source in range(target):
            operation = operations[source, target]
            if operation == "none" or nodes[source] == "#":
                terms.append("#")
            elif operation == "skip_connect":
                terms.append(nodes[source])
            else:
                terms.append(f"({nodes[source]})@{operation}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


# A node is a sum: how often each source, pooled so many times, is a term of it. A source is the
# cell's input (-1) or a convolution, by its number.
_Sum = dict[tuple[int, int], int]
_Form = tuple[tuple[int, ...], tuple[tuple[tuple[tuple[int, int], int], ...], ...]]


@functools.cache
def _representatives(options: tuple[str, ...]) -> Mapping[tuple[str, ...], Sequence[str]]:
    first: dict[_Form, Sequence[str]] = {}
    return {
        operations: first.setdefault(_form(operations), operations)
        for operations in itertools.product(options, repeat=len(EDGES))
    }


def _form(operations: Sequence[str]) -> _Form:
    """The function of a cell: kernels, then what the output and each convolution sum up.

    Convolutions are numbered by what they compute; where several look the same, by the numbering
    that gives the smallest form.
    """
    by_edge = dict(zip(EDGES, operations, strict=True))
    kernels: list[int] = []
    inputs: list[_Sum] = []
    looks: list[str] = []
    constant: set[int] = set()
    nodes: list[_Sum] = [{(0, -1): 1}]
    for target in range(1, NODES):
        node: _Sum = {}
        for source in range(target):
            operation = by_edge[source, target]
            if operation == "none":
                continue
            if operation.startswith("nor_conv"):
                # A convolution of zeros is not zero: its norm shifts it.
                kernel = 3 if operation == "nor_conv_3x3" and nodes[source] else 1
                number = len(kernels)
                if kernel == 1 and all(term in constant for _, term in nodes[source]):
                    constant.add(number)
                looks.append(f"{kernel}({_looks(nodes[source], looks)})")
                kernels.append(kernel)
                inputs.append(nodes[source])
                terms: _Sum = {(0, number): 1}
            else:
                pooled = int(operation == "avg_pool_3x3")
                terms = {
                    (pools + (pooled if term not in constant else 0), term): times
                    for (pools, term), times in nodes[source].items()
                }
            for key, times in terms.items():
                node[key] = node.get(key, 0) + times
        nodes.append(node)
    alike: dict[str, list[int]] = {}
    for number in sorted(_reached(nodes[-1], inputs)):
        alike.setdefault(looks[number], []).append(number)
    forms: list[_Form] = []
    for orders in itertools.product(
        *(itertools.permutations(alike[look]) for look in sorted(alike))
    ):
        order = [number for numbers in orders for number in numbers]
        names = {-1: -1} | {number: name for name, number in enumerate(order)}
        sums = [nodes[-1], *(inputs[number] for number in order)]
        forms.append(
            (
                tuple(kernels[number] for number in order),
                tuple(
                    tuple(
                        sorted(((pools, names[term]), times) for (pools, term), times in s.items())
                    )
                    for s in sums
                ),
            )
        )
    return min(forms)


def _looks(node: _Sum, looks: Sequence[str]) -> str:
    return "+".join(
        sorted(
            f"{times}p{pools}{looks[term] if term >= 0 else 'x'}"
            for (pools, term), times in node.items()
        )
    )


def _reached(output: _Sum, inputs: Sequence[_Sum]) -> set[int]:
    """The convolutions that take part in the output."""
    reached: set[int] = set()
    waiting = [output]
    while waiting:
        for _, term in waiting.pop():
            if term >= 0 and term not in reached:
                reached.add(term)
                waiting.append(inputs[term])
    return reached
