"""Places that are permuted alike, in groups that grow as more of them are found to be tied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

Place = tuple[str, int]
"""A tensor's name and a dimension of it."""

POSITIONS = "its entries are positions"
"""The reason of a kernel's dimensions, which are no channels."""


class Axis(NamedTuple):
    """A dimension that holds the channels of a node, ``inner`` entries in a row for each."""

    node: int
    inner: int = 1


Dimension = Axis | str
"""A dimension of a value: channels, or the reason why its entries have to stay in their order."""


class Ties:
    """The groups of places that are known so far.

    Attributes:
        readers: places along which a tensor of weights takes its input.
    """

    def __init__(self) -> None:
        self.readers: set[Place] = set()
        self._parents: list[int] = []
        self._inner: list[int] = []
        self._reasons: list[str] = []
        self._nodes: dict[Place, int] = {}

    def new(self) -> Axis:
        """Channels that are tied to nothing yet."""
        self._parents.append(len(self._parents))
        self._inner.append(1)
        self._reasons.append("")
        return Axis(len(self._parents) - 1)

    def at(self, place: Place) -> Axis:
        """The channels of a place."""
        if place not in self._nodes:
            self._nodes[place] = self.new().node
        return Axis(self._nodes[place])

    def fix(self, dimension: Dimension, reason: str) -> None:
        """Leaves a group alone; the first reason is kept."""
        if isinstance(dimension, Axis):
            root, _ = self._find(dimension)
            self._reasons[root] = self._reasons[root] or reason

    def tie(self, one: Dimension, other: Dimension) -> Dimension:
        """Makes two dimensions of equal size the same channels."""
        if isinstance(one, str) or isinstance(other, str):
            reason = one if isinstance(one, str) else other
            assert isinstance(reason, str)
            self.fix(one, reason)
            self.fix(other, reason)
            return reason
        (first, size), (second, other_size) = self._find(one), self._find(other)
        if size < other_size:
            first, size, second, other_size = second, other_size, first, size
        if first == second and size == other_size:
            return one
        if first == second or size % other_size:
            for axis in (one, other):
                self.fix(axis, "its channels are tied to themselves in another order")
            return one
        # A channel of the first is as many entries of the second.
        self._parents[second], self._inner[second] = first, size // other_size
        self._reasons[first] = self._reasons[first] or self._reasons[second]
        return one

    def groups(self) -> Iterator[tuple[dict[Place, int], str]]:
        """The places of each group with the entries that a channel has there, and the reason."""
        found: dict[int, dict[Place, int]] = {}
        for place, node in self._nodes.items():
            root, inner = self._find(Axis(node))
            found.setdefault(root, {})[place] = inner
        for root, places in found.items():
            yield places, self._reasons[root]

    def _find(self, axis: Axis) -> tuple[int, int]:
        node, inner = axis
        while self._parents[node] != node:
            inner *= self._inner[node]
            node = self._parents[node]
        return node, inner
