"""Where searches that grow networks start."""

from __future__ import annotations

from collections.abc import Sequence

from nas.architecture import Architecture
from nas.plain import plainest
from nas.space import SearchSpace
from nas.strategy import initial_architectures


def starting(space: SearchSpace, initial: Sequence[str]) -> list[Architecture]:
    """The architectures given or, where none is, the plainest: the first of all legal options."""
    return initial_architectures(space, initial) or [plainest(space)]
