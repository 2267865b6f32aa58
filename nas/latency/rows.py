"""Rows of features that latency is linear in, or nearly: what models of whole networks are given.

Besides the blocks of ``nas.predictor.Inputs`` (which option each choice has, how often each option
is taken, their products) there is ``"work"``: the multiply-accumulates that the slots with one and
the same option do together, and the multiply-accumulates and parameters of the whole network. With
``"counts"`` it says that an operation takes so long each time it is there and so long for each
unit of its work, which few measurements teach; ``"options"`` is what differs from that, place by
place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.cost import SlotTable, parameters_and_macs, slot_table
from nas.errors import UnsupportedRequest
from nas.predictor import Inputs
from nas.space import SearchSpace, sample

Floats = NDArray[np.float64]

WORK = "work"
_OF_INPUTS = ("options", "counts", "numbers", "pairs", "interactions")
_REFERENCE = 256


class LatencyRows:
    """Makes blocks of features for the architectures of one space.

    Args:
        space: theirs.

    Attributes:
        names: of the blocks there are: a space without options in common has no ``"counts"``, one
            with very many choices no ``"interactions"``.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._inputs = Inputs(space, _OF_INPUTS)
        try:
            self._table: SlotTable | None = slot_table(space)
        except UnsupportedRequest:  # the work of its slots is no sum: that of the whole remains
            self._table = None
        self._options = sorted(
            {option for costs in self._table.slots.values() for option in costs}
            if self._table
            else ()
        )
        rng = np.random.default_rng(0)
        raw = self._work([sample(space, rng) for _ in range(_REFERENCE)])
        spread = raw.std(axis=0)
        self._columns = np.flatnonzero(spread > 1e-9)
        self._centre = raw[:, self._columns].mean(axis=0)
        # As the blocks of ``Inputs`` are: the mean squared length of a row is 1.
        self._spread = spread[self._columns] * np.sqrt(max(1, len(self._columns)))
        self.names = (*self._inputs.names, *((WORK,) if len(self._columns) else ()))

    def __call__(self, archs: Sequence[Architecture]) -> dict[str, Floats]:
        """Each block's rows, one an architecture (architectures are not checked)."""
        rows = self._inputs(archs).astype(np.float64)
        ends = np.cumsum(self._inputs.widths)[:-1]
        blocks = dict(zip(self._inputs.names, np.split(rows, ends, axis=1), strict=True))
        if len(self._columns):
            work = self._work(archs)[:, self._columns]
            blocks[WORK] = (work - self._centre) / self._spread
        return blocks

    def _work(self, archs: Sequence[Architecture]) -> Floats:
        column = {option: number for number, option in enumerate(self._options)}
        rows = np.zeros((len(archs), len(column) + 2))
        for row, arch in zip(rows, archs, strict=True):
            row[-2:] = parameters_and_macs(self.space, arch)
            if self._table is not None:
                for label, option in self.space.slots(arch).items():
                    row[column[option]] += self._table.slots[label][option].macs
        return rows
