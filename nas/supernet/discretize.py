"""From a relaxed architecture to a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from nas.architecture import Architecture, Choice, Scalar
from nas.errors import UnsupportedRequest, nearest
from nas.space import SearchSpace

Weights = Mapping[str, Sequence[float]]
"""Plain numbers over the options of each slot, and of each depth where one is open."""


@runtime_checkable
class HasDiscretize(Protocol):
    """A space whose slots are not its choices: it says which architecture the weights mean.

    ``discretize(one_hot(slots(arch))) == arch``.
    """

    def discretize(self, weights: Weights) -> Architecture: ...


def discretize(space: SearchSpace, weights: Weights) -> Architecture:
    """The architecture of the largest weights.

    By the space's own rule where it has one. Else choice by choice in the space's order: the
    legal option of the largest weight (the first of equals), and the largest legal number where
    a number has no weights.

    Raises:
        UnsupportedRequest: weights do not fit a choice's options, or a choice that is not a
            number has none.
    """
    if isinstance(space, HasDiscretize):
        return space.discretize(weights)
    picks: dict[str, Scalar] = {}
    while (step := space.legal(picks)) is not None:
        choice, options = step
        picks[choice.label] = _strongest(space, choice, options, weights)
    return Architecture(space.name, tuple(picks.items()))


def one_hot_weights(
    space: SearchSpace, arch: Architecture, slots: Mapping[str, Sequence[str]]
) -> Weights:
    """An architecture as weights: 1 for what each slot, number and depth holds.

    Args:
        slots: the options of every slot (``Supernet.slots``).
    """
    held = space.slots(arch)
    weights = {
        label: [1.0 if option == held.get(label) else 0.0 for option in options]
        for label, options in slots.items()
    }
    picks = arch.as_dict()
    for choice in space.choices:
        if choice.label not in weights:
            picked = picks.get(choice.label)
            weights[choice.label] = [1.0 if o == picked else 0.0 for o in choice.options]
    return weights


def _strongest(
    space: SearchSpace, choice: Choice, options: Sequence[Scalar], weights: Weights
) -> Scalar:
    if choice.label not in weights:
        if all(isinstance(option, int | float) for option in options):
            return max(options, key=float)
        raise UnsupportedRequest(
            f"{space.name!r}: no weights for {choice.label!r}: {nearest(choice.label, weights)}"
        )
    given = list(weights[choice.label])
    if len(given) != len(choice.options):
        raise UnsupportedRequest(
            f"{space.name!r}: {choice.label!r} has {len(choice.options)} options, but "
            f"{len(given)} weights are given"
        )
    by_option = dict(zip(choice.options, given, strict=True))
    return max(options, key=lambda option: by_option[option])
