"""Spaces in which no choice depends on another: what is known of them without walking.

There every combination of options is legal, so that sampling, mutation, crossover and
neighbours need not ask ``legal`` at every step. ``nas.space`` does that by itself wherever a
space proves to be one; results have the walk's probabilities, and but for crossover its draws.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nas.architecture import Architecture, Choice, Scalar

if TYPE_CHECKING:
    from nas.space import DrawsIntegers, SearchSpace

Pick = tuple[str, Scalar]


class Grid:
    """The picks of independent choices, made once and shared by all architectures.

    Attributes:
        columns: for each choice its picks, in the order of its options.
        open: the positions of choices with more than one option.
    """

    __slots__ = ("_index", "columns", "open", "space")

    def __init__(self, space: str, choices: tuple[Choice, ...]) -> None:
        self.space = space
        self.columns = tuple(
            tuple((choice.label, option) for option in choice.options) for choice in choices
        )
        self.open = tuple(i for i, column in enumerate(self.columns) if len(column) > 1)
        self._index = tuple({pick: i for i, pick in enumerate(c)} for c in self.columns)

    def holds(self, arch: Architecture) -> bool:
        """Whether an architecture is one of these, as far as its form goes."""
        return arch.space == self.space and len(arch.picks) == len(self.columns)

    def another(self, place: int, pick: Pick, rng: DrawsIntegers) -> Pick:
        """Another pick of the choice at a position, each as likely."""
        column, at = self.columns[place], self._index[place][pick]
        drawn = int(rng.integers(len(column) - 1))
        return column[drawn + (drawn >= at)]

    def one_change_away(self, picks: tuple[Pick, ...]) -> Iterator[tuple[Pick, ...]]:
        """The picks of every neighbour, in the order in which a walk meets them."""
        at = [index[pick] for index, pick in zip(self._index, picks, strict=True)]
        for place, here in enumerate(at):
            for pick in self.columns[place][:here]:
                yield (*picks[:place], pick, *picks[place + 1 :])
        for place in reversed(range(len(at))):
            for pick in self.columns[place][at[place] + 1 :]:
                yield (*picks[:place], pick, *picks[place + 1 :])


# By identity: a space is a frozen value, and to hash or compare one takes longer than a draw.
_known: dict[int, tuple[weakref.ref[Any], Grid | None]] = {}


def independent(space: SearchSpace) -> Grid | None:
    """The grid of a space whose choices are independent; ``None`` of any other.

    That is proved, not guessed: no choice has a condition, and the space counts as many
    architectures (``nas.space.HasSize``) as there are combinations of options. What walks give
    is among those combinations, so all of them are legal. A space that does not know its size
    is walked.
    """
    found = _known.get(id(space))
    if found is not None and found[0]() is space:
        return found[1]
    grid = _grid(space)
    key = id(space)
    try:
        reference = weakref.ref(space, lambda _: _known.pop(key, None))
    except TypeError:  # of slots without __weakref__: found out again each time
        return grid
    _known[key] = (reference, grid)
    return grid


def _grid(space: SearchSpace) -> Grid | None:
    from nas.space import HasSize

    choices = space.choices
    if not isinstance(space, HasSize) or any(choice.conditions() for choice in choices):
        return None
    # One walk before the counting, which takes long where legal is intricate.
    made: dict[str, Scalar] = {}
    for choice in choices:
        if space.legal(made) != (choice, choice.options):
            return None
        made[choice.label] = choice.options[0]
    if space.legal(made) is not None:
        return None
    if space.size() != math.prod(len(choice.options) for choice in choices):
        return None
    return Grid(space.name, choices)
