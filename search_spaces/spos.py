"""The single-path one-shot space: Shuffle blocks of kernel 3, 5 or 7, or Xception, and channels.

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020.
20 blocks in four stages, each of one of four kinds; with ``factors``, each has its own number of
channels inside, too. The paper's search takes ``factors=(0.2, 0.4, …, 2.0)``.

What differs from the paper: batch norms always have learnt scales (the published numbers are of
such networks; the paper's supernet leaves them out), and any input size and class count will do.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder, Factory
from nas.errors import ConfigError, InvalidArchitecture, nearest
from nas.layers.basic import ConvBNReLU, GlobalAveragePool
from nas.layers.mobile import InOrder
from nas.layers.shuffle import (
    ShuffleBlock,
    ShuffleReduction,
    ShuffleXception,
    ShuffleXceptionReduction,
)
from nas.points import Point
from nas.space import Legal, check_input, from_picks, next_choice

OPERATIONS = ("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "xception")
"""In the order of the paper's numbers 0 to 3."""

PAPER = "Guo et al., Single Path One-Shot, ECCV 2020"


@dataclass(frozen=True)
class Spos:
    """Single-path one-shot: 20 Shuffle blocks of kernel 3, 5 or 7, or Xception, and channels.

    Args:
        stem: channels of the first convolution, 3×3 with stride 2.
        channels: of each stage's output, even; each stage halves the size, and has more
            channels than the one before.
        depths: blocks of each stage.
        head: channels of the last convolution.
        factors: options of a block's channels inside, as parts of half its output's. One is no
            choice.
        dropout: before the classifier.
        classes: of the classifier, which has no bias.
        input: the shape of one image, (channels, height, width).
    """

    stem: int = 16
    channels: tuple[int, ...] = (64, 160, 320, 640)
    depths: tuple[int, ...] = (4, 4, 8, 4)
    head: int = 1024
    factors: tuple[float, ...] = (1.0,)
    dropout: float = 0.1
    classes: int = 1000
    input: tuple[int, ...] = (3, 224, 224)

    name: ClassVar[str] = "spos/v1"
    paper: ClassVar[str] = PAPER
    points: ClassVar[Mapping[str, Point]] = {
        "spos_330m": Point("(2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)", PAPER),
    }
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "spos"))
        if len(self.input) != 3:
            raise ConfigError(f"spos: input must be (channels, height, width), got {self.input}")
        for argument in ("channels", "depths", "factors"):
            options = tuple(getattr(self, argument))
            if not options or min(options) <= 0:
                raise ConfigError(f"spos: {argument} must be positive, got {options}")
            object.__setattr__(self, argument, options)
        for argument in ("stem", "head", "classes"):
            if getattr(self, argument) < 1:
                raise ConfigError(
                    f"spos: {argument} must be at least 1, got {getattr(self, argument)}"
                )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"spos: dropout must be in [0, 1), got {self.dropout}")
        if len(self.channels) != len(self.depths):
            raise ConfigError(
                f"spos: {len(self.channels)} channels {self.channels} for "
                f"{len(self.depths)} stages of {self.depths} blocks"
            )
        if any(c % 2 for c in self.channels):
            raise ConfigError(f"spos: channels must be even, got {self.channels}")
        if any(a >= b for a, b in zip((self.stem, *self.channels), self.channels, strict=False)):
            raise ConfigError(
                f"spos: channels must grow from the stem's {self.stem} on, got {self.channels}"
            )
        choices = []
        for block, c in enumerate(self._outputs(), start=1):
            choices.append(Choice(f"block{block}/op", OPERATIONS))
            if len(self.factors) > 1:
                choices.append(Choice(f"block{block}/channels", self._inside(c)))
        object.__setattr__(self, "choices", tuple(choices))

    def _outputs(self) -> list[int]:
        """The output channels of each block."""
        stages = zip(self.channels, self.depths, strict=True)
        return [c for c, depth in stages for _ in range(depth)]

    def _inside(self, c_out: int) -> tuple[int, ...]:
        """The channels inside a block, an option for each factor."""
        # Rounded before it is cut: 0.6 · 5 is 3, but not to a computer.
        inside = tuple(int(round(c_out // 2 * factor, 6)) for factor in self.factors)
        if len(set(inside)) != len(inside) or min(inside) < 1:
            raise ConfigError(
                f"spos: factors {self.factors} of {c_out // 2} channels are {inside}: they must "
                "be different numbers of channels, of at least 1"
            )
        return inside

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return int((len(OPERATIONS) * len(self.factors)) ** sum(self.depths))

    def canonical(self, arch: Architecture) -> Architecture:
        return arch  # no two architectures here mean the same network

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {label: str(option) for label, option in arch.picks if label.endswith("/op")}

    def build(self, builder: Builder) -> nn.Module:
        parts: dict[str, nn.Module] = {}
        parts["stem"] = builder.part(_conv, self.input[0], self.stem, 3, 2)
        c = self.stem
        for block, c_out in enumerate(self._outputs(), start=1):
            parts[f"block{block}"] = self._block(builder, f"block{block}", c, c_out)
            c = c_out
        parts["head"] = builder.part(_conv, c, self.head, 1, 1)
        parts["pool"] = GlobalAveragePool()
        if self.dropout:
            parts["dropout"] = nn.Dropout(self.dropout)
        parts["classifier"] = nn.Linear(self.head, self.classes, bias=False)
        return InOrder(nn.ModuleDict(parts))

    def _block(self, builder: Builder, place: str, c_in: int, c_out: int) -> nn.Module:
        inside = self._inside(c_out)
        hidden = builder.number(f"{place}/channels", inside) if len(inside) > 1 else inside[0]
        options: dict[str, Factory]
        if c_in == c_out:
            make = functools.partial(ShuffleBlock, channels=c_out, hidden=hidden)
            options = {
                name: functools.partial(make, kernel_size=kernel_size)
                for name, kernel_size in zip(OPERATIONS, (3, 5, 7), strict=False)
            }
            options["xception"] = functools.partial(ShuffleXception, channels=c_out, hidden=hidden)
        else:
            shape = {"c_in": c_in, "hidden": hidden, "c_out": c_out}
            options = {
                name: functools.partial(ShuffleReduction, kernel_size=kernel_size, **shape)
                for name, kernel_size in zip(OPERATIONS, (3, 5, 7), strict=False)
            }
            options["xception"] = functools.partial(ShuffleXceptionReduction, **shape)
        return builder.slot(f"{place}/op", options)

    # -------------------------------------------------------------------------- notation

    def parse(self, text: str) -> Architecture:
        """Reads the paper's ``(2, 1, 0, …)``, and a second tuple ``(1.4, 0.8, …)`` of factors."""
        tuples = re.findall(r"[(\[]([^()\[\]]*)[)\]]", text)
        if re.sub(r"[(\[][^()\[\]]*[)\]]", "", text).strip(" ,\n\t"):
            tuples = []
        expected = 1 if len(self.factors) == 1 else 2
        if len(tuples) != expected:
            raise InvalidArchitecture(
                f"expected {'one tuple' if expected == 1 else 'two tuples'} of {sum(self.depths)} "
                f"numbers, as '(2, 1, 0, …)'{' and (1.0, 0.8, …)' if expected == 2 else ''}; got "
                f"{text!r:.200}"
            )
        numbers = [_numbers(part, sum(self.depths)) for part in tuples]
        picks: dict[str, Scalar] = {}
        for block, kind in enumerate(numbers[0], start=1):
            if kind not in range(len(OPERATIONS)):
                raise InvalidArchitecture(
                    f"block {block}: expected 0 (3×3), 1 (5×5), 2 (7×7) or 3 (Xception), got {kind}"
                )
            picks[f"block{block}/op"] = OPERATIONS[int(kind)]
            if expected == 2:
                factor = numbers[1][block - 1]
                if factor not in self.factors:
                    raise InvalidArchitecture(
                        f"block {block}: no factor {factor}: {nearest(factor, self.factors)}"
                    )
                inside = self._inside(self._outputs()[block - 1])
                picks[f"block{block}/channels"] = inside[self.factors.index(factor)]
        return from_picks(self, picks)

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads."""
        kinds, factors = [], []
        for block, c in enumerate(self._outputs(), start=1):
            kinds.append(str(OPERATIONS.index(str(arch[f"block{block}/op"]))))
            if len(self.factors) > 1:
                position = self._inside(c).index(int(arch[f"block{block}/channels"]))
                factors.append(str(self.factors[position]))
        rows = [kinds, factors] if factors else [kinds]
        return ", ".join(f"({', '.join(row)})" for row in rows)


def _conv(builder: Builder, c_in: int, c_out: int, kernel_size: int, stride: int) -> nn.Module:
    return ConvBNReLU(c_in=c_in, c_out=c_out, kernel_size=kernel_size, stride=stride)


def _numbers(text: str, length: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InvalidArchitecture(f"expected numbers, got ({text:.200}): {error}") from error
    if len(numbers) != length:
        raise InvalidArchitecture(
            f"expected {length} numbers, one a block; got {len(numbers)} in ({text:.200})"
        )
    return numbers
