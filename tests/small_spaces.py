"""Every search space of the project, small enough for its networks to run in a moment."""

from __future__ import annotations

from collections.abc import Callable

from nas.space import SearchSpace


def _chain() -> SearchSpace:
    from search_spaces.chain import Chain

    return Chain(input=(3, 16, 16), widths=(4, 6), depths=(1, 2, 3))


def _nasbench201() -> SearchSpace:
    from search_spaces.nasbench201 import NasBench201

    return NasBench201(channels=3, cells=1, input=(3, 8, 8))


SMALL: dict[str, Callable[[], SearchSpace]] = {
    "chain": _chain,
    "nasbench201": _nasbench201,
}
