"""The ENAS macro space: a whole network, an operation a layer and skips from any earlier layer.

Pham, Guan, Zoph, Le & Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML
2018. 12 layers with 6 operations and 66 skips: 6^12 × 2^66 networks. An operation reads the
layer before it; what the skips bring (from the stem or any layer before that) is added to its
output, and a batch norm follows. A third and two thirds of the way in, all earlier outputs that
are still needed are halved, each by a reduction of its own.

This is the network that the paper's shared weights train. Its final networks are trained anew
with a concatenation and a 1×1 convolution in place of the sum, which cannot share weights: here
there is one definition, the sum, for both. What else differs: reductions of outputs that nothing
reads any more are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder, Factory
from nas.encoding import CellGraph
from nas.errors import ConfigError, InvalidArchitecture
from nas.layers import ConvBNReLU, GlobalAveragePool
from nas.points import Point
from nas.space import Legal, check_input, from_picks, next_choice

OPERATIONS = (
    "conv_3x3",
    "sep_conv_3x3",
    "conv_5x5",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)
"""In the order of the authors' numbers, 0 to 5."""

# --------------------------------------------------------------------------------- modules


class ConvBranch(nn.Module):
    """1×1 convolution, then one of ``kernel_size``, each with norm and ReLU."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        self.mix = ConvBNReLU(channels, channels, kernel_size=1)
        self.conv = ConvBNReLU(channels, channels, kernel_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.mix(x))


class SeparableBranch(nn.Module):
    """1×1 convolution with norm and ReLU, then a depthwise separable one with norm and ReLU."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        self.mix = ConvBNReLU(channels, channels, kernel_size=1)
        self.depthwise = nn.Conv2d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False
        )
        self.pointwise = ConvBNReLU(channels, channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(self.mix(x)))


class AveragePoolBranch(nn.Module):
    """1×1 convolution with norm and ReLU, then a 3×3 average that leaves the padding out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.mix = ConvBNReLU(channels, channels, kernel_size=1)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.mix(x))


class MaxPoolBranch(nn.Module):
    """1×1 convolution with norm and ReLU, then a 3×3 maximum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.mix = ConvBNReLU(channels, channels, kernel_size=1)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.mix(x))


class ShiftedReduction(nn.Module):
    """Halves the size, rounding up: two 1×1 convolutions of stride 2, one pixel apart, joined.

    The second reads the map moved up and left by one, with zeros moved in.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(moved)], dim=1))


class SkipLayer(nn.Module):
    """An operation on the last of the states, plus what skips bring from others, and a norm.

    Args:
        operation: reads the last state.
        skips: from a state's index, as text, to the module that brings it.
        norm: of the sum.
    """

    def __init__(self, operation: nn.Module, skips: nn.ModuleDict, norm: nn.Module) -> None:
        super().__init__()
        self.operation = operation
        self.skips = skips
        self.norm = norm

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        total = self.operation(states[-1])
        for source, skip in self.skips.items():
            total = total + skip(states[int(source)])
        return self.norm(total)


class ReduceStates(nn.Module):
    """Halves the size of states.

    Args:
        reductions: under the states' indices, as text; a state without one is not read again.
    """

    def __init__(self, reductions: nn.ModuleDict) -> None:
        super().__init__()
        self.reductions = reductions

    def forward(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        return [
            self.reductions[str(index)](state) if str(index) in self.reductions else state
            for index, state in enumerate(states)
        ]


class SkipChain(nn.Module):
    """Layers that read all states before them: the stem's and those of the earlier layers.

    Args:
        stem: from the image to the first state.
        layers: each from the list of states to the next one.
        reductions: from a layer's index, as text, to what halves the states behind it.
        head: from the last state to the classes.
    """

    def __init__(
        self, stem: nn.Module, layers: nn.ModuleList, reductions: nn.ModuleDict, head: nn.Module
    ) -> None:
        super().__init__()
        self.stem = stem
        self.layers = layers
        self.reductions = reductions
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = [self.stem(x)]
        for index, layer in enumerate(self.layers):
            states.append(layer(states))
            if str(index) in self.reductions:
                states = self.reductions[str(index)](states)
        return self.head(states[-1])


# ----------------------------------------------------------------------------------- space


@dataclass(frozen=True)
class EnasMacro:
    """ENAS macro: an operation a layer, and a skip or none from each state but the last.

    Args:
        layers: how many.
        channels: of the stem and the first third.
        growth: by what the channels are multiplied where the size is halved: 1 while the paper
            searches, 2 for its final networks.
        dropout: before the classifier.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).

    The defaults are the authors' for the search on CIFAR-10. Skip ``layer3/from0`` is from the
    stem, ``layer3/from1`` from layer 0, and so on: state ``i`` is what layer ``i − 1`` gives.
    """

    layers: int = 12
    channels: int = 36
    growth: int = 1
    dropout: float = 0.1
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)

    name = "enas_macro/v1"
    paper = "Pham, Guan, Zoph, Le & Dean, ENAS, ICML 2018"
    graph_operations = OPERATIONS
    points: ClassVar[Mapping[str, Point]] = {
        "ENAS_macro": Point(
            """
            0
            3 0
            0 1 0
            2 0 0 1
            2 0 0 0 0
            3 1 1 0 1 0
            2 0 0 0 0 0 1
            2 0 1 1 0 1 1 1
            1 0 1 1 1 0 1 0 1
            0 0 0 0 0 0 0 0 0 0
            2 0 0 0 0 0 1 0 0 0 0
            0 1 0 0 1 1 0 0 0 0 1 1
            2 0 1 0 0 0 0 0 1 0 1 1 0
            1 0 0 1 0 0 0 1 1 1 0 1 0 1
            0 1 1 0 1 0 1 0 0 0 0 0 1 0 0
            2 0 0 1 0 0 0 0 0 0 0 1 0 1 0 1
            2 0 1 0 0 0 1 0 0 1 1 1 1 0 0 1 0
            2 0 0 0 0 1 0 1 0 1 0 0 1 0 1 0 0 1
            3 0 1 1 0 1 0 0 0 0 0 1 0 1 0 1 0 0 0
            3 0 1 1 0 0 0 0 0 0 0 0 0 1 1 0 0 0 0 1
            0 1 0 0 1 0 1 1 0 0 0 1 0 0 0 0 0 1 1 0 0
            3 0 1 0 1 1 0 0 1 0 1 1 0 1 1 0 1 0 0 1 0 0
            0 1 0 1 0 1 0 0 0 0 0 0 0 0 1 0 1 0 0 1 0 0 0
            0 1 1 0 0 0 1 1 1 0 1 0 0 0 1 0 1 0 0 1 1 0 0 0
            """,
            paper,
            {"layers": 24, "channels": 96, "growth": 2, "dropout": 0.5},
        )
    }
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "enas_macro"))
        if len(self.input) != 3:
            raise ConfigError(
                f"enas_macro: input must be (channels, height, width), got {self.input}"
            )
        for argument, least in (("layers", 1), ("channels", 2), ("growth", 1), ("classes", 1)):
            if getattr(self, argument) < least:
                raise ConfigError(
                    f"enas_macro: {argument} must be at least {least}, "
                    f"got {getattr(self, argument)}"
                )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"enas_macro: dropout must be in [0, 1), got {self.dropout}")
        choices: list[Choice] = []
        for layer in range(self.layers):
            choices.append(Choice(f"layer{layer}", OPERATIONS))
            choices += [Choice(f"layer{layer}/from{state}", (0, 1)) for state in range(layer)]
        object.__setattr__(self, "choices", tuple(choices))

    @property
    def reductions(self) -> tuple[int, ...]:
        """The layers behind which the size is halved; none in a network of fewer than three."""
        third = self.layers // 3
        return (third - 1, 2 * third - 1) if third else ()

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return int(len(OPERATIONS) ** self.layers * 2 ** (self.layers * (self.layers - 1) // 2))

    def canonical(self, arch: Architecture) -> Architecture:
        return arch  # each layer reads the one before it, so that no two can change places

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {label: str(option) for label, option in arch.picks}

    def build(self, builder: Builder) -> nn.Module:
        c = self.channels
        widths = [c]  # of each layer's operation
        for layer in range(1, self.layers):
            c = c * self.growth if layer - 1 in self.reductions else c
            widths.append(c)
        skips = [_skips(builder, layer) for layer in range(self.layers)]
        layers = nn.ModuleList(
            SkipLayer(
                operation=builder.slot(f"layer{layer}", _operations(width)),
                skips=skips[layer],
                # As the authors have it: no norm where there is nothing to add.
                norm=nn.BatchNorm2d(width) if layer else nn.Identity(),
            )
            for layer, width in enumerate(widths)
        )
        reductions = nn.ModuleDict()
        for layer in self.reductions:
            read = {int(state) for later in skips[layer + 1 :] for state in later}
            halved = nn.ModuleDict()
            for state in range(layer + 2):
                if state in read or state == layer + 1:
                    halved[str(state)] = ShiftedReduction(widths[layer], widths[layer + 1])
            reductions[str(layer)] = ReduceStates(halved)
        stem = nn.Sequential(
            nn.Conv2d(self.input[0], self.channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(self.channels),
        )
        head = nn.Sequential(
            GlobalAveragePool(), nn.Dropout(self.dropout), nn.Linear(c, self.classes, bias=False)
        )
        return SkipChain(stem, layers, reductions, head)

    # ----------------------------------------------------------------------- notation, graphs

    def parse(self, text: str) -> Architecture:
        """Reads the authors' numbers: for each layer its operation, then a 0 or 1 a skip."""
        words = text.split()
        expected = self.layers * (self.layers + 1) // 2
        if not all(word.isdecimal() for word in words) or len(words) != expected:
            raise InvalidArchitecture(
                f"enas_macro: expected {expected} numbers, for each of {self.layers} layers an "
                f"operation and as many skips as there are layers before it; got {len(words)} "
                f"words: {text!r:.120}"
            )
        picks: dict[str, Scalar] = {}
        for choice, word in zip(self.choices, words, strict=True):
            if int(word) >= len(choice.options):
                raise InvalidArchitecture(
                    f"enas_macro: {word} for {choice.label!r}, expected a number below "
                    f"{len(choice.options)}"
                )
            picks[choice.label] = choice.options[int(word)]
        return from_picks(self, picks)

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads, a line a layer."""
        words = [
            str(choice.index(option))
            for choice, (_, option) in zip(self.choices, arch.picks, strict=True)
        ]
        starts = [layer * (layer + 1) // 2 for layer in range(self.layers + 1)]
        return "\n".join(" ".join(words[start:end]) for start, end in itertools.pairwise(starts))

    @property
    def longest_path(self) -> int:
        return self.layers

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The network: a vertex a layer, the stem as the input.

        A link from the vertex just before is what the operation reads, any other a skip.
        """
        picks = arch.as_dict()
        links = {(layer, layer + 1) for layer in range(self.layers + 1)}
        for layer in range(self.layers):
            links |= {
                (state, layer + 1) for state in range(layer) if picks[f"layer{layer}/from{state}"]
            }
        operations = [str(picks[f"layer{layer}"]) for layer in range(self.layers)]
        return {"network": CellGraph(("input", *operations, "output"), frozenset(links))}


def _skips(builder: Builder, layer: int) -> nn.ModuleDict:
    options: dict[str, Factory | None] = {"0": None, "1": nn.Identity}
    skips = nn.ModuleDict()
    for state in range(layer):
        skip = builder.edge(f"layer{layer}/from{state}", options)
        if skip is not None:
            skips[str(state)] = skip
    return skips


def _operations(channels: int) -> dict[str, Factory]:
    return {
        "conv_3x3": partial(ConvBranch, channels=channels, kernel_size=3),
        "sep_conv_3x3": partial(SeparableBranch, channels=channels, kernel_size=3),
        "conv_5x5": partial(ConvBranch, channels=channels, kernel_size=5),
        "sep_conv_5x5": partial(SeparableBranch, channels=channels, kernel_size=5),
        "avg_pool_3x3": partial(AveragePoolBranch, channels=channels),
        "max_pool_3x3": partial(MaxPoolBranch, channels=channels),
    }
