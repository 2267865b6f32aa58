"""Residual networks of bottlenecks with open width, depth and ratio: ResNet-50 and its kin.

After once-for-all's ResNet-50 space (Cai et al., ICLR 2020, and the authors' code): each stage has
a width and a depth, each block a part of its channels inside, and the stem a width. He et al.'s
ResNet-50 (CVPR 2016) is a point of it.

What differs from once-for-all: the stem is He et al.'s one convolution, not three of which one may
be left out; shortcuts that change the shape are 1×1 convolutions, without a pool before; sub-
networks are scored at the images' own size unless ``resolutions`` are given. From He et al.: the
stride is in the 3×3 convolution, as in the networks that are in use (4.1 G multiply-accumulates;
the paper's 3.8 G have it in the first 1×1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.errors import ConfigError, nearest
from nas.layers.attention import divisible
from nas.layers.basic import ConvBNReLU, GlobalAveragePool
from nas.layers.mobile import InOrder, Resize
from nas.layers.residual import ProjectedBottleneck, ResidualBottleneck
from nas.points import Point
from nas.space import Legal, check_input, count_choices, next_choice
from search_spaces.mbconv.blocks import pick

Stem = Literal["imagenet", "cifar"]

PAPER = "He et al., Deep Residual Learning, CVPR 2016"


def _picks(depths: tuple[int, ...], expansion: int) -> str:
    """The text of a network of full width whose blocks all have this part inside."""
    words = ["stem/width=100"]
    for stage, depth in enumerate(depths, start=1):
        words += [f"stage{stage}/width=100", f"stage{stage}/depth={depth}"]
        words += [f"stage{stage}/block{i}/expansion={expansion}" for i in range(1, depth + 1)]
    return " ".join(words)


@dataclass(frozen=True)
class ResNet:
    """Residual networks of bottlenecks: open width and depth of the stages, ratio of the blocks.

    The first block of a stage always has a 1×1 convolution as its shortcut; all but the first
    stage halve the size.

    Args:
        channels: of each stage's output, before its width.
        depths: for each stage, the options of how many blocks.
        expansions: options of a block's channels inside, in per cent of its output's.
        widths: options of the width of the stem and of each stage, in per cent.
        divisor: channels that a width or an expansion gives are rounded to multiples of it, by
            the MobileNets' rule. At a width of 100 they are as given.
        stem: ``"imagenet"`` is a 7×7 convolution and a max pool, to a quarter of the size;
            ``"cifar"`` is a 3×3 convolution that keeps it.
        stem_channels: of the stem, before its width.
        resolutions: options of the image's height and width; images of another size are scaled
            first. Empty: as they come.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """

    channels: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[tuple[int, ...], ...] = ((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4))
    expansions: tuple[int, ...] = (20, 25, 35)
    widths: tuple[int, ...] = (65, 80, 100)
    divisor: int = 8
    stem: Stem = "imagenet"
    stem_channels: int = 64
    resolutions: tuple[int, ...] = ()
    classes: int = 1000
    input: tuple[int, ...] = (3, 224, 224)

    name: ClassVar[str] = "resnet/v1"
    paper: ClassVar[str] = "Cai et al., Once-for-all, ICLR 2020; " + PAPER
    points: ClassVar[Mapping[str, Point]] = {
        "resnet50": Point(_picks((3, 4, 6, 3), 25), PAPER),
    }
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "resnet"))
        if len(self.input) != 3:
            raise ConfigError(f"resnet: input must be (channels, height, width), got {self.input}")
        for argument in ("channels", "expansions", "widths", "resolutions"):
            options = _whole(argument, getattr(self, argument), argument == "resolutions")
            object.__setattr__(self, argument, options)
        depths = tuple(_whole("depths of a stage", options) for options in self.depths)
        object.__setattr__(self, "depths", depths)
        if len(self.channels) != len(depths):
            raise ConfigError(
                f"resnet: {len(self.channels)} channels {self.channels} for {len(depths)} stages "
                f"of depths {depths}: they must be as many"
            )
        for argument in ("divisor", "stem_channels", "classes"):
            if getattr(self, argument) < 1:
                raise ConfigError(
                    f"resnet: {argument} must be at least 1, got {getattr(self, argument)}"
                )
        if self.stem not in ("imagenet", "cifar"):
            raise ConfigError(
                f"resnet: no stem {self.stem!r}: {nearest(self.stem, ('imagenet', 'cifar'))}"
            )
        object.__setattr__(self, "choices", tuple(self._choices()))

    def _choices(self) -> Iterator[Choice]:
        if len(self.resolutions) > 1:
            yield Choice("resolution", self.resolutions)
        if len(self.widths) > 1:
            yield Choice("stem/width", self.widths)
        for stage, depths in enumerate(self.depths, start=1):
            if len(self.widths) > 1:
                yield Choice(f"stage{stage}/width", self.widths)
            if len(depths) > 1:
                yield Choice(f"stage{stage}/depth", depths)
            for block in range(1, max(depths) + 1):
                when = {}
                if len(depths) > 1:
                    when[f"stage{stage}/depth"] = tuple(d for d in depths if d >= block)
                if len(self.expansions) > 1:
                    yield Choice(f"stage{stage}/block{block}/expansion", self.expansions, when)

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return count_choices(self.choices)

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {}

    def canonical(self, arch: Architecture) -> Architecture:
        """Equal networks, equal form: of options that round to the same channels, the first."""
        picks = arch.as_dict()
        parts = {"stem": self.stem_channels}
        parts |= {f"stage{stage}": c for stage, c in enumerate(self.channels, start=1)}
        for place, channels in parts.items():
            c = self._scaled(channels, int(picks.get(f"{place}/width", self.widths[0])))
            if f"{place}/width" in picks:
                picks[f"{place}/width"] = next(
                    width for width in self.widths if self._scaled(channels, width) == c
                )
            for label in arch:
                if label.startswith(f"{place}/") and label.endswith("/expansion"):
                    hidden = self._hidden(c, int(picks[label]))
                    picks[label] = next(e for e in self.expansions if self._hidden(c, e) == hidden)
        return Architecture(arch.space, tuple((label, picks[label]) for label in arch))

    # --------------------------------------------------------------------------- network

    def _scaled(self, channels: int, width: int) -> int:
        if width == 100:
            return channels
        # Rounding must not make a narrower network the wider one: it could not share weights.
        rounded = divisible(channels * width / 100, self.divisor)
        return min(rounded, channels) if width < 100 else max(rounded, channels)

    def _hidden(self, c_out: int, expansion: int) -> int:
        return divisible(round(c_out * expansion / 100), self.divisor)

    def build(self, builder: Builder) -> nn.Module:
        parts: dict[str, nn.Module] = {}
        if self.resolutions:
            size = pick(builder, "resolution", self.resolutions)
            if self.input[1:] != (size, size):
                parts["resize"] = Resize(size)
        c = self._scaled(self.stem_channels, pick(builder, "stem/width", self.widths))
        shape = (7, 2) if self.stem == "imagenet" else (3, 1)
        parts["stem"] = builder.part(_describe_stem, self.input[0], c, *shape)
        if self.stem == "imagenet":
            parts["stem_pool"] = nn.MaxPool2d(3, stride=2, padding=1)
        for stage, depths in enumerate(self.depths, start=1):
            c_in = c
            c = self._scaled(
                self.channels[stage - 1], pick(builder, f"stage{stage}/width", self.widths)
            )
            make = self._block_maker(builder, stage, c_in, c)
            if len(depths) > 1:
                blocks = builder.depth(f"stage{stage}/depth", make, depths)
            else:
                blocks = [make(index) for index in range(depths[0])]
            for index, block in enumerate(blocks, start=1):
                parts[f"stage{stage}_block{index}"] = block
        parts["pool"] = GlobalAveragePool()
        parts["classifier"] = nn.Linear(c, self.classes)
        return InOrder(nn.ModuleDict(parts))

    def _block_maker(
        self, builder: Builder, stage: int, c_in: int, c_out: int
    ) -> Callable[[int], nn.Module]:
        def make(index: int) -> nn.Module:
            label = f"stage{stage}/block{index + 1}/expansion"
            hidden = self._hidden(c_out, pick(builder, label, self.expansions))
            if index:
                return builder.part(_describe_block, c_out, hidden)
            return builder.part(_describe_first, c_in, hidden, c_out, 1 if stage == 1 else 2)

        return make


def _describe_stem(
    builder: Builder, c_in: int, c_out: int, kernel_size: int, stride: int
) -> nn.Module:
    return ConvBNReLU(c_in=c_in, c_out=c_out, kernel_size=kernel_size, stride=stride)


def _describe_block(builder: Builder, channels: int, hidden: int) -> nn.Module:
    return ResidualBottleneck(channels=channels, hidden=hidden)


def _describe_first(builder: Builder, c_in: int, hidden: int, c_out: int, stride: int) -> nn.Module:
    return ProjectedBottleneck(c_in=c_in, hidden=hidden, c_out=c_out, stride=stride)


def _whole(argument: str, given: tuple[int, ...], may_be_empty: bool = False) -> tuple[int, ...]:
    """A tuple of whole numbers of at least 1."""
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise ConfigError(f"resnet: {argument} must be a tuple of whole numbers, got {given!r}")
    values = tuple(given)
    if not values and not may_be_empty:
        raise ConfigError(f"resnet: {argument} must have at least one number")
    for value in values:
        if type(value) is not int or value < 1:
            raise ConfigError(
                f"resnet: {argument} must be whole numbers of at least 1, got {value!r} in {values}"
            )
    return values
