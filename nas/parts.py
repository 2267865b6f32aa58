"""Parts of descriptions, known again by what they were told: a function, arguments, answers.

``builder.part(describe, *args)`` depends on its arguments and on what the builder answers, and on
nothing else. So what a reading found out about a part can be kept by these, where they are plain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

About = tuple[str, str]
"""What was asked: of which kind, and the label."""

Answers = Mapping[str, Mapping[str, Any]]
"""By kind and label."""

_PLAIN = frozenset({int, float, bool, str, type(None)})


def named(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A key for a call of plain values; ``None`` where it has others."""
    if plain(function) is None:
        return None
    values = (*args, *kwargs.values())
    kinds = tuple(map(type, values))
    if _PLAIN.issuperset(kinds):
        return (function, values, kinds, *kwargs)
    parts = [plain(value) for value in values]
    return None if None in parts else (function, *parts, *kwargs)


def plain(value: Any) -> Any:
    """A key for a plain value, told apart by type too (``1 == True``); ``None`` for others."""
    kind = type(value)
    if kind in _PLAIN:
        return (kind, value)
    if kind is tuple:
        parts = [plain(part) for part in value]
        return None if None in parts else (tuple, *parts)
    if isinstance(value, type) or (kind is FunctionType and value.__closure__ is None):
        return value
    return None


@dataclass(frozen=True, slots=True)
class _Question:
    """What a part asked next, and where each answer met so far led."""

    about: About
    answers: dict[Any, Any]


class Parts(Generic[T]):
    """What is known of parts.

    Args:
        most: so many are kept; then all are forgotten.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._known: dict[Any, Any] = {}
        self._count = 0

    def find(self, name: Any, answers: Answers) -> tuple[T | None, list[tuple[About, Any]]]:
        """What is kept of a part under these answers, and what it asked for."""
        node = self._known.get(name)
        asked = []
        while type(node) is _Question:
            kind, label = node.about
            answer = answers[kind].get(label)
            asked.append((node.about, answer))
            node = node.answers.get(answer)
        return node, asked

    def keep(self, name: Any, asked: Sequence[tuple[About, Any]], value: T) -> None:
        """Keeps it under the answers it was given; of one that asks as it likes, nothing."""
        if self._count >= self.most:
            self.forget()
        self._count += 1
        memory: dict[Any, Any] = self._known
        for about, answer in asked:
            node = memory.get(name)
            if node is None:
                node = memory[name] = _Question(about, {})
            if type(node) is not _Question or node.about != about:
                return
            memory, name = node.answers, answer
        memory.setdefault(name, value)

    def forget(self) -> None:
        """Empties it."""
        self._known.clear()
        self._count = 0
