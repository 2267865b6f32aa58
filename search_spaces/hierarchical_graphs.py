"""Graphs of operations and of motifs: which are legal, how many there are, and their networks.

What ``search_spaces.hierarchical`` makes its spaces of.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import nn

from nas.architecture import Choice, Scalar
from nas.builder import Builder, Factory
from nas.errors import ConfigError
from nas.layers import ConvBNReLU, GlobalAveragePool
from nas.space import Legal

PRIMITIVES = (
    "conv_1x1",
    "depthwise_conv_3x3",
    "separable_conv_3x3",
    "max_pool_3x3",
    "avg_pool_3x3",
    "identity",
)
STAGES = 3

# What is on each edge of a graph, (source, target) in the order of targets; "none" for no edge.
Graph = dict[tuple[int, int], str]


class DepthwiseConvBNReLU(nn.Module):
    """3×3 depthwise convolution that keeps the size, batch norm, ReLU."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.c = c
        self.conv = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)
        self.norm = nn.BatchNorm2d(c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.norm(self.conv(x)))


class SeparableConvBNReLU(nn.Module):
    """3×3 depthwise and 1×1 pointwise convolution, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.stride = stride
        self.depthwise = nn.Conv2d(c_in, c_in, 3, stride, padding=1, groups=c_in, bias=False)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.norm(self.pointwise(self.depthwise(x))))


class Motif(nn.Module):
    """A graph with a module on each edge: a node concatenates what its edges give.

    Node 0 is the input, the last one the output.
    """

    def __init__(self, nodes: int, edges: nn.ModuleDict) -> None:
        super().__init__()
        self.nodes = nodes
        self.edges = edges

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = {0: x}
        for target in range(1, self.nodes):
            terms = [
                self.edges[f"{source}_{target}"](states[source])
                for source in range(target)
                if f"{source}_{target}" in self.edges
            ]
            if len(terms) > 0:
                states[target] = torch.cat(terms, dim=1)
        return states[self.nodes - 1]


# ---------------------------------------------------------------------------------- graphs


def count_connected(nodes: int, operations: int) -> int:
    """How many graphs have a way from input to output, with or without each edge.

    A node is reached unless all of its edges from reached nodes are ``none``; what is on its
    other edges is free.
    """
    by_reached = {1: 1}
    for before in range(1, nodes):
        following: dict[int, int] = {}
        last = before == nodes - 1
        for reached, number in by_reached.items():
            free = (operations + 1) ** (before - reached)
            joined = ((operations + 1) ** reached - 1) * free
            following[reached + 1] = following.get(reached + 1, 0) + number * joined
            if not last:
                following[reached] = following.get(reached, 0) + number * free
        by_reached = following
    return sum(by_reached.values())


def edges_of(nodes: int) -> list[tuple[int, int]]:
    """All possible edges, in the order of their targets."""
    return [(source, target) for target in range(1, nodes) for source in range(target)]


def graph_of(picks: Mapping[str, Scalar], name: str, nodes: int) -> Graph:
    """What the picks put on the edges of the graph of this name."""
    return {(s, t): str(picks[f"{name}/{s}->{t}"]) for s, t in edges_of(nodes)}


def picks_of(graphs: Mapping[str, Graph]) -> tuple[tuple[str, Scalar], ...]:
    """The picks of these graphs, by their names."""
    return tuple(
        (f"{name}/{source}->{target}", option)
        for name, graph in graphs.items()
        for (source, target), option in graph.items()
    )


def next_edge(
    choices: tuple[Choice, ...], graphs: Mapping[str, int], prefix: Mapping[str, Scalar]
) -> Legal | None:
    """The next edge; ``none`` only where the graph's output can still be reached without it."""
    for choice in choices:
        if choice.label in prefix:
            continue
        name = choice.label.partition("/")[0]
        nodes = graphs[name]
        reached = {0}
        for source, target in edges_of(nodes):
            label = f"{name}/{source}->{target}"
            # What is still open may become an edge, but for this one.
            present = label != choice.label and prefix.get(label) != "none"
            if present and source in reached:
                reached.add(target)
        return choice, choice.options if nodes - 1 in reached else choice.options[1:]
    return None


def without_dead_edges(graph: Graph) -> Graph:
    """The same, ``none`` on all edges that are on no way from input to output."""
    last = max(target for _, target in graph)
    reached, leading = {0}, {last}
    for source, target in sorted(graph):
        if source in reached and graph[source, target] != "none":
            reached.add(target)
    for source, target in sorted(graph, reverse=True):
        if target in leading and graph[source, target] != "none":
            leading.add(source)
    return {
        (source, target): option if source in reached and target in leading else "none"
        for (source, target), option in graph.items()
    }


# ---------------------------------------------------------------------------------- networks


class Sizes(Protocol):
    """What the spaces have in common."""

    @property
    def channels(self) -> int: ...

    @property
    def cells(self) -> int: ...

    @property
    def classes(self) -> int: ...

    @property
    def input(self) -> tuple[int, ...]: ...


def primitives(c: int) -> Callable[[int], dict[str, Factory | None]]:
    """The operations of level 1 in a stage of so many channels, by the channels they take."""

    def options(c_in: int) -> dict[str, Factory | None]:
        return {
            "none": None,
            "conv_1x1": functools.partial(ConvBNReLU, c_in=c_in, c_out=c, kernel_size=1),
            "depthwise_conv_3x3": functools.partial(DepthwiseConvBNReLU, c=c_in),
            "separable_conv_3x3": functools.partial(SeparableConvBNReLU, c_in=c_in, c_out=c),
            "max_pool_3x3": functools.partial(nn.MaxPool2d, 3, stride=1, padding=1),
            "avg_pool_3x3": functools.partial(
                nn.AvgPool2d, 3, stride=1, padding=1, count_include_pad=False
            ),
            "identity": nn.Identity,
        }

    return options


def build_graph(
    builder: Builder,
    name: str,
    nodes: int,
    c_in: int,
    options: Callable[[int], Mapping[str, Factory | None]],
) -> tuple[Motif, int]:
    """A graph's module, and the channels of its output."""
    widths = {0: c_in}
    edges = nn.ModuleDict()
    for source, target in edges_of(nodes):
        if source not in widths:
            continue
        made = builder.edge(f"{name}/{source}->{target}", options(widths[source]))
        if made is not None:
            edges[f"{source}_{target}"] = made
            # What does not say how many channels it gives, gives as many as it takes.
            c_edge = int(getattr(made, "c_out", widths[source]))
            widths[target] = widths.get(target, 0) + c_edge
    return Motif(nodes, edges), widths[nodes - 1]


def build_network(space: Sizes, cell: Callable[[int, int], tuple[Motif, int]]) -> nn.Module:
    """The image network around a cell, which is made from its channels and the stage's."""
    layers: list[nn.Module] = []
    c = space.channels
    for stage in range(STAGES):
        for index in range(space.cells):
            made, c_made = cell(c, c)
            between = index == space.cells - 1 and stage < STAGES - 1
            c_out = 2 * c if between else c
            layers.append(made)
            layers.append(SeparableConvBNReLU(c_in=c_made, c_out=c_out, stride=2 if between else 1))
            c = c_out
    return nn.Sequential(
        ConvBNReLU(c_in=space.input[0], c_out=space.channels, kernel_size=3),
        nn.Sequential(*layers),
        GlobalAveragePool(),
        nn.Linear(c, space.classes),
    )


def check_sizes(space: Sizes, where: str, **least: int) -> None:
    """Raises ``ConfigError`` for a size below the least."""
    if len(space.input) != 3:
        raise ConfigError(f"{where}: input must be (channels, height, width), got {space.input}")
    for argument, smallest in {"channels": 1, "cells": 1, "classes": 1, **least}.items():
        value = getattr(space, argument)
        if value < smallest:
            raise ConfigError(f"{where}: {argument} must be at least {smallest}, got {value}")
