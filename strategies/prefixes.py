"""What is legal after a prefix of picks, asked of a space once and remembered.

A controller walks the same prefixes again and again. They are kept as a tree, so that going on
from one costs a look-up, whatever ``space.legal`` costs and however the choices depend on each
other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas.architecture import Architecture, Choice, Scalar
from nas.errors import InvalidArchitecture
from nas.space import SearchSpace, validate


class Prefix:
    """Picks so far, and the choice that is next; none where the architecture is complete.

    Attributes:
        made: the picks by label, in the space's order.
        choice: the next choice; ``None`` where there is none.
        position: of that choice among the space's; -1 where there is none.
        legal: which of the choice's options are legal, padded with False to the space's widest
            choice.
    """

    __slots__ = ("_following", "choice", "legal", "made", "position")

    def __init__(
        self,
        made: dict[str, Scalar],
        choice: Choice | None,
        position: int,
        legal: npt.NDArray[np.bool_],
    ) -> None:
        self.made = made
        self.choice = choice
        self.position = position
        self.legal = legal
        self._following: dict[int, Prefix] = {}


class Prefixes:
    """The prefixes of a space, made as they are asked for.

    Args:
        most: so many are kept; then all are forgotten, to be made anew.
    """

    def __init__(self, space: SearchSpace, most: int = 50_000) -> None:
        self.space = space
        self.most = most
        self.width = max(len(choice.options) for choice in space.choices)
        self._positions = {choice.label: index for index, choice in enumerate(space.choices)}
        self._masks: dict[tuple[int, tuple[int, ...]], npt.NDArray[np.bool_]] = {}
        self._kept = 0
        self._root = self._make({})

    def root(self) -> Prefix:
        """No picks yet."""
        if self._kept > self.most:
            self._kept = 0
            self._root = self._make({})
        return self._root

    def after(self, prefix: Prefix, column: int) -> Prefix:
        """The prefix with one more pick: the option at this place among the choice's."""
        following = prefix._following.get(column)
        if following is None:
            assert prefix.choice is not None
            made = prefix.made | {prefix.choice.label: prefix.choice.options[column]}
            following = prefix._following[column] = self._make(made)
        return following

    def columns(self, arch: Architecture) -> list[int]:
        """The places of an architecture's picks among the options of their choices.

        Raises:
            InvalidArchitecture: it is none of the space.
        """
        prefix, columns = self._root, []
        for label, pick in arch.picks if arch.space == self.space.name else ():
            if prefix.choice is None or prefix.choice.label != label:
                break
            column = prefix.choice.index(pick)
            if not prefix.legal[column]:
                break
            columns.append(column)
            prefix = self.after(prefix, column)
        if prefix.choice is not None or len(columns) != len(arch.picks):
            validate(self.space, arch)  # says what is wrong
            raise InvalidArchitecture(f"{self.space.name!r}: {arch} is not complete")
        return columns

    def _make(self, made: dict[str, Scalar]) -> Prefix:
        self._kept += 1
        step = self.space.legal(made)
        if step is None:
            return Prefix(made, None, -1, self._mask(-1, ()))
        choice, options = step
        if choice.label not in self._positions:
            raise InvalidArchitecture(
                f"{self.space.name!r}: legal gives {choice.label!r}, which is none of its choices"
            )
        columns = tuple(choice.index(option) for option in options)
        position = self._positions[choice.label]
        return Prefix(made, choice, position, self._mask(position, columns))

    def _mask(self, position: int, columns: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        mask = self._masks.get((position, columns))
        if mask is None:
            mask = np.zeros(self.width, dtype=bool)
            mask[list(columns)] = True
            self._masks[position, columns] = mask
        return mask
