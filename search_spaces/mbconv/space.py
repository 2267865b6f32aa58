"""The space of MBConv networks: stem, stages of mobile blocks, head.

One description covers MnasNet, ProxylessNAS, FBNet, once-for-all's MobileNetV3, and the networks
MobileNetV2, MobileNetV3 and EfficientNet as its points (``search_spaces.mbconv.layouts``,
``search_spaces.mbconv.points``). Operations of a block are slots, with weights of their own;
kernels, expansions, depths, widths and the resolution are numbers, which can share weights.

What differs from all those papers: batch norm has torch's ε and momentum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.errors import ConfigError, nearest
from nas.layers.activations import ACTIVATIONS, make_activation
from nas.layers.attention import divisible
from nas.layers.basic import GlobalAveragePool
from nas.layers.mobile import InOrder, Resize
from nas.points import Point
from nas.space import Legal, check_input, count_choices, next_choice
from search_spaces.mbconv.blocks import describe_block, describe_conv, pick
from search_spaces.mbconv.layouts import SEARCHED
from search_spaces.mbconv.operations import DEFAULT_SQUEEZE, Operation, Squeeze
from search_spaces.mbconv.points import POINTS
from search_spaces.mbconv.stage import Stage, places


@dataclass(frozen=True)
class MBConv:
    """Mobile networks of stages: MobileNetV2's with open kernels, expansions, depths and width.

    Args:
        layout: the stages between stem and head; the first is ``stage1`` in the labels.
        stem: channels of the first convolution, 3×3 with ``stem_stride``.
        stem_stride: of the first convolution.
        head: channels of the last convolution, 1×1.
        dense: width of a linear layer before the classifier; 0 is none.
        activation: of the stem, the head and the dense layer.
        squeeze: how squeeze-and-excitation is sized, where a stage has any.
        widths: options of the width multiplier, in per cent: all channels are multiplied and
            rounded to multiples of 8. What feeds the classifier is never narrowed.
        resolutions: options of the image's height and width; images of another size are scaled
            first. Empty: as they come.
        dropout: before the classifier.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        paper: where the space is from.
    """

    layout: tuple[Stage, ...] = SEARCHED
    stem: int = 32
    stem_stride: int = 2
    head: int = 1280
    dense: int = 0
    activation: str = "relu6"
    squeeze: Squeeze = DEFAULT_SQUEEZE
    widths: tuple[int, ...] = (50, 75, 100, 140)
    resolutions: tuple[int, ...] = ()
    dropout: float = 0.2
    classes: int = 1000
    input: tuple[int, ...] = (3, 224, 224)
    paper: str = "Sandler et al., MobileNetV2, CVPR 2018"

    name: ClassVar[str] = "mbconv/v1"
    points: ClassVar[Mapping[str, Point]] = POINTS
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "mbconv"))
        if len(self.input) != 3:
            raise ConfigError(f"mbconv: input must be (channels, height, width), got {self.input}")
        object.__setattr__(self, "layout", tuple(self.layout))
        if not self.layout:
            raise ConfigError("mbconv: layout must have at least one stage")
        for argument in ("stem", "stem_stride", "head", "classes"):
            if getattr(self, argument) < 1:
                raise ConfigError(
                    f"mbconv: {argument} must be at least 1, got {getattr(self, argument)}"
                )
        if self.dense < 0:
            raise ConfigError(f"mbconv: dense must be at least 0, got {self.dense}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"mbconv: dropout must be in [0, 1), got {self.dropout}")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(
                f"mbconv: no activation {self.activation!r}: "
                f"{nearest(self.activation, ACTIVATIONS)}"
            )
        for argument in ("widths", "resolutions"):
            options = tuple(getattr(self, argument))
            if not options and argument == "widths":
                raise ConfigError("mbconv: widths must have at least one option, as (100,)")
            if options and min(options) < 1:
                raise ConfigError(f"mbconv: {argument} must be positive, got {options}")
            object.__setattr__(self, argument, options)
        object.__setattr__(self, "choices", tuple(self._choices()))

    # --------------------------------------------------------------------------- choices

    def _choices(self) -> Iterator[Choice]:
        for label, options in (("resolution", self.resolutions), ("width", self.widths)):
            if len(options) > 1:
                yield Choice(label, options)
        for number, stage in enumerate(self.layout, start=1):
            for label, options in (("channels", stage.channels), ("depth", stage.depths)):
                if len(options) > 1:
                    yield Choice(f"stage{number}/{label}", options)
            for index, place in places(stage, number):
                if stage.shared and index:
                    break
                when = {}
                if len(stage.depths) > 1 and not stage.shared:
                    when[f"stage{number}/depth"] = tuple(d for d in stage.depths if d > index)
                named: dict[str, tuple[Scalar, ...]] = {
                    "op": tuple(op.text for op in self._operations(number, index)),
                    "kernel": stage.kernels,
                    "expansion": stage.expansions,
                    "se": stage.squeezes,
                    "skip": stage.skips if self._may_skip(number, index) else (),
                }
                for part, several in named.items():
                    if len(several) > 1:
                        yield Choice(f"{place}/{part}", several, when)

    def _operations(self, number: int, index: int) -> list[Operation]:
        """The operations a block can be: all, but ``skip`` only where the shape always stays."""
        stage = self.layout[number - 1]
        stays = self._keeps_shape(number, index) == {True}
        return [op for op in stage.parsed() if op.kind != "skip" or stays]

    def _keeps_shape(self, number: int, index: int) -> set[bool]:
        """Whether a block's output may have, and may not have, the shape of its input."""
        stage = self.layout[number - 1]
        if index:
            return {True}
        if stage.stride > 1:
            return {False}
        before = self.layout[number - 2].channels if number > 1 else (self.stem,)
        return {
            self._scaled(c_in, width) == self._scaled(c_out, width)
            for width in self.widths
            for c_in in before
            for c_out in stage.channels
        }

    def _may_skip(self, number: int, index: int) -> bool:
        if self.layout[number - 1].shared:
            return max(self.layout[number - 1].depths) > 1 or True in self._keeps_shape(number, 0)
        return True in self._keeps_shape(number, index)

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return count_choices(self.choices)

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {
            label: str(option) for label, option in arch.picks if label.endswith(("/op", "/skip"))
        }

    def canonical(self, arch: Architecture) -> Architecture:
        """Equal networks, equal form.

        Skipped blocks move behind the others of their stage that keep the shape; what is added
        to a block's output is the first option where nothing can be added; and of widths and
        channels that round to the same network, the first stands for all.
        """
        picks = arch.as_dict()
        self._first_of_equal_widths(picks)
        for number, stage in enumerate(self.layout, start=1):
            depth = int(picks.get(f"stage{number}/depth", stage.depths[0]))
            if f"stage{number}/skip" in picks and depth == 1 and not self._stays(number, picks):
                picks[f"stage{number}/skip"] = stage.skips[0]
            if not stage.shared:
                if f"stage{number}/block1/skip" in picks and not self._stays(number, picks):
                    picks[f"stage{number}/block1/skip"] = stage.skips[0]
                self._skips_last(number, stage, picks)
        return Architecture(arch.space, tuple((label, picks[label]) for label in arch))

    def _skips_last(self, number: int, stage: Stage, picks: dict[str, Scalar]) -> None:
        labels = [f"{place}/op" for _, place in places(stage, number)]
        if self._keeps_shape(number, 0) != {True}:
            labels = labels[1:]  # another shape in: nothing can take the first block's place
        labels = [label for label in labels if label in picks]
        skips = {op.text for op in stage.parsed() if op.skips}
        held = sorted((picks[label] for label in labels), key=lambda text: text in skips)
        if len(skips) == 2:  # two names of one thing
            first = next(text for text in stage.operations if text in skips)
            held = [first if text in skips else text for text in held]
        picks.update(zip(labels, held, strict=True))

    def _first_of_equal_widths(self, picks: dict[str, Scalar]) -> None:
        width = int(picks.get("width", self.widths[0]))
        channels = [self._channels(number, picks) for number in range(1, len(self.layout) + 1)]
        for candidate in self.widths:
            if self._ends(candidate) != self._ends(width):
                continue
            options = [
                [c for c in stage.channels if self._scaled(c, candidate) == wanted]
                for stage, wanted in zip(self.layout, channels, strict=True)
            ]
            if all(options):
                break
        if "width" in picks:
            picks["width"] = candidate
        for number, equal in enumerate(options, start=1):
            if f"stage{number}/channels" in picks:
                picks[f"stage{number}/channels"] = equal[0]

    def _stays(self, number: int, picks: Mapping[str, Scalar]) -> bool:
        """Whether the first block of a stage keeps the shape in this architecture."""
        width = int(picks.get("width", self.widths[0]))
        stem = self._scaled(self.stem, width)
        before = self._channels(number - 1, picks) if number > 1 else stem
        return self.layout[number - 1].stride == 1 and before == self._channels(number, picks)

    def _channels(self, number: int, picks: Mapping[str, Scalar]) -> int:
        width = int(picks.get("width", self.widths[0]))
        stage = self.layout[number - 1]
        return self._scaled(int(picks.get(f"stage{number}/channels", stage.channels[0])), width)

    # --------------------------------------------------------------------------- network

    @staticmethod
    def _scaled(channels: int, width: int) -> int:
        if width == 100:
            return channels
        # Rounding must not make a narrower network the wider one in some layer: it could not
        # share the other's weights.
        rounded = divisible(channels * width / 100, 8)
        return min(rounded, channels) if width < 100 else max(rounded, channels)

    def _ends(self, width: int) -> tuple[int, int, int]:
        """Channels of the stem, of the last convolution and of the dense layer."""
        features = max(width, 100)
        return (
            self._scaled(self.stem, width),
            self._scaled(self.head, width if self.dense else features),
            self._scaled(self.dense, features) if self.dense else 0,
        )

    def build(self, builder: Builder) -> nn.Module:
        parts: dict[str, nn.Module] = {}
        if self.resolutions:
            size = pick(builder, "resolution", self.resolutions)
            if self.input[1:] != (size, size):
                parts["resize"] = Resize(size)
        width = pick(builder, "width", self.widths)
        c, head, dense = self._ends(width)
        parts["stem"] = builder.part(
            describe_conv, self.input[0], c, 3, self.stem_stride, self.activation
        )
        for number, stage in enumerate(self.layout, start=1):
            c_in = c
            c = self._scaled(pick(builder, f"stage{number}/channels", stage.channels), width)
            make = self._block_maker(builder, number, c_in, c)
            if len(stage.depths) > 1:
                blocks = builder.depth(f"stage{number}/depth", make, stage.depths)
            else:
                blocks = [make(index) for index in range(stage.depths[0])]
            for index, block in enumerate(blocks, start=1):
                if not isinstance(block, nn.Identity):
                    parts[f"stage{number}_block{index}"] = block
        parts["head"] = builder.part(describe_conv, c, head, 1, 1, self.activation)
        parts["pool"] = GlobalAveragePool()
        if dense:
            parts["dense"] = nn.Linear(head, dense)
            parts["dense_activation"] = make_activation(self.activation)
        if self.dropout:
            parts["dropout"] = nn.Dropout(self.dropout)
        parts["classifier"] = nn.Linear(dense or head, self.classes)
        return InOrder(nn.ModuleDict(parts))

    def _block_maker(
        self, builder: Builder, number: int, c_in: int, c_out: int
    ) -> Callable[[int], nn.Module]:
        stage = self.layout[number - 1]
        labels = dict(places(stage, number))

        def make(index: int) -> nn.Module:
            return builder.part(
                describe_block,
                labels[index],
                c_out if index else c_in,
                c_out,
                1 if index else stage.stride,
                tuple(op.text for op in self._operations(number, index)),
                stage.kernels,
                stage.expansions,
                stage.squeezes,
                stage.skips,
                stage.activation,
                dataclasses.astuple(self.squeeze),
                True in self._keeps_shape(number, index),
            )

        return make
