"""The course of a training of shared weights: phases, each with its architectures and teacher.

- ``uniform``: SPOS (Guo et al., ECCV 2020), AutoFormer (Chen et al., ICCV 2021).
- ``fair``: FairNAS (Chu et al., ICCV 2021).
- ``sandwich``: universally slimmable networks (Yu & Huang, ICCV 2019) and BigNAS (Yu et al., ECCV
  2020): the largest architecture learns from the labels, the others of a step from it.
- ``progressive``: once-for-all (Cai et al., ICLR 2020): the largest network is trained, then
  smaller ones with it, as its kernels, depths, expansions and widths open one after the other. All
  learn from the labels and from the network that was trained first. Before expansions or widths
  open, channels are sorted by importance.

What differs: the sandwich's learning rate, augmentation and exit from residual branches are not
BigNAS's. Once-for-all's authors train the teacher apart and start the optimiser anew in every
phase; here it is the first phase, with a share of all epochs like theirs, its teacher sees images
at the largest resolution, and widths open last (theirs have a network each).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from nas.architecture import Architecture
from nas.errors import UnsupportedRequest
from nas.plain import nearest_to
from nas.space import SearchSpace
from nas.supernet.paths import Paths, fair_paths, paths_within, sandwich_paths, uniform_paths
from nas.supernet.sizes import Sizes, only, open_sizes

Teaching = Literal["labels", "first", "teacher"]
"""What a step's architectures learn from: the labels; all but the first from the first's softened
outputs; or the labels and a teacher, the largest network as it was when the first phase ended."""


@dataclass(frozen=True)
class Phase:
    """A part of a training.

    Attributes:
        name: for people.
        weight: how long it is, beside the others'.
        paths: draws the architectures of a step.
        teaching: what they learn from.
        rate: the learning rate at its start, as a share of the settings'; each phase goes through
            the whole schedule.
        sort: numbers whose channels are sorted by importance when it begins.
        trained: architectures that channels are not moved between the sizes of, then.
    """

    name: str
    weight: float
    paths: Paths
    teaching: Teaching = "labels"
    rate: float = 1.0
    sort: tuple[str, ...] = ()
    trained: tuple[Architecture, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Phases in their order, and the architecture that teaches, where one does."""

    phases: tuple[Phase, ...]
    teacher: Architecture | None = None

    def starts(self, epochs: int) -> list[float]:
        """After how many epochs each phase begins, and the last one ends."""
        whole = sum(phase.weight for phase in self.phases)
        done, found = 0.0, [0.0]
        for phase in self.phases[:-1]:
            done += phase.weight
            found.append(epochs * done / whole)
        return [*found, float(epochs)]


def single(paths: Paths, teaching: Teaching = "labels") -> Plan:
    """One phase."""
    return Plan((Phase("all", 1.0, paths, teaching),))


def uniform(space: SearchSpace, count: int | None) -> Plan:
    """Random architectures, ``count`` (1) a step."""
    return single(uniform_paths(space, count or 1))


def fair(space: SearchSpace, count: int | None) -> Plan:
    """Every option of every choice once a step.

    Raises:
        UnsupportedRequest: the space has no such steps, or a count is asked for.
    """
    if count is not None:
        raise UnsupportedRequest(
            f"fair sampling trains every option once a step, so paths must be None, got {count}"
        )
    return single(fair_paths(space))


def sandwich(space: SearchSpace, count: int | None) -> Plan:
    """The largest, ``count`` (2) random ones and the smallest; the largest teaches.

    Raises:
        UnsupportedRequest: no size is open.
    """
    sizes = _sizes(space)
    return single(sandwich_paths(space, sizes, 2 if count is None else count), "first")


# Of the authors' code: epochs, the learning rate beside the first phase's 2.6 (for 2,048 images),
# and how many architectures a step trains. What is opened in two goes opens its second size first.
_FULL = 180.0
_KERNELS = (120.0, 0.96 / 2.6, 1)
_HALF = (25.0, 0.08 / 2.6)
_WHOLE = (120.0, 0.24 / 2.6)


def progressive(space: SearchSpace, count: int | None) -> Plan:
    """Once-for-all's phases; ``count`` is of the architectures a step of each but the first.

    Raises:
        UnsupportedRequest: no size is open.
    """
    sizes = _sizes(space)
    allowed = only(sizes, sizes.of_weights, 0)
    every = only(sizes, (*sizes.of_weights, *sizes.images), 0)
    largest = nearest_to(space, {label: options[0] for label, options in every.items()})
    phases = [Phase("largest", _FULL, paths_within(space, sizes, dict(allowed), 1))]

    def opened(
        name: str, options: Mapping[str, tuple[int, ...]], weight: float, rate: float, paths: int
    ) -> None:
        channels = set(options) <= {*sizes.inner, *sizes.widths}
        sort = tuple(options) if channels else ()
        trained = _extents(space, sizes, allowed) if channels else ()
        allowed.update(options)
        drawn = paths_within(space, sizes, dict(allowed), count or paths)
        phases.append(Phase(name, weight, drawn, "teacher", rate, sort, trained))

    if sizes.kernels:
        opened("kernel", {label: sizes.options[label] for label in sizes.kernels}, *_KERNELS)
    for name, labels, paths in (
        ("depth", sizes.depths, 2),
        ("expansion", sizes.inner, 4),
        ("width", sizes.widths, 4),
    ):
        every = {label: sizes.options[label] for label in labels}
        if any(len(options) > 2 for options in every.values()):
            two = {label: tuple(sorted(options)[-2:]) for label, options in every.items()}
            opened(f"{name}, two sizes", two, *_HALF, paths)
        if labels:
            opened(name, every, *_WHOLE, paths)
    return Plan(tuple(phases), largest)


def _extents(
    space: SearchSpace, sizes: Sizes, allowed: Mapping[str, tuple[int, ...]]
) -> tuple[Architecture, ...]:
    """Architectures that have every number of channels that these options give, at every depth.

    Of a network that is not as deep, what follows reads another block's channels.
    """
    kinds = (sizes.inner, sizes.widths, sizes.depths)
    ranks = [range(max((len(allowed[label]) for label in labels), default=1)) for labels in kinds]
    found = []
    for places in itertools.product(*ranks):
        picks = {label: max(options) for label, options in sizes.options.items()}
        for labels, rank in zip(kinds, places, strict=True):
            for label in labels:
                ordered = sorted(allowed[label], reverse=True)
                picks[label] = ordered[min(rank, len(ordered) - 1)]
        found.append(nearest_to(space, picks))
    return tuple(dict.fromkeys(found))


def _sizes(space: SearchSpace) -> Sizes:
    sizes = open_sizes(space)
    if not sizes.of_weights:
        raise UnsupportedRequest(
            f"{space.name!r} has no size that is open (numbers, depths), so none of its networks "
            "is the largest: sample uniformly"
        )
    return sizes


PLANS: dict[str, Callable[[SearchSpace, int | None], Plan]] = {
    "uniform": uniform,
    "fair": fair,
    "sandwich": sandwich,
    "progressive": progressive,
}
"""By the name of the sampling; of a space and of how many random architectures a step has."""
