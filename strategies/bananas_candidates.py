"""What a model-based strategy chooses among: a whole space that is small, or mutations of the best.

Spaces of at most ``whole`` architectures are listed and encoded once in a process, and scored in
one matrix product: no candidate is missed, and it is cheaper than making mutations one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from nas.architecture import Architecture, Scalar
from nas.predictor.inputs import Inputs, size_at_most
from nas.space import SearchSpace, enumerate_architectures, mutate, sample


class Whole:
    """All architectures of a space with their rows; shared by strategies, never changed.

    Attributes:
        archs: in the order of ``enumerate_architectures``.
        inputs: what makes the rows.
        rows: architectures × features, in single precision.
        index: an architecture's position.
    """

    def __init__(self, space: SearchSpace, blocks: Sequence[str]) -> None:
        self.archs = tuple(enumerate_architectures(space))
        self.inputs = Inputs(space, blocks, self.archs)
        assert self.inputs.rows is not None
        self.rows = self.inputs.rows
        self.rows.flags.writeable = False
        self.index = {arch.picks: position for position, arch in enumerate(self.archs)}


@functools.lru_cache(maxsize=2)
def _whole(space: Any, blocks: tuple[str, ...]) -> Whole:
    return Whole(space, blocks)


@functools.lru_cache(maxsize=8)
def _is_small(space: Any, limit: int) -> bool:
    return size_at_most(space, limit)


def whole(space: Any, blocks: tuple[str, ...], limit: int) -> Whole | None:
    """The whole space where it has at most ``limit`` architectures."""
    try:
        hash(space)
    except TypeError:  # a space that cannot be a key is listed anew for each strategy
        return Whole(space, blocks) if size_at_most(space, limit) else None
    return _whole(space, blocks) if _is_small(space, limit) else None


def balanced(space: SearchSpace, seed: int, number: int) -> Architecture:
    """Architecture ``number`` of a design in which every option comes up equally often.

    A Latin design: a choice of k options takes each once in k architectures in a row, in an order
    of its own. An option that is not legal where its turn comes is replaced by a random legal one.
    """
    rng = np.random.default_rng([seed, number, 2])
    made: dict[str, Scalar] = {}
    positions = {choice.label: position for position, choice in enumerate(space.choices)}
    while (step := space.legal(made)) is not None:
        choice, options = step
        k = len(choice.options)
        order = np.random.default_rng([seed, number // k, positions[choice.label], 3])
        option = choice.options[int(order.permutation(k)[number % k])]
        if option not in options:
            option = options[int(rng.integers(len(options)))]
        made[choice.label] = option
    return Architecture(space.name, tuple(made.items()))


def mutations(
    space: SearchSpace,
    parents: Sequence[Architecture],
    number: int,
    rng: np.random.Generator,
) -> list[Architecture]:
    """Different candidates: copies of the parents with one to three changes, a tenth random."""
    found: dict[Architecture, None] = {}
    for position in range(number):
        if not parents or position % 10 == 9:
            found[sample(space, rng)] = None
            continue
        arch = parents[position % len(parents)]
        for _ in range(1 + int(rng.integers(3))):
            arch = mutate(space, arch, rng)
        found[arch] = None
    return list(found)
