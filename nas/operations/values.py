"""What the parts of an operation's text mean: numbers and words, read and written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Value = int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class Values:
    """The values an argument may have, and their text.

    Attributes:
        expected: what they are, for messages.
        read: gives the value of a text, or ``None`` where it is none.
        valid: whether a value is one of them.
        write: the text that ``read`` takes back.
    """

    expected: str
    read: Callable[[str], Value | None]
    valid: Callable[[Value], bool]
    write: Callable[[Value], str]


@dataclass(frozen=True)
class Words:
    """Values that have a word each; it stands alone in the text, without a key."""

    words: Mapping[str, Value]

    def valid(self, value: Value) -> bool:
        return value in self.words.values()

    def write(self, value: Value) -> str:
        return next(word for word, known in self.words.items() if known == value)

    @property
    def expected(self) -> str:
        return f"one of {', '.join(map(str, self.words.values()))}"


def _whole(text: str) -> Value | None:
    return int(text) if re.fullmatch(r"[0-9]+", text) else None


def _decimal(text: str) -> Value | None:
    return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else None


def _dotted(text: str) -> Value | None:
    return tuple(map(int, text.split("."))) if re.fullmatch(r"[0-9]+(\.[0-9]+)*", text) else None


def _plain(value: Value) -> str:
    """6.0 as 6; other numbers as Python writes them."""
    return str(value).removesuffix(".0")


def _join(value: Value) -> str:
    return ".".join(map(str, value)) if isinstance(value, tuple) else ""


def _is_whole(value: Value) -> bool:
    return type(value) is int and value >= 1


def _is_odd(value: Value) -> bool:
    return type(value) is int and value >= 1 and value % 2 == 1


def _is_decimal(value: Value) -> bool:
    # 1e-07 and 1e+20 are no sizes of anything, and have no text here.
    return type(value) in (int, float) and _decimal(_plain(value)) == value and value != 0


WHOLE = Values("a whole number, at least 1", _whole, _is_whole, str)
ODD = Values("an odd number", _whole, _is_odd, str)
HALVING = Values("1 or 2", _whole, lambda value: type(value) is int and value in (1, 2), str)
DECIMAL = Values("a number above 0, as in 0.25", _decimal, _is_decimal, _plain)
FRACTION = Values(
    "a number between 0 and 1, as in 0.25",
    _decimal,
    lambda value: type(value) is float and value < 1 and _is_decimal(value),
    _plain,
)
ODDS = Values(
    "odd numbers joined by dots, as in 3.5.7",
    _dotted,
    lambda value: isinstance(value, tuple) and value != () and all(map(_is_odd, value)),
    _join,
)
PAIR = Values(
    "two odd numbers joined by a dot, 0 for none, as in 0.5",
    _dotted,
    lambda value: (
        isinstance(value, tuple)
        and len(value) == 2
        and all(size == 0 or _is_odd(size) for size in value)
    ),
    _join,
)
