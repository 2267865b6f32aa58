"""The blocks of the MBConv spaces by a short text, as ``ir_k5_e6``.

===========  ================================================================================
``conv_kN``   convolution, batch norm, activation
``ds_kN``     depthwise-separable: a depthwise and a linear 1×1 convolution
``ir_kN_eX``  inverted bottleneck of X times the channels; ``_gN`` more: in N groups, shuffled
``er_kN_eX``  fused inverted bottleneck ("edge residual"): one full convolution to expand
``uib_aM_kN_eX``  universal inverted bottleneck: depthwise kernel M before it, N inside; 0 is none
``skip``      the input as it is; offered only where the shape stays
``skip1x1``   the input as it is where the shape stays, a 1×1 convolution elsewhere
===========  ================================================================================

A part that the text leaves out (``ir_e3``, ``ir``) is open: the stage says it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from nas.errors import ConfigError, nearest
from nas.layers.activations import ACTIVATIONS
from nas.layers.attention import divisible
from nas.layers.mobile import (
    ConvBNAct,
    FusedInvertedBottleneck,
    GroupedInvertedBottleneck,
    InvertedBottleneck,
    SeparableBottleneck,
    SqueezedConv,
    SqueezedInvertedBottleneck,
    SqueezedSeparableBottleneck,
    UniversalInvertedBottleneck,
)

KINDS: dict[str, str] = {
    "conv": "k",
    "ds": "k",
    "ir": "keg",
    "er": "ke",
    "uib": "ake",
    "skip": "",
    "skip1x1": "",
}
"""Each kind, and the letters of the parts it has."""


@dataclass(frozen=True)
class Operation:
    """A block as its text says it.

    Attributes:
        text: of the operation.
        kind: one of ``KINDS``.
        kernel: of the (inner) depthwise or the full convolution; ``None`` is open.
        expansion: hidden channels per input channel; ``None`` is open, or has no meaning.
        groups: of the 1×1 convolutions.
        start_kernel: of the depthwise convolution before the bottleneck.
    """

    text: str
    kind: str
    kernel: int | None
    expansion: float | None
    groups: int
    start_kernel: int

    @property
    def expands(self) -> bool:
        """Whether it has hidden channels."""
        return "e" in KINDS[self.kind]

    @property
    def skips(self) -> bool:
        """Whether it is the input as it is, where the shape stays."""
        return self.kind in ("skip", "skip1x1")


@functools.cache
def operation(text: str) -> Operation:
    """Reads an operation; raises ``ConfigError`` with what was expected."""
    kind, *parts = text.split("_")
    if kind not in KINDS:
        raise ConfigError(f"no block {kind!r} in {text!r}: {nearest(kind, KINDS)}")
    values: dict[str, float] = {}
    for part in parts:
        match = re.fullmatch(r"([a-z])(\d+(?:\.\d+)?)", part)
        if match is None or match.group(1) not in KINDS[kind] or match.group(1) in values:
            letters = ", ".join(f"{letter}NUMBER" for letter in KINDS[kind]) or "nothing"
            raise ConfigError(f"{part!r} in {text!r}: expected {letters} after {kind!r}")
        values[match.group(1)] = float(match.group(2))
    for letter in "kga":
        value = values.get(letter, 1)
        if value != int(value) or (letter != "g" and value and not value % 2):
            raise ConfigError(f"{letter}{value:g} in {text!r}: expected an odd whole number")
        if not value and (kind != "uib" or letter == "g"):
            raise ConfigError(f"{letter}0 in {text!r}: expected at least 1")
    if values.get("e", 1) <= 0:
        raise ConfigError(f"e0 in {text!r}: expected a positive number")
    return Operation(
        text=text,
        kind=kind,
        kernel=int(values["k"]) if "k" in values else None,
        expansion=values.get("e"),
        groups=int(values.get("g", 1)),
        start_kernel=int(values.get("a", 0)),
    )


@dataclass(frozen=True)
class Squeeze:
    """How squeeze-and-excitation is sized and gated.

    Args:
        of: what a squeeze is a part of: ``input``, the block's input channels (MnasNet,
            EfficientNet), or ``hidden``, those that are squeezed (MobileNetV3).
        divisor: of the squeezed channels, rounded by the MobileNets' rule; 1 rounds down.
        activation: between its two convolutions.
        gate: ``sigmoid`` or ``hsigmoid``.
    """

    of: str = "input"
    divisor: int = 1
    activation: str = "relu"
    gate: str = "sigmoid"

    def __post_init__(self) -> None:
        for argument, value, known in (
            ("of", self.of, ("input", "hidden")),
            ("activation", self.activation, tuple(ACTIVATIONS)),
            ("gate", self.gate, ("sigmoid", "hsigmoid")),
        ):
            if value not in known:
                raise ConfigError(f"squeeze: no {argument} {value!r}: {nearest(value, known)}")
        if self.divisor < 1:
            raise ConfigError(f"squeeze: divisor must be at least 1, got {self.divisor}")

    def channels(self, percent: int, c_in: int, hidden: int) -> int:
        """How many channels are squeezed to; 0 per cent is none at all."""
        if not percent:
            return 0
        part = percent * (c_in if self.of == "input" else hidden) / 100
        return max(1, int(part)) if self.divisor == 1 else divisible(part, self.divisor)


DEFAULT_SQUEEZE = Squeeze()
"""MnasNet's."""


def hidden_channels(c_in: int, expansion: float) -> int:
    """The product where the expansion is a whole number, else rounded to a multiple of 8."""
    if expansion == int(expansion):
        return c_in * int(expansion)
    return divisible(c_in * expansion, 8)


def factory(
    op: Operation,
    *,
    c_in: int,
    c_out: int,
    stride: int,
    kernel_size: int,
    expansion: float,
    squeeze: Squeeze,
    percent: int,
    activation: str,
) -> Callable[[], nn.Module]:
    """What makes a block, without what is added to it: a module's class and plain values."""
    if op.skips:
        return functools.partial(
            ConvBNAct, c_in=c_in, c_out=c_out, kernel_size=1, stride=stride, activation=activation
        )
    shape: dict[str, Any] = {
        "c_in": c_in,
        "c_out": c_out,
        "kernel_size": kernel_size,
        "stride": stride,
        "activation": activation,
    }
    hidden = hidden_channels(c_in, expansion) if op.expands else c_in
    squeezed = squeeze.channels(percent, c_in, c_out if op.kind == "conv" else hidden)
    if squeezed:
        shape |= {
            "squeezed": squeezed,
            "squeeze_activation": squeeze.activation,
            "gate": squeeze.gate,
        }
    if op.kind == "conv":
        return functools.partial(SqueezedConv if squeezed else ConvBNAct, **shape)
    if op.kind == "ds":
        separable = SqueezedSeparableBottleneck if squeezed else SeparableBottleneck
        return functools.partial(separable, **shape)
    shape["hidden"] = hidden
    if op.kind == "er":
        return functools.partial(FusedInvertedBottleneck, **shape)
    if op.kind == "uib":
        return functools.partial(UniversalInvertedBottleneck, start_kernel=op.start_kernel, **shape)
    if op.groups > 1:
        return functools.partial(GroupedInvertedBottleneck, groups=op.groups, **shape)
    return functools.partial(
        SqueezedInvertedBottleneck if squeezed else InvertedBottleneck, **shape
    )
