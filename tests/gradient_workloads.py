"""Searches by gradients small enough to be repeated many times: a space, data, the contract."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from nas.architecture import Architecture, Choice, Scalar
from nas.data import Data, from_datasets
from nas.layers import GlobalAveragePool, ReLUConvBN
from nas.objective import maximize
from nas.space import next_choice
from nas.testing import StrategyContract
from strategies.gradient import GradientSettings

OPTIONS = ("none", "skip_connect", "pool", "conv_1x1", "conv_3x3")
EDGES = ("0->1", "0->2", "1->2")


class Triangle(nn.Module):
    """Nodes 0 to 2, each the sum of the edges that lead to it; 2 is the output."""

    def __init__(self, edges: nn.ModuleDict) -> None:
        super().__init__()
        self.edges = edges

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.edges["0_1"](x) if "0_1" in self.edges else torch.zeros_like(x)
        second = torch.zeros_like(x)
        if "0_2" in self.edges:
            second = second + self.edges["0_2"](x)
        if "1_2" in self.edges:
            second = second + self.edges["1_2"](first)
        return second


@dataclass(frozen=True)
class Edges:
    """One cell of three edges: 125 architectures."""

    channels: int = 4
    classes: int = 3
    input: tuple[int, ...] = (2, 4, 4)

    name = "edges/v1"
    choices = tuple(Choice(label, OPTIONS) for label in EDGES)

    def legal(self, prefix: Mapping[str, Scalar]) -> Any:
        return next_choice(self.choices, prefix)

    def canonical(self, arch: Architecture) -> Architecture:
        return arch

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {label: str(option) for label, option in arch.picks}

    def build(self, builder: Any) -> nn.Module:
        c = self.channels
        conv = functools.partial(ReLUConvBN, c_in=c, c_out=c)
        options = {
            "none": None,
            "skip_connect": nn.Identity,
            "pool": functools.partial(nn.AvgPool2d, 3, stride=1, padding=1),
            "conv_1x1": functools.partial(conv, kernel_size=1),
            "conv_3x3": functools.partial(conv, kernel_size=3),
        }
        edges = nn.ModuleDict()
        for label in EDGES:
            edge = builder.edge(label, options)
            if edge is not None:
                edges[label.replace("->", "_")] = edge
        return nn.Sequential(
            nn.Conv2d(self.input[0], c, 3, padding=1, bias=False),
            nn.BatchNorm2d(c),
            Triangle(edges),
            GlobalAveragePool(),
            nn.Linear(c, self.classes),
        )


def patterns(shape: tuple[int, ...] = (2, 4, 4), examples: int = 24, classes: int = 3) -> Data:
    """Random images, of each class around a pattern of its own."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, *shape, generator=generator)
    labels = torch.arange(examples) % classes
    images = centres[labels] + 0.7 * torch.randn(examples, *shape, generator=generator)
    return from_datasets(TensorDataset(images, labels), classes=classes, name="patterns")


def described(shape: tuple[int, ...] = (2, 4, 4), examples: int = 24, classes: int = 3) -> Data:
    """The same as a component that is known by its call."""
    source = {
        "name": "gradient_workloads:patterns",
        "shape": list(shape),
        "examples": examples,
        "classes": classes,
    }
    return replace(patterns(shape, examples, classes), source=source)


QUICK = {"batch_size": 6, "epochs": 6, "warmup_epochs": 0, "arch_lr": 0.05}
"""What makes a strategy's own settings small."""


def quick(settings: GradientSettings, **changes: Any) -> GradientSettings:
    """A strategy's settings with few, small steps."""
    return replace(settings, **{**QUICK, **changes})


class GradientContract(StrategyContract):
    """The contract of strategies, with a search of six small epochs."""

    trials = 6
    kind: type

    def arguments(self):
        return {}

    def spaces(self):
        return (Edges(),)

    def objectives(self):
        return ((maximize("score"),),)

    def strategy(self, space, objectives, seed):
        return self.kind(
            space,
            objectives,
            described(examples=12),
            seed,
            settings=quick(self.kind.settings),
            **self.arguments(),
        )
