"""Which architectures train the shared weights in a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nas.architecture import Architecture, Scalar
from nas.errors import InvalidArchitecture, UnsupportedRequest
from nas.space import SearchSpace, from_picks, sample
from nas.supernet.sizes import Options, Sizes, draw_within, only

Paths = Callable[[np.random.Generator], Sequence[Architecture]]
"""Draws the architectures of one step."""


def uniform_paths(space: SearchSpace, count: int = 1) -> Paths:
    """Random architectures, as ``nas.space.sample`` draws them.

    Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020.
    """
    return lambda rng: [sample(space, rng) for _ in range(count)]


def fair_paths(space: SearchSpace) -> Paths:
    """So many architectures a step that every option of every choice is in exactly one of them.

    Each choice's options are dealt in a random order of its own. Chu et al., "FairNAS", ICCV 2021.

    Raises:
        UnsupportedRequest: choices differ in how many options they have, or depend on others.
    """
    first, *others = space.choices
    for choice in others:
        if len(choice.options) != len(first.options):
            raise UnsupportedRequest(
                f"{space.name!r} cannot be sampled with strict fairness: {first.label!r} has "
                f"{len(first.options)} options and {choice.label!r} has {len(choice.options)}, so "
                "they cannot all be trained equally often in one step; sample uniformly"
            )

    def draw(rng: np.random.Generator) -> list[Architecture]:
        orders = {
            choice.label: [choice.options[i] for i in rng.permutation(len(choice.options))]
            for choice in space.choices
        }
        return [deal(orders, turn) for turn in range(len(first.options))]

    def deal(orders: Mapping[str, Sequence[Scalar]], turn: int) -> Architecture:
        try:
            return from_picks(space, {label: order[turn] for label, order in orders.items()})
        except InvalidArchitecture as error:
            raise UnsupportedRequest(
                f"{space.name!r} cannot be sampled with strict fairness: its choices depend on "
                f"each other ({error}); sample uniformly"
            ) from error

    rng = np.random.default_rng(0)
    for _ in range(20):  # what depends on others shows itself before any training
        draw(rng)
    return draw


def sandwich_paths(space: SearchSpace, sizes: Sizes, count: int = 2) -> Paths:
    """The largest architecture, random ones, and the smallest.

    Yu & Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019. Slots
    of the largest and of the smallest are random.
    """
    labels = (*sizes.of_weights, *sizes.images)
    largest, smallest = only(sizes, labels, 0), only(sizes, labels, -1)
    return lambda rng: [
        draw_within(space, largest, rng),
        *(sample(space, rng) for _ in range(count)),
        draw_within(space, smallest, rng),
    ]


def paths_within(space: SearchSpace, sizes: Sizes, allowed: Options, count: int) -> Paths:
    """Random architectures of these options, on images of one size."""

    def draw(rng: np.random.Generator) -> list[Architecture]:
        image = {
            label: (sizes.options[label][int(rng.integers(len(sizes.options[label])))],)
            for label in sizes.images
        }
        return [draw_within(space, {**allowed, **image}, rng) for _ in range(count)]

    return draw
