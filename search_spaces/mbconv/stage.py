"""A stage of an MBConv network: blocks in a row, the first of which may change the shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nas.errors import ConfigError, nearest
from nas.layers.activations import ACTIVATIONS
from search_spaces.mbconv.operations import Operation, operation

SKIPS = ("identity", "pool", "none")


@dataclass(frozen=True)
class Stage:
    """Blocks in a row. A tuple of one option is no choice, one of several is.

    Args:
        operations: of a block, as ``ir_k5_e6`` (``search_spaces.mbconv.operations``); each has
            weights of its own.
        channels: of the stage's output, before the width multiplier.
        depths: how many blocks.
        stride: of the first block.
        kernels: odd, for operations that leave theirs open; one set of weights serves all.
        expansions: likewise; several of them must be whole numbers.
        squeezes: squeezed channels, in per cent; 0 is no squeeze-and-excitation.
        skips: what is added to a block that keeps the shape: its input (``identity``), a 3×3
            average pool of it (``pool``) or nothing (``none``).
        activation: of the blocks.
        shared: one pick for all blocks of the stage, instead of one for each.
    """

    operations: tuple[str, ...]
    channels: tuple[int, ...]
    depths: tuple[int, ...] = (1,)
    stride: int = 1
    kernels: tuple[int, ...] = ()
    expansions: tuple[float, ...] = ()
    squeezes: tuple[int, ...] = (0,)
    skips: tuple[str, ...] = ("identity",)
    activation: str = "relu6"
    shared: bool = False

    def __post_init__(self) -> None:
        for name in (*_LEAST, "operations", "expansions", "skips"):
            _options(self, name)
        for name, least in _LEAST.items():
            for value in getattr(self, name):
                if type(value) is not int or value < least:
                    raise ConfigError(
                        f"stage: {name} must be whole numbers of at least {least}, got {value!r}"
                    )
        if type(self.stride) is not int or self.stride < 1:
            raise ConfigError(f"stage: stride must be at least 1, got {self.stride!r}")
        for skip in self.skips:
            if skip not in SKIPS:
                raise ConfigError(f"stage: no skip {skip!r}: {nearest(skip, SKIPS)}")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(
                f"stage: no activation {self.activation!r}: {nearest(self.activation, ACTIVATIONS)}"
            )
        self._check_kernels()
        self._check_expansions()
        self._check_squeezes()
        if not self.working():
            raise ConfigError(f"stage: only skips among the operations {self.operations}")
        if any(op.skips for op in self.parsed()):
            if self.skips != ("identity",):
                raise ConfigError(
                    f"stage: a block that is skipped is its input, so skips must be "
                    f"('identity',), got {self.skips}"
                )
            for name in ("depths", "kernels", "expansions", "squeezes"):
                if len(getattr(self, name)) > 1:
                    raise ConfigError(
                        f"stage: with 'skip' among the operations, {name} cannot be open, got "
                        f"{getattr(self, name)}"
                    )
            if self.shared:
                raise ConfigError("stage: blocks that share their pick cannot be skipped")

    def parsed(self) -> list[Operation]:
        """The operations, read."""
        return [operation(text) for text in self.operations]

    def working(self) -> list[Operation]:
        """Those that do something."""
        return [op for op in self.parsed() if not op.skips]

    def _check_kernels(self) -> None:
        for op in self.working():
            if bool(self.kernels) == (op.kernel is not None):
                raise ConfigError(
                    f"stage: {op.text!r} and kernels {self.kernels}: the kernel must be given once"
                )
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError(f"stage: kernels must be odd, got {self.kernels}")

    def _check_expansions(self) -> None:
        for op in self.working():
            if op.expands and bool(self.expansions) == (op.expansion is not None):
                raise ConfigError(
                    f"stage: {op.text!r} and expansions {self.expansions}: the expansion must be "
                    "given once"
                )
            if not op.expands and len(self.expansions) > 1:
                raise ConfigError(f"stage: {op.text!r} has no expansion, got {self.expansions}")
        if any(value <= 0 for value in self.expansions):
            raise ConfigError(f"stage: expansions must be positive, got {self.expansions}")
        if len(self.expansions) > 1 and not all(type(value) is int for value in self.expansions):
            raise ConfigError(
                f"stage: several expansions must be whole numbers, got {self.expansions}"
            )

    def _check_squeezes(self) -> None:
        for op in self.working():
            if any(self.squeezes) and (op.kind in ("er", "uib") or op.groups > 1):
                raise ConfigError(f"stage: {op.text!r} cannot be squeezed, got {self.squeezes}")


_LEAST = {"channels": 1, "depths": 1, "kernels": 1, "squeezes": 0}
"""Arguments that are whole numbers, and the least of each."""


def _options(stage: Stage, name: str) -> None:
    """Makes a tuple of an argument's options: non-empty but for what operations may say."""
    options: Any = getattr(stage, name)
    if isinstance(options, str) or not hasattr(options, "__iter__"):
        raise ConfigError(f"stage: {name} must be a tuple of options, got {options!r}")
    options = tuple(options)
    if name == "expansions":  # a pick is an integer: 3.0 from a file is 3
        options = tuple(int(value) if value == int(value) else value for value in options)
    if not options and name not in ("kernels", "expansions"):
        raise ConfigError(f"stage: {name} must have at least one option")
    if len(set(options)) != len(options):
        raise ConfigError(f"stage: {name} has equal options: {options}")
    object.__setattr__(stage, name, options)


def places(stage: Stage, number: int) -> Iterator[tuple[int, str]]:
    """Each block's index, and the label that its choices begin with."""
    for index in range(max(stage.depths)):
        yield index, f"stage{number}" if stage.shared else f"stage{number}/block{index + 1}"
