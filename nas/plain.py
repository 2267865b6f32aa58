"""Architectures that are plain: the first legal option wherever nothing else is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from nas.architecture import Architecture, Scalar
from nas.space import SearchSpace


def plainest(space: SearchSpace) -> Architecture:
    """The first legal option of every choice: the smallest network where options ascend."""
    return nearest_to(space, {})


def nearest_to(space: SearchSpace, wanted: Mapping[str, Scalar]) -> Architecture:
    """The architecture that has these options where they are legal, and the first elsewhere."""
    made: dict[str, Scalar] = {}
    while (step := space.legal(made)) is not None:
        choice, options = step
        asked = wanted.get(choice.label)
        made[choice.label] = asked if asked is not None and asked in options else options[0]
    return Architecture.of_legal(space.name, tuple(made.items()))
