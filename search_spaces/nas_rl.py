"""The NAS-RL space: convolutions of free shape, each reading any of the layers before it.

Zoph & Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017. For every layer
a filter height and width, a number of filters, if wanted a stride each way, and at its anchor
point a yes or no for each earlier layer. Three rules make every choice a network:

- a layer that reads no other reads the image;
- the layers that no other reads are joined before the classifier;
- what is joined is concatenated along the channels, smaller maps padded with zeros.

Each layer is convolution, batch norm, ReLU. The default is the paper's first experiment: stride
1 throughout, 15 layers (the depth at which its best network of that kind was found).

What the paper leaves open: zeros are padded at the bottom and the right; convolutions are padded
to keep the size at stride 1; the classifier is a mean over each map and a linear layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.encoding import CellGraph
from nas.errors import ConfigError
from nas.layers import GlobalAveragePool
from nas.space import Legal, check_input, next_choice


class RectangularConv(nn.Module):
    """Convolution with an odd height and width that keeps the size at stride 1, norm, ReLU."""

    def __init__(
        self, c_in: int, c_out: int, kernel_size: tuple[int, int], stride: tuple[int, int]
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        self.conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)))


def concatenate(states: list[torch.Tensor]) -> torch.Tensor:
    """Joins along the channels; smaller maps get zeros at the bottom and the right."""
    height = max(state.shape[2] for state in states)
    width = max(state.shape[3] for state in states)
    padded = [
        state
        if state.shape[2:] == (height, width)
        else F.pad(state, (0, width - state.shape[3], 0, height - state.shape[2]))
        for state in states
    ]
    return torch.cat(padded, dim=1)


class AnchoredChain(nn.Module):
    """Layers that each read some earlier ones, or the image; ``ends`` are read by the head.

    Args:
        layers: in order.
        sources: for each layer the indices of those it reads; none means the image.
        ends: the indices of the layers that the head reads.
        head: from the joined maps to the classes.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        sources: tuple[tuple[int, ...], ...],
        ends: tuple[int, ...],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.sources = sources
        self.ends = ends
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: list[torch.Tensor] = []
        for layer, sources in zip(self.layers, self.sources, strict=True):
            read = concatenate([outputs[source] for source in sources]) if sources else x
            outputs.append(layer(read))
        return self.head(concatenate([outputs[end] for end in self.ends]))


@dataclass(frozen=True)
class NasRl:
    """Convolutions with skip connections, as the paper's controller writes them.

    Args:
        layers: how many.
        heights, widths: of the filters; odd.
        filters: how many a layer may have.
        strides: where there is more than one, every layer chooses one each way.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """

    layers: int = 15
    heights: tuple[int, ...] = (1, 3, 5, 7)
    widths: tuple[int, ...] = (1, 3, 5, 7)
    filters: tuple[int, ...] = (24, 36, 48, 64)
    strides: tuple[int, ...] = (1,)
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)

    name = "nas_rl/v1"
    paper = "Zoph & Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017"
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "nas_rl"))
        if len(self.input) != 3:
            raise ConfigError(f"nas_rl: input must be (channels, height, width), got {self.input}")
        for argument in ("layers", "classes"):
            if getattr(self, argument) < 1:
                raise ConfigError(
                    f"nas_rl: {argument} must be at least 1, got {getattr(self, argument)}"
                )
        for argument in ("heights", "widths", "filters", "strides"):
            options = tuple(getattr(self, argument))
            if not options or min(options) < 1:
                raise ConfigError(f"nas_rl: {argument} must be positive, got {options}")
            if argument in ("heights", "widths") and any(option % 2 == 0 for option in options):
                raise ConfigError(f"nas_rl: {argument} must be odd, got {options}")
            object.__setattr__(self, argument, options)
        choices: list[Choice] = []
        for layer in range(self.layers):
            choices += [
                Choice(f"layer{layer}/height", self.heights),
                Choice(f"layer{layer}/width", self.widths),
            ]
            if len(self.strides) > 1:
                choices += [
                    Choice(f"layer{layer}/stride_height", self.strides),
                    Choice(f"layer{layer}/stride_width", self.strides),
                ]
            choices.append(Choice(f"layer{layer}/filters", self.filters))
            choices += [Choice(f"layer{layer}/from{source}", (0, 1)) for source in range(layer)]
        object.__setattr__(self, "choices", tuple(choices))

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        shapes = len(self.heights) * len(self.widths) * len(self.filters) * len(self.strides) ** 2
        return int(shapes**self.layers * 2 ** (self.layers * (self.layers - 1) // 2))

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        sources = self._sources(arch)
        return {
            f"layer{layer}/inputs": "+".join(map(str, sources[layer]))
            for layer in range(1, self.layers)
        }

    def build(self, builder: Builder) -> nn.Module:
        layers = nn.ModuleList()
        sources: list[tuple[int, ...]] = []
        channels: list[int] = []
        for layer in range(self.layers):
            read = builder.subset(f"layer{layer}/inputs", of=layer) if layer else ()
            c_out = builder.number(f"layer{layer}/filters")
            layers.append(
                RectangularConv(
                    c_in=sum(channels[source] for source in read) if read else self.input[0],
                    c_out=c_out,
                    kernel_size=(
                        builder.number(f"layer{layer}/height"),
                        builder.number(f"layer{layer}/width"),
                    ),
                    stride=(
                        self._stride(builder, f"layer{layer}/stride_height"),
                        self._stride(builder, f"layer{layer}/stride_width"),
                    ),
                )
            )
            sources.append(read)
            channels.append(c_out)
        ends = _ends(sources)
        c = sum(channels[end] for end in ends)
        head = nn.Sequential(GlobalAveragePool(), nn.Linear(c, self.classes))
        return AnchoredChain(layers, tuple(sources), ends, head)

    def canonical(self, arch: Architecture) -> Architecture:
        """The layers in an order that does not depend on the order they were written in.

        An architecture whose layers are listed in another order computes the same once its
        weights are moved along: all of them have the one form. Two layers that are alike and
        read the same are not merged, because each has weights of its own.
        """
        shapes = [self._shape(arch, layer) for layer in range(self.layers)]
        rows = _Listing(shapes, self._sources(arch)).smallest([])
        picks: list[tuple[str, Scalar]] = []
        for layer, (shape, read) in enumerate(rows):
            own = [c for c in self.choices if c.label.startswith(f"layer{layer}/")]
            for choice, position in itertools.zip_longest(own, shape):
                source = choice.label.rpartition("/from")[2]
                picked = int(int(source) in read) if position is None else position
                picks.append((choice.label, choice.options[picked]))
        return Architecture(self.name, tuple(picks))

    # -------------------------------------------------------------------------------- graphs

    @property
    def graph_operations(self) -> tuple[str, ...]:
        strides = self.strides
        return tuple(
            _text(*shape)
            for shape in itertools.product(
                self.heights, self.widths, self.filters, strides, strides
            )
        )

    @property
    def longest_path(self) -> int:
        return self.layers

    def graphs(self, arch: Architecture) -> Mapping[str, CellGraph]:
        """The network: a vertex for each layer, between the image and the classifier."""
        sources = self._sources(arch)
        picks = arch.as_dict()
        operations = []
        links = set()
        for layer, read in enumerate(sources):
            height, width, filters, down, along = (
                int(picks.get(f"layer{layer}/{what}", self.strides[0]))
                for what in ("height", "width", "filters", "stride_height", "stride_width")
            )
            operations.append(_text(height, width, filters, down, along))
            links |= {(source + 1, layer + 1) for source in read} or {(0, layer + 1)}
        links |= {(end + 1, self.layers + 1) for end in _ends(sources)}
        return {"network": CellGraph(("input", *operations, "output"), frozenset(links))}

    # ------------------------------------------------------------------------------- helpers

    def _stride(self, builder: Builder, label: str) -> int:
        return builder.number(label) if len(self.strides) > 1 else self.strides[0]

    def _sources(self, arch: Architecture) -> list[tuple[int, ...]]:
        picks = arch.as_dict()
        return [
            tuple(source for source in range(layer) if picks[f"layer{layer}/from{source}"])
            for layer in range(self.layers)
        ]

    def _shape(self, arch: Architecture, layer: int) -> tuple[int, ...]:
        """The positions of a layer's picks but for the anchors."""
        picks = arch.as_dict()
        return tuple(
            choice.index(picks[choice.label])
            for choice in self.choices
            if choice.label.startswith(f"layer{layer}/") and "/from" not in choice.label
        )


def _ends(sources: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The layers that no other reads."""
    read = {source for several in sources for source in several}
    return tuple(layer for layer in range(len(sources)) if layer not in read)


def _text(height: int, width: int, filters: int, down: int, along: int) -> str:
    return f"conv_k{height}x{width}_o{filters}_s{down}x{along}"


_Row = tuple[tuple[int, ...], tuple[int, ...]]  # of a layer: its picks, the places it reads


class _Listing:
    """Orders of layers, each after those it reads, and the smallest of them."""

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], sources: Sequence[tuple[int, ...]]
    ) -> None:
        self.shapes = shapes
        self.sources = sources
        self.colours = _colours(shapes, sources)

    def smallest(self, placed: Sequence[int]) -> tuple[_Row, ...]:
        """The rows that follow after these layers, the same however the layers are numbered."""
        row, candidates = self._next(placed)
        if row is None:
            return ()
        if len(candidates) == 1:
            return (row, *self.smallest([*placed, candidates[0]]))
        listings: set[tuple[_Row, ...]] = set()
        best: list[tuple[_Row, ...]] = []
        for candidate in candidates:
            listing = self._any([*placed, candidate])
            if listing in listings:
                continue  # a symmetry of the network turns this candidate into an earlier one
            listings.add(listing)
            best.append(self.smallest([*placed, candidate]))
        return (row, *min(best))

    def _any(self, placed: Sequence[int]) -> tuple[_Row, ...]:
        """Some rows that follow."""
        rows: list[_Row] = []
        while True:
            row, candidates = self._next(placed)
            if row is None:
                return tuple(rows)
            rows.append(row)
            placed = [*placed, candidates[0]]

    def _next(self, placed: Sequence[int]) -> tuple[_Row | None, list[int]]:
        """The smallest row of a layer that may come next, and the layers that have it."""
        place = {layer: index for index, layer in enumerate(placed)}
        candidates: dict[tuple[_Row, int], list[int]] = {}
        for layer, read in enumerate(self.sources):
            if layer not in place and all(source in place for source in read):
                row = (self.shapes[layer], tuple(sorted(place[source] for source in read)))
                candidates.setdefault((row, self.colours[layer]), []).append(layer)
        if not candidates:
            return None, []
        smallest = min(candidates)
        return smallest[0], candidates[smallest]


def _colours(shapes: Sequence[tuple[int, ...]], sources: Sequence[tuple[int, ...]]) -> list[int]:
    """Numbers that tell layers apart which differ, or read or are read by such that differ.

    Refinement by the numbers of neighbours, one round a layer; they are ranks, so that they do
    not depend on the order of the layers.
    """
    readers: list[list[int]] = [[] for _ in sources]
    for layer, read in enumerate(sources):
        for source in read:
            readers[source].append(layer)
    marks: list[object] = list(shapes)
    colours = _ranks(marks)
    for _ in shapes:
        marks = [
            (
                colours[layer],
                tuple(sorted(colours[source] for source in sources[layer])),
                tuple(sorted(colours[reader] for reader in readers[layer])),
            )
            for layer in range(len(shapes))
        ]
        colours = _ranks(marks)
    return colours


def _ranks(marks: list[object]) -> list[int]:
    order = {mark: rank for rank, mark in enumerate(sorted(set(marks)))}  # type: ignore[type-var]  # tuples of numbers of one form
    return [order[mark] for mark in marks]
