"""The fixed reading of a network that remembers which of its modules are one operation.

What makes one is said in ``nas.latency.units``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from nas.architecture import Architecture
from nas.builder import Factory, FixedBuilder
from nas.space import SearchSpace

MOST_OPEN = 2
"""A block in which more slots are open than this is taken apart."""

MOST_LEAVES = 8
"""A module without anything open in it, but with more leaves than this, is taken apart."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class Scope:
    """What was asked for while a block was described."""

    labels: list[str] = field(default_factory=list)
    slots: int = 0
    nested: bool = False

    @property
    def whole(self) -> bool:
        return not self.nested and self.slots <= MOST_OPEN


class Marking:
    """The fixed reading, which remembers the modules that are operations."""

    def __init__(self, space: SearchSpace, arch: Architecture) -> None:
        self._fixed = FixedBuilder(space, arch)
        self._scopes = [Scope(nested=True)]
        self.marked: set[nn.Module] = set()
        self.open: set[nn.Module] = set()
        self._own: dict[tuple[str, ...], None] = {}
        self.depths: dict[str, None] = {}
        self._around: dict[str, None] = {}

    def slot(self, label: str, options: Mapping[str, Factory]) -> nn.Module:
        self._scopes[-1].slots += 1
        found: nn.Module = self._block(lambda: self._fixed.slot(label, options), label)
        return found

    def edge(self, label: str, options: Mapping[str, Factory | None]) -> nn.Module | None:
        self._scopes[-1].slots += 1
        found: nn.Module | None = self._block(lambda: self._fixed.edge(label, options), label)
        return found

    def number(self, label: str, options: Sequence[int] = ()) -> int:
        self._scopes[-1].labels.append(label)
        return self._fixed.number(label, options)

    def depth(
        self, label: str, block: Callable[[int], nn.Module], options: Sequence[int] = ()
    ) -> list[nn.Module]:
        self.depths[label] = None
        self._scopes[-1].nested = True
        many = self._fixed.number(label, options)
        return [self._block(functools.partial(block, index)) for index in range(many)]

    def subset(self, label: str, of: int) -> tuple[int, ...]:
        self._scopes[-1].nested = True
        self._scopes[-1].labels.append(label)
        return self._fixed.subset(label, of)

    def part(self, describe: Callable[..., nn.Module], *args: Any) -> nn.Module:
        found: nn.Module = self._block(lambda: describe(self, *args))
        return found

    def _block(self, make: Callable[[], Any], *labels: str) -> Any:
        above, scope = self._scopes[-1], Scope(list(labels))
        self._scopes.append(scope)
        try:
            module = make()
        finally:
            self._scopes.pop()
        above.slots += scope.slots
        above.nested = above.nested or scope.nested
        if scope.whole:
            self._own[tuple(dict.fromkeys(scope.labels))] = None
            above.labels += scope.labels
        else:
            self._around.update(dict.fromkeys(scope.labels))
        if module is not None:
            (self.marked if scope.whole else self.open).add(module)
        return module

    def own(self) -> tuple[tuple[str, ...], ...]:
        """The labels of each block."""
        return tuple(labels for labels in self._own if labels)

    def around(self) -> tuple[str, ...]:
        """The labels outside of all blocks."""
        inside = {label for labels in self._own for label in labels}
        outside = [*self._around, *self._scopes[0].labels]
        return tuple(label for label in dict.fromkeys(outside) if label not in inside)


def operations_in(built: nn.Module, builder: Marking) -> dict[nn.Module, str]:
    """The modules that are operations, with their names."""
    taken_apart = builder.marked | builder.open
    found: dict[nn.Module, str] = {}

    def walk(module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            at = f"{path}.{name}" if path else name
            if child in builder.marked:
                found.setdefault(child, at)
            elif type(child) in _CONTAINERS or not taken_apart.isdisjoint(child.modules()):
                walk(child, at)
            elif _leaves(child) <= MOST_LEAVES:
                found.setdefault(child, at)
            else:
                walk(child, at)

    walk(built, "")
    return found


def _leaves(module: nn.Module) -> int:
    return sum(1 for inner in module.modules() if next(inner.children(), None) is None)
