"""A forward pass as a list of what it runs, from which costs are computed without torch.

A step of a trace is one operation, or a whole trace that was recorded before (of a layer, of a
cell). Either reads some buffers, makes some, and says how many bytes it needs at once; so a
trace that is met again is put in place as it is and never looked into a second time. The rules
are those of ``nas.cost.memory``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Step(Protocol):
    """Part of a forward pass.

    Its buffers are those it reads, then those it makes and hands out; bit ``i`` of ``needed``
    says that the ``i``-th of them is read after it.

    Attributes:
        reads: how many buffers it reads.
    """

    @property
    def reads(self) -> int: ...

    def peak(self, needed: int) -> int:
        """The most bytes that its buffers, and what it makes on the way, take at once."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One ATen operation.

    Attributes:
        reads: how many buffers it reads.
        sizes: bytes of the buffers it reads, then of those it makes.
        beside: positions of results that have no buffer unless something reads them.
        overwrites: whether the first result may be written over an operand.
    """

    reads: int
    sizes: tuple[int, ...]
    beside: tuple[int, ...]
    overwrites: bool

    def peak(self, needed: int) -> int:
        total = sum(self.sizes)
        for position in self.beside:
            if not needed >> position & 1:
                total -= self.sizes[position]
        if self.overwrites:
            result = self.sizes[self.reads]
            for position in range(self.reads):
                if self.sizes[position] == result and not needed >> position & 1:
                    return total - result
        return total


@dataclass(frozen=True, slots=True)
class Trace:
    """A recorded part of a forward pass, to be put into others.

    Attributes:
        macs: multiply-accumulates of all of it.
        steps: what runs, in order, with the buffers of each by number.
        sizes: bytes of each buffer.
        arguments: buffers it reads, as numbers among ``sizes``.
        made: buffers it makes and hands out.
        result: what it returns, for the recorder to make anew.
    """

    macs: int
    steps: tuple[tuple[Step, tuple[int, ...]], ...]
    sizes: tuple[int, ...]
    arguments: tuple[int, ...]
    made: tuple[int, ...]
    result: Any
    _peaks: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def reads(self) -> int:
        return len(self.arguments)

    def peak(self, needed: int) -> int:
        found = self._peaks.get(needed)
        if found is None:
            outside = (*self.arguments, *self.made)
            kept = [buffer for bit, buffer in enumerate(outside) if needed >> bit & 1]
            found = peak_bytes(self.steps, self.sizes, self.arguments, kept)
            self._peaks[needed] = found
        return found


def peak_bytes(
    steps: Sequence[tuple[Step, tuple[int, ...]]],
    sizes: Sequence[int],
    present: Iterable[int],
    kept: Iterable[int],
) -> int:
    """The largest sum of live buffers while these steps run.

    Args:
        steps: each with the numbers of its buffers: those it reads, then those it makes.
        sizes: bytes of each buffer.
        present: buffers that are there when the steps begin.
        kept: buffers that are needed after the last of them.
    """
    last: dict[int, int] = {}
    for time, (step, buffers) in enumerate(steps):
        for buffer in buffers[: step.reads]:
            last[buffer] = time
    end = len(steps)
    for buffer in kept:
        last[buffer] = end
    peak = sum(sizes[buffer] for buffer in present)
    live = sum(sizes[buffer] for buffer in present if buffer in last)
    for time, (step, buffers) in enumerate(steps):
        reads = step.reads
        needed = 0
        after = live
        for position, buffer in enumerate(buffers):
            if position < reads:
                live -= sizes[buffer]
                if last[buffer] > time:
                    needed |= 1 << position
                else:
                    after -= sizes[buffer]
            elif last.get(buffer, -1) > time:
                needed |= 1 << position
                after += sizes[buffer]
        total = live + step.peak(needed)
        if total > peak:
            peak = total
        live = after
    return peak
