"""Random sub-networks whose costs are spread over the range.

Uniform draws have middling costs: the sum of many independent choices is hardly ever near its
ends, which is where limits lead to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nas.architecture import Architecture, Scalar
from nas.cost import parameters_and_macs
from nas.space import SearchSpace

BINS = 10
"""Of equal width in the logarithm of MACs."""
_FIRST = 64  # draws that the range of MACs is taken from
_OF = 8  # draws of which one is kept
_FRUITLESS = 200  # draws in a row that were all known: the space is exhausted, or nearly


def tilted(space: SearchSpace, level: float, rng: np.random.Generator) -> Architecture:
    """A random architecture whose numbers lie at a level of their ranges.

    A number's rank among its legal options is binomial with this probability, so that 0 gives the
    smallest everywhere and 1 the largest; other choices are drawn uniformly.
    """
    picks: dict[str, Scalar] = {}
    while (step := space.legal(picks)) is not None:
        choice, options = step
        if all(isinstance(option, int | float) for option in options):
            rank = int(rng.binomial(len(options) - 1, level))
            picks[choice.label] = sorted(options, key=float)[rank]
        else:
            picks[choice.label] = options[int(rng.integers(len(options)))]
    return Architecture.of_legal(space.name, tuple(picks.items()))


def spread_over_costs(space: SearchSpace, seed: int = 0) -> Iterator[Architecture]:
    """Different random architectures, their MACs spread evenly over ten bins of a log scale.

    Each is the one of eight draws whose bin has the fewest as yet. A draw is ``tilted``, its level
    uniform. It ends when hardly anything new is drawn any more. The same for the same seed, however
    many are taken.
    """
    rng = np.random.default_rng([seed, 11])
    levels = np.linspace(0, 1, _FIRST)
    first = [_log_macs(space, tilted(space, float(level), rng)) for level in levels]
    edges = np.linspace(min(first), max(first), BINS + 1)[1:-1]
    filled = [0] * BINS
    seen: set[Architecture] = set()
    fruitless = 0
    while fruitless < _FRUITLESS:
        best: tuple[int, int, Architecture] | None = None
        for _ in range(_OF):
            arch = tilted(space, rng.random(), rng)
            if arch in seen:
                fruitless += 1
                continue
            place = int(np.searchsorted(edges, _log_macs(space, arch)))
            if best is None or filled[place] < best[0]:
                best = filled[place], place, arch
        if best is not None:
            _, place, arch = best
            fruitless = 0
            filled[place] += 1
            seen.add(arch)
            yield arch


def _log_macs(space: SearchSpace, arch: Architecture) -> float:
    return math.log(max(1, parameters_and_macs(space, arch)[1]))
