"""Random draws in plain integers: the same on every machine, and cheap to begin.

A stream is named by whole numbers (a seed and the number of a proposal, say) and depends on
nothing else: its 64-bit words are SHAKE128 of that name and of a counter. A draw below n is the
upper half of a word times n, so that no outcome is favoured by more than n/2⁶⁴. A stream of ten
draws costs a few microseconds, where setting up a ``numpy`` generator alone costs thirty.
"""

from __future__ import annotations

import hashlib
import struct

_WORDS = struct.Struct("<21Q")  # what SHAKE128 gives at once


class Draws:
    """Uniform random draws from a stream named by whole numbers of zero or more.

    It has the part of ``numpy.random.Generator`` that spaces use: ``integers`` and ``random``.
    """

    __slots__ = ("_block", "_name", "_words")

    def __init__(self, *name: int) -> None:
        self._name = b"%d," * len(name) % name
        self._block = 0
        self._words: list[int] = []

    def integers(self, high: int, /) -> int:
        """A whole number from 0 to ``high`` - 1, each as likely; ``high`` is at least 1."""
        words = self._words
        if not words:
            self._refill()
        return words.pop() * high >> 64

    def random(self) -> float:
        """A number from 0 up to 1, in steps of 2⁻⁵³."""
        return self.integers(1 << 53) * 2.0**-53

    def distinct(self, high: int, n: int) -> list[int]:
        """``n`` different whole numbers below ``high``, each set as likely; in no fair order."""
        # Floyd's algorithm: n draws, whatever the size of what is drawn from. ``integers`` is
        # written out, because tournaments spend most of their time here.
        words = self._words
        while len(words) < n:
            self._refill()
        drawn: dict[int, None] = {}
        for last in range(high - n, high):
            found = words.pop() * (last + 1) >> 64
            drawn[last if found in drawn else found] = None
        return list(drawn)

    def least(self, high: int, n: int) -> int:
        """The least of ``n`` different whole numbers below ``high``, without drawing them all.

        That is the rank of the winner of a tournament of ``n`` among ``high`` ranked members. It
        is r with probability C(high - 1 - r, n - 1) / C(high, n).
        """
        if n * n <= high:
            return min(self.distinct(high, n))
        left, chance, rank = self.random(), n / high, 0
        while left >= chance and rank < high - n:
            left -= chance
            chance *= (high - n - rank) / (high - 1 - rank)
            rank += 1
        return rank

    def shuffled(self, n: int) -> list[int]:
        """The whole numbers below ``n`` in a random order, each order as likely."""
        order = list(range(n))
        for last in range(n - 1, 0, -1):
            other = self.integers(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def _refill(self) -> None:
        name = hashlib.shake_128(self._name + b"%d" % self._block)
        self._words.extend(_WORDS.unpack(name.digest(_WORDS.size)))
        self._block += 1
