"""Brackets of successive halving, one after the other: what the synchronous layers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nas.strategy import Strategy
from nas.trial import Proposal, Trial
from strategies.fidelity import Nested, best_first

Rung = tuple[int, int]
"""How many architectures are trained up to how many epochs."""


class Halving:
    """Runs bracket after bracket; a rung begins when all of the one below has come back.

    Of a rung's n architectures the best ⌊n/η⌋ go on, at least one; where more failed, those that
    were measured. Where the strategy inside has no more architectures before a bracket is full,
    and nothing is in flight, the bracket goes on with what there is.

    Args:
        plan: the rungs of each bracket, counted from 0.
    """

    def __init__(self, strategy: Strategy, plan: Callable[[int], Sequence[Rung]], eta: int) -> None:
        self._inner = Nested(strategy)
        self._plan = plan
        self._eta = eta
        self._begin(0)

    def _begin(self, bracket: int) -> None:
        self._bracket = bracket
        self._rungs = tuple(self._plan(bracket))
        self._rung = 0
        self._size = self._left = self._rungs[0][0]
        self._due: list[int] = []  # promoted and not yet proposed
        self._measured: list[int] = []  # of this rung, but for the last: of that nobody goes on

    def ask(self, n: int) -> list[Proposal]:
        if n <= 0:
            return []
        if self._left:
            drawn = self._inner.draw(min(n, self._left), self._epochs(), self._notes())
            self._left -= len(drawn)
            if drawn or self._inner.flying or not self._measured:
                return drawn
            self._size -= self._left
            self._left = 0
            self._close()
        chosen, self._due = self._due[:n], self._due[n:]
        return [self._inner.promote(name, self._epochs(), self._notes()) for name in chosen]

    def tell(self, trial: Trial) -> None:
        name, measured = self._inner.land(trial)
        if measured and self._rung + 1 < len(self._rungs):
            self._measured.append(name)
        else:
            self._inner.release(name)
        if not (self._left or self._due or self._inner.flying):
            self._close()

    def _close(self) -> None:
        """Promotes the best of the rung and lets go of the others, or ends the bracket."""
        if not self._measured:
            self._begin(self._bracket + 1)
            return
        self._size = max(1, self._size // self._eta)
        # In the order of proposals: who goes on does not depend on who came back first.
        measured = sorted(self._measured)
        rows = [self._inner.costs(name) for name in measured]
        order = best_first(self._inner.strategy.objectives, rows)
        self._due = [measured[index] for index in order[: self._size]]
        for name in sorted(set(measured) - set(self._due)):
            self._inner.release(name)
        self._measured = []
        self._rung += 1

    def _epochs(self) -> int:
        return self._rungs[self._rung][1]

    def _notes(self) -> dict[str, Any]:
        return {"bracket": self._bracket, "rung": self._rung}

    def continuable(self) -> set[int]:
        return self._inner.trials_of([*self._measured, *self._due])

    def state_dict(self) -> dict[str, Any]:
        return {
            **self._inner.state_dict(),
            "bracket": self._bracket,
            "rung": self._rung,
            "size": self._size,
            "left": self._left,
            "due": list(self._due),
            "measured": list(self._measured),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._inner.load_state_dict(state)
        self._begin(state["bracket"])
        self._rung = state["rung"]
        self._size = state["size"]
        self._left = state["left"]
        self._due = list(state["due"])
        self._measured = list(state["measured"])
