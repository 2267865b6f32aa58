"""What the spaces of two-input cells share: operations by name, and the network of the cells.

The network is that of the DARTS code (Liu, Simonyan & Yang, ICLR 2019): cells a third and two
thirds of the way are reductions, which halve the size and double the channels; the two inputs
of a cell are first brought to its width, and to its size where the cell before reduced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Literal, Protocol

from torch import nn

from nas.builder import Factory
from nas.errors import ConfigError, nearest
from nas.layers.basic import ReLUConvBN
from nas.layers.cells import (
    AsymmetricConv,
    AuxiliaryCellNetwork,
    AuxiliaryHead,
    CellNetwork,
    CifarStem,
    DilConv,
    DropPath,
    FactorizedReduction,
    ImageNetStem,
    SepConv,
)
from nas.space import check_input

Stem = Literal["cifar", "imagenet"]
STEMS = ("cifar", "imagenet")
STEM_MULTIPLIER = 3


def operation(name: str, c: int, stride: int) -> Factory:
    """The module of an operation's name, as ``sep_conv_3x3``, of so many channels in and out."""
    if name == "skip_connect":
        return nn.Identity if stride == 1 else partial(FactorizedReduction, c_in=c, c_out=c)
    kind, _, size = name.rpartition("_")
    kernel_size = int(size.split("x")[-1])
    if kind == "max_pool":
        return partial(
            nn.MaxPool2d, kernel_size=kernel_size, stride=stride, padding=kernel_size // 2
        )
    if kind == "avg_pool":
        return partial(
            nn.AvgPool2d,
            kernel_size=kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            count_include_pad=False,
        )
    kinds: dict[str, type[nn.Module]] = {
        "sep_conv": SepConv,
        "dil_conv": DilConv,
        "conv": ReLUConvBN,
        f"conv_{kernel_size}x1": AsymmetricConv,
    }
    return partial(kinds[kind], c_in=c, c_out=c, kernel_size=kernel_size, stride=stride)


class CellSpace(Protocol):
    """The arguments that all of these spaces take."""

    @property
    def channels(self) -> int: ...
    @property
    def cells(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def input(self) -> tuple[int, ...]: ...
    @property
    def stem(self) -> str: ...
    @property
    def auxiliary(self) -> bool: ...
    @property
    def drop_path(self) -> float: ...


def check_arguments(space: CellSpace, name: str) -> None:
    """Raises ``ConfigError`` for what no network can be built with; the input becomes a tuple."""
    object.__setattr__(space, "input", check_input(space.input, name))
    if len(space.input) != 3:
        raise ConfigError(f"{name}: input must be (channels, height, width), got {space.input}")
    for argument, least in (("channels", 2), ("cells", 1), ("classes", 1)):
        if getattr(space, argument) < least:
            raise ConfigError(
                f"{name}: {argument} must be at least {least}, got {getattr(space, argument)}"
            )
    if space.stem not in STEMS:
        raise ConfigError(f"{name}: there is no stem {space.stem!r}: {nearest(space.stem, STEMS)}")
    if not 0 <= space.drop_path < 1:
        raise ConfigError(f"{name}: drop_path must be from 0 to below 1, got {space.drop_path}")
    needed = 5 + _auxiliary_stride(space)
    size = min(_size_at_auxiliary_head(space))
    if space.auxiliary and size < needed:
        raise ConfigError(
            f"{name}: the auxiliary head needs a state of at least {needed}×{needed} places, but "
            f"input {space.input} leaves {size} behind the second reduction"
        )


@dataclass(frozen=True)
class Place:
    """Where a cell stands in the network.

    Attributes:
        kind: ``"normal"`` or ``"reduce"``.
        c: channels of each of its states.
        c_before, c_last: channels of what comes in.
        halve_before: whether the first input is of twice the size of the second.
        drop_path: probability of its edges' DropPath.
    """

    kind: Literal["normal", "reduce"]
    c: int
    c_before: int
    c_last: int
    halve_before: bool
    drop_path: float

    def plain(self) -> tuple[Any, ...]:
        """The arguments that make the same again: what ``builder.part`` knows a cell by."""
        return astuple(self)

    def stride(self, source: int) -> int:
        """Of an edge from this state: edges from the inputs of a reduction halve the size."""
        return 2 if self.kind == "reduce" and source < 2 else 1

    def prepare(self) -> tuple[nn.Module, nn.Module]:
        """Brings the two inputs to the cell's width and size."""
        before: nn.Module
        if self.halve_before:
            before = FactorizedReduction(c_in=self.c_before, c_out=self.c)
        else:
            before = ReLUConvBN(c_in=self.c_before, c_out=self.c, kernel_size=1)
        return before, ReLUConvBN(c_in=self.c_last, c_out=self.c, kernel_size=1)

    def dropped(self, edge: nn.Module) -> nn.Module:
        """An edge with its DropPath, where there is one and the edge is no identity."""
        if self.drop_path == 0 or isinstance(edge, nn.Identity):
            return edge
        return nn.Sequential(edge, DropPath(probability=self.drop_path))


def assemble(space: CellSpace, make_cell: Callable[[Place], tuple[nn.Module, int]]) -> nn.Module:
    """The network around the cells.

    Args:
        make_cell: a cell and the channels of what it gives on.
    """
    c_stem = space.channels * (STEM_MULTIPLIER if space.stem == "cifar" else 1)
    stem = (CifarStem if space.stem == "cifar" else ImageNetStem)(c_in=space.input[0], c_out=c_stem)
    reductions = {space.cells // 3, 2 * space.cells // 3}
    behind = 2 * space.cells // 3
    c, c_before, c_last, c_behind = space.channels, c_stem, c_stem, 0
    halve_before = space.stem == "imagenet"
    cells = nn.ModuleList()
    for index in range(space.cells):
        kind: Literal["normal", "reduce"] = "reduce" if index in reductions else "normal"
        c = 2 * c if kind == "reduce" else c
        cell, c_out = make_cell(Place(kind, c, c_before, c_last, halve_before, space.drop_path))
        cells.append(cell)
        c_before, c_last = c_last, c_out
        halve_before = kind == "reduce"
        if index == behind:
            c_behind = c_out
    classifier = nn.Linear(c_last, space.classes)
    if not space.auxiliary:
        return CellNetwork(stem, cells, classifier)
    head = AuxiliaryHead(c_in=c_behind, classes=space.classes, stride=_auxiliary_stride(space))
    return AuxiliaryCellNetwork(stem, cells, classifier, head, behind)


def _auxiliary_stride(space: CellSpace) -> int:
    return 3 if space.stem == "cifar" else 2


def _size_at_auxiliary_head(space: CellSpace) -> list[int]:
    reductions = {space.cells // 3, 2 * space.cells // 3}
    halvings = len(reductions) + (3 if space.stem == "imagenet" else 0)
    return [-(-size // 2**halvings) for size in space.input[1:]]
