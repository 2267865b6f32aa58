"""All operations that occur in a search space.

Where a space's choices are few around its blocks, they are found by going through the options of
all blocks at once, each block through the products of its own; whatever this leaves out is found
by sampling, which goes on until as many architectures again have brought nothing new.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from nas.architecture import Architecture
from nas.latency.units import Operation, Reading, read
from nas.plain import nearest_to
from nas.space import SearchSpace, sample

MOST_PLANNED = 2_000
"""Architectures that are read by plan, at most."""

LEAST_SAMPLED = 50
MOST_SAMPLED = 20_000

OnProgress = Callable[[int, int], None]
"""Told how many architectures were read and how many operations are known."""


def operations(
    space: SearchSpace,
    archs: Iterable[Architecture] | None = None,
    batch: int = 1,
    on_progress: OnProgress | None = None,
) -> dict[str, Operation]:
    """The distinct operations of a space, or of these architectures, by their keys.

    In the order in which they are found, which is the same in every process. In a space whose
    operations are too many to be met by sampling some may be left out; ``LatencyTable.missing``
    names them when they turn up.

    Args:
        archs: only of these; all of the space's if not given.
        batch: examples at once.

    Raises:
        InvalidArchitecture: an architecture is not one of the space.
        UnsupportedRequest: a network cannot be run.
    """
    found: dict[str, Operation] = {}
    seen = 0

    def take(reading: Reading) -> int:
        nonlocal seen
        seen += 1
        before = len(found)
        for operation in reading.operations:
            found.setdefault(operation.key, operation)
        if on_progress is not None:
            on_progress(seen, len(found))
        return len(found) - before

    if archs is not None:
        for arch in archs:
            take(read(space, arch, batch))
        return found
    for arch in _planned(space, batch):
        take(read(space, arch, batch))
    rng = np.random.default_rng(0)
    last = 0  # the sample that brought the last new one
    for number in range(1, MOST_SAMPLED + 1):
        if take(read(space, sample(space, rng), batch)):
            last = number
        if number >= max(LEAST_SAMPLED, 2 * last):
            break
    return found


def _planned(space: SearchSpace, batch: int) -> Iterator[Architecture]:
    """Architectures that go through the options of every block together."""
    options = {choice.label: choice.options for choice in space.choices}
    rng = np.random.default_rng(0)
    reading = read(space, sample(space, rng), batch)
    # With all blocks there, what is open in them shows.
    deep = {label: max(options[label]) for label in reading.depths if label in options}
    reading = read(space, nearest_to(space, deep), batch)
    deep = {label: max(options[label]) for label in reading.depths if label in options}
    blocks = [
        tuple(label for label in labels if label in options)
        for labels in dict.fromkeys(reading.own)
    ]
    blocks = [labels for labels in blocks if labels]
    products = {
        labels: list(itertools.product(*(options[label] for label in labels))) for labels in blocks
    }
    around = [label for label in reading.around if label in options]
    rounds = max((len(product) for product in products.values()), default=1)
    planned = 0
    for held in itertools.product(*(options[label] for label in around)):
        wanted = {**deep, **dict(zip(around, held, strict=True))}
        for number in range(rounds):
            if planned >= MOST_PLANNED:
                return
            planned += 1
            for labels, product in products.items():
                wanted |= dict(zip(labels, product[number % len(product)], strict=True))
            yield nearest_to(space, wanted)
