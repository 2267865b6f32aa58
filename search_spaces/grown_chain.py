"""The grown chain: from a linear model to a chain of layers with skips, one edit at a time.

Real et al., "Large-Scale Evolution of Image Classifiers", ICML 2017, and Elsken, Metzen & Hutter,
"Simple and Efficient Architecture Search for Convolutional Neural Networks", 2017. A layer is a
convolution with batch norm and ReLU, one with neither, or batch norm and ReLU alone (an edge that
is the identity). What went in some layers before may join its output: by addition (channels cut
or padded with zeros) or by concatenation, larger maps reduced to their nearest pixels. Without
any layer it is a linear model of the image's mean colours, where large-scale evolution starts.

What differs from the papers: the network is a chain with skips over a few layers, not any graph;
filters are square; widths are those listed. An added skip has a learnt scale, so that one of
scale zero leaves the function as it was (Elsken et al. have a learnt convex combination, Real et
al. a plain sum); it starts at one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.errors import ConfigError
from nas.layers import ConvBNReLU, GlobalAveragePool
from nas.space import Legal, check_input, count_choices, next_choice
from search_spaces.grown_edits import INSERTED_KERNEL, KINDS, Layer, Limits, edits

# --------------------------------------------------------------------------------- modules


class PlainConv2d(nn.Module):
    """Convolution that keeps the size at stride 1, and nothing else."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.conv = nn.Conv2d(
            c_in, c_out, kernel_size, stride, padding=kernel_size // 2, bias=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class OneToOne(nn.Module):
    """Batch norm and ReLU on what comes in."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.c = c
        self.norm = nn.BatchNorm2d(c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(x))


class AddSkip(nn.Module):
    """Adds an earlier state: every ``step``-th pixel, channels cut or padded, times a scale."""

    def __init__(self, c_in: int, c_out: int, step: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.step = step
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        source = source[:, : self.c_out, :: self.step, :: self.step]
        if self.c_in < self.c_out:
            source = F.pad(source, (0, 0, 0, 0, 0, self.c_out - self.c_in))
        return x + self.scale * source


class ConcatSkip(nn.Module):
    """Joins an earlier state along the channels: every ``step``-th pixel of it."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, source[:, :, :: self.step, :: self.step]], dim=1)


class SkippedChain(nn.Module):
    """Layers one after the other, each joined by what went in some layers before.

    Args:
        layers: in order.
        joins: under a layer's index, as text, what joins its output with an earlier state.
        backs: for each layer how many layers before that state went in (1: into this layer);
            0 for none.
        head: from the last state to the classes.
    """

    def __init__(
        self, layers: nn.ModuleList, joins: nn.ModuleDict, backs: tuple[int, ...], head: nn.Module
    ) -> None:
        super().__init__()
        self.layers = layers
        self.joins = joins
        self.backs = backs
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = [x]
        for index, layer in enumerate(self.layers):
            state = layer(states[-1])
            if self.backs[index]:
                state = self.joins[str(index)](state, states[-self.backs[index]])
            states.append(state)
        return self.head(states[-1])


# ----------------------------------------------------------------------------------- space


@dataclass(frozen=True)
class GrownChain:
    """Chains of 0 to ``layers`` layers with skips, and the edits that grow and shrink them.

    Args:
        layers: how many at most.
        kernels: of convolutions; odd, 3 among them (what is inserted has it).
        widths: their output channels, ascending.
        strides: of convolutions, ascending from 1.
        spans: how many layers a skip may span, besides none.
        joins: how it may join: ``add``, ``concat``.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """

    layers: int = 16
    kernels: tuple[int, ...] = (1, 3, 5, 7)
    widths: tuple[int, ...] = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
    strides: tuple[int, ...] = (1, 2)
    spans: tuple[int, ...] = (1, 2, 3, 4)
    joins: tuple[str, ...] = ("add", "concat")
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)

    name = "grown_chain/v1"
    paper = "Real et al., Large-Scale Evolution of Image Classifiers, ICML 2017"
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "grown_chain"))
        if len(self.input) != 3:
            raise ConfigError(
                f"grown_chain: input must be (channels, height, width), got {self.input}"
            )
        for argument in ("layers", "classes"):
            if getattr(self, argument) < 1:
                raise ConfigError(
                    f"grown_chain: {argument} must be at least 1, got {getattr(self, argument)}"
                )
        for argument in ("kernels", "widths", "strides", "spans"):
            values = tuple(getattr(self, argument))
            if list(values) != sorted(set(values)) or any(value < 1 for value in values):
                raise ConfigError(
                    f"grown_chain: {argument} must be positive and ascend, got {values}"
                )
            object.__setattr__(self, argument, values)
        object.__setattr__(self, "joins", tuple(self.joins))
        if any(kernel % 2 == 0 for kernel in self.kernels) or INSERTED_KERNEL not in self.kernels:
            raise ConfigError(
                f"grown_chain: kernels must be odd, {INSERTED_KERNEL} among them; "
                f"got {self.kernels}"
            )
        if not self.widths or self.strides[:1] != (1,):
            raise ConfigError(
                f"grown_chain: there must be a width, and strides from 1 on; got the widths "
                f"{self.widths} and the strides {self.strides}"
            )
        if not self.joins or not set(self.joins) <= {"add", "concat"}:
            raise ConfigError(f"grown_chain: joins are 'add' and 'concat', got {self.joins}")
        choices = [Choice("depth", tuple(range(self.layers + 1)))]
        for index in range(self.layers):
            there = {"depth": tuple(range(index + 1, self.layers + 1))}
            convolves = there | {f"layer{index}/kind": KINDS[:2]}
            spans = tuple(span for span in self.spans if span <= index + 1)
            choices += [
                Choice(f"layer{index}/kind", KINDS, there),
                Choice(f"layer{index}/kernel", self.kernels, convolves),
                Choice(f"layer{index}/width", self.widths, convolves),
                Choice(f"layer{index}/stride", self.strides, convolves),
                Choice(f"layer{index}/skip", (0, *spans), there),
            ]
            if spans:
                skips = there | {f"layer{index}/skip": spans}
                choices.append(Choice(f"layer{index}/join", self.joins, skips))
        object.__setattr__(self, "choices", tuple(choices))

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return count_choices(self.choices)

    def canonical(self, arch: Architecture) -> Architecture:
        return arch  # no two architectures here mean the same network

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {
            label: str(pick) for label, pick in arch.picks if label.endswith(("/kind", "/join"))
        }

    def build(self, builder: Builder) -> nn.Module:
        channels = [self.input[0]]  # of each state, the image first
        steps = [1]  # how much smaller than the image each is
        backs: list[int] = []
        joins = nn.ModuleDict()

        def layer(index: int) -> nn.Module:
            place = f"layer{index}"
            c_in = c_out = channels[-1]
            step = steps[-1]

            def convolution(kind: type[ConvBNReLU] | type[PlainConv2d]) -> nn.Module:
                nonlocal c_out, step
                c_out = builder.number(f"{place}/width")
                kernel_size = builder.number(f"{place}/kernel")
                stride = builder.number(f"{place}/stride")
                step *= stride
                return kind(c_in=c_in, c_out=c_out, kernel_size=kernel_size, stride=stride)

            made = builder.slot(
                f"{place}/kind",
                {
                    "conv": lambda: convolution(ConvBNReLU),
                    "linear": lambda: convolution(PlainConv2d),
                    "one_to_one": partial(OneToOne, c_in),
                },
            )
            back = builder.number(f"{place}/skip")
            if back:
                c_from, c_layer, scale = channels[-back], c_out, step // steps[-back]

                def concatenation() -> nn.Module:
                    nonlocal c_out
                    c_out += c_from
                    return ConcatSkip(scale)

                joins[str(index)] = builder.slot(
                    f"{place}/join",
                    {"add": partial(AddSkip, c_from, c_layer, scale), "concat": concatenation},
                )
            channels.append(c_out)
            steps.append(step)
            backs.append(back)
            return made

        layers = nn.ModuleList(builder.depth("depth", layer))
        head = nn.Sequential(GlobalAveragePool(), nn.Linear(channels[-1], self.classes))
        return SkippedChain(layers, joins, tuple(backs), head)

    # -------------------------------------------------------------------------------- edits

    def edits(self, arch: Architecture) -> Mapping[str, Sequence[Architecture]]:
        """The structural mutations of large-scale evolution, as far as they apply, by name.

        See ``search_spaces.grown_edits``.
        """
        limits = Limits(
            self.layers,
            self.input[0],
            self.kernels,
            self.widths,
            self.strides,
            self.spans,
            self.joins,
        )
        found = edits(self._layers(arch), limits)
        return {name: [self._arch(layers) for layers in edited] for name, edited in found.items()}

    def _layers(self, arch: Architecture) -> list[Layer]:
        picks = arch.as_dict()

        def number(label: str) -> int:
            return int(picks.get(label, 0))

        return [
            Layer(
                str(picks[f"layer{index}/kind"]),
                number(f"layer{index}/kernel"),
                number(f"layer{index}/width"),
                number(f"layer{index}/stride"),
                number(f"layer{index}/skip"),
                str(picks.get(f"layer{index}/join", "")),
            )
            for index in range(number("depth"))
        ]

    def _arch(self, layers: Sequence[Layer]) -> Architecture:
        picks: list[tuple[str, Scalar]] = [("depth", len(layers))]
        for index, layer in enumerate(layers):
            picks += [
                (f"layer{index}/{name}", value)
                for name, value in layer._asdict().items()
                if value or name == "skip"
            ]
        return Architecture.of_legal(self.name, tuple(picks))
