"""Where searches that grow networks start."""

from __future__ import annotations

from collections.abc import Sequence

from nas.architecture import Architecture, Scalar
from nas.space import SearchSpace
from nas.strategy import initial_architectures


def starting(space: SearchSpace, initial: Sequence[str]) -> list[Architecture]:
    """The architectures given or, where none is, the plainest: the first of all legal options."""
    return initial_architectures(space, initial) or [plainest(space)]


def plainest(space: SearchSpace) -> Architecture:
    """The first legal option of every choice: the smallest network where options ascend."""
    picks: dict[str, Scalar] = {}
    while (step := space.legal(picks)) is not None:
        choice, options = step
        picks[choice.label] = options[0]
    return Architecture.of_legal(space.name, tuple(picks.items()))
