"""One block of an MBConv network, described to a builder."""

from __future__ import annotations

import functools

from torch import nn

from nas.builder import Builder, Factory
from nas.layers.mobile import ConvBNAct, NoShortcut, Residual, Shortcut
from search_spaces.mbconv.operations import Squeeze, factory, operation

_SHORTCUTS: dict[str, Factory | None] = {
    "identity": nn.Identity,
    "pool": functools.partial(nn.AvgPool2d, 3, stride=1, padding=1),
    "none": None,
}


def pick(builder: Builder, label: str, options: tuple[int, ...]) -> int:
    """What the builder answers where there are several options, else the only one."""
    return builder.number(label, options) if len(options) > 1 else options[0]


def describe_conv(
    builder: Builder, c_in: int, c_out: int, kernel_size: int, stride: int, activation: str
) -> nn.Module:
    """A convolution of the stem or the head, in which nothing is open."""
    return ConvBNAct(
        c_in=c_in, c_out=c_out, kernel_size=kernel_size, stride=stride, activation=activation
    )


def describe_block(
    builder: Builder,
    place: str,
    c_in: int,
    c_out: int,
    stride: int,
    operations: tuple[str, ...],
    kernels: tuple[int, ...],
    expansions: tuple[float, ...],
    squeezes: tuple[int, ...],
    skips: tuple[str, ...],
    activation: str,
    squeeze: tuple[str, int, str, str],
    may_keep: bool,
) -> nn.Module:
    """A block with what is added to it; ``nn.Identity`` where it is skipped.

    All arguments are plain, so that a reading may know the block again.

    Args:
        builder: what is asked.
        place: what the block's labels begin with.
        c_in, c_out, stride: the block's shape.
        operations, kernels, expansions, squeezes, skips, activation: of its stage.
        squeeze: the fields of a ``Squeeze``.
        may_keep: whether in some network of the space the block keeps the shape, so that its
            input can be added. Tensors have the same names in the others.
    """
    kernel = pick(builder, f"{place}/kernel", kernels) if kernels else 0
    expansion = expansions[0] if expansions else 0
    if len(expansions) > 1:
        expansion = builder.number(f"{place}/expansion", tuple(int(value) for value in expansions))
    percent = pick(builder, f"{place}/se", squeezes)
    keeps = stride == 1 and c_in == c_out
    options: dict[str, Factory | None] = {}
    for text in operations:
        op = operation(text)
        if op.skips and keeps:
            options[text] = None  # its input, which is added to it, is all of it
            continue
        options[text] = factory(
            op,
            c_in=c_in,
            c_out=c_out,
            stride=stride,
            kernel_size=op.kernel or kernel,
            expansion=op.expansion or expansion,
            squeeze=Squeeze(*squeeze),
            percent=percent,
            activation=activation,
        )
    if len(options) > 1:
        body = builder.edge(f"{place}/op", options)
    else:
        (make,) = options.values()
        body = make() if make else None
    if body is None:
        return nn.Identity()
    if not may_keep or skips == ("none",):
        return body
    shortcut = None
    if keeps and len(skips) > 1:
        shortcut = builder.edge(f"{place}/skip", {skip: _SHORTCUTS[skip] for skip in skips})
    elif keeps and (only := _SHORTCUTS[skips[0]]):
        shortcut = only()
    if shortcut is None:
        return NoShortcut(body)
    return Residual(body) if isinstance(shortcut, nn.Identity) else Shortcut(body, shortcut)
