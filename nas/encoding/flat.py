"""One-hot, ordinal and token encodings: of any space, each with its inverse."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.architecture import Architecture, Scalar
from nas.errors import InvalidArchitecture
from nas.space import SearchSpace, from_picks, validate


def vocabulary_size(space: SearchSpace) -> int:
    """How many pairs of a choice and one of its options there are.

    It is the length of ``one_hot`` and the number of different ``tokens``.
    """
    return sum(len(choice.options) for choice in space.choices)


def one_hot(space: SearchSpace, arch: Architecture) -> NDArray[np.float32]:
    """One number for every option of every choice, in order: 1 where it is picked, else 0.

    An inactive choice is all zeros. Raises ``InvalidArchitecture`` unless ``arch`` is one of
    ``space``.
    """
    vector = np.zeros(vocabulary_size(space), dtype=np.float32)
    vector[tokens(space, arch)] = 1.0
    return vector


def from_one_hot(space: SearchSpace, vector: ArrayLike) -> Architecture:
    """The inverse of ``one_hot``.

    Raises:
        InvalidArchitecture: wrong length, a value that is neither 0 nor 1, two options of one
            choice, or picks that are not an architecture of the space.
    """
    values = _vector(vector, vocabulary_size(space), f"a one-hot encoding of {space.name!r}")
    picks: dict[str, Scalar] = {}
    start = 0
    for choice in space.choices:
        block = values[start : start + len(choice.options)]
        start += len(choice.options)
        wrong = block[(block != 0) & (block != 1)]
        if len(wrong):
            raise InvalidArchitecture(
                f"one-hot encoding of {space.name!r}: {wrong[0]} at {choice.label!r}, "
                "expected 0 or 1"
            )
        picked = np.flatnonzero(block)
        if len(picked) > 1:
            both = ", ".join(repr(choice.options[i]) for i in picked)
            raise InvalidArchitecture(
                f"one-hot encoding of {space.name!r}: {choice.label!r} has {len(picked)} options "
                f"at once: {both}"
            )
        if len(picked):
            picks[choice.label] = choice.options[picked[0]]
    return from_picks(space, picks)


def ordinal(space: SearchSpace, arch: Architecture) -> NDArray[np.int64]:
    """The position of the picked option for every choice, in order; −1 where it is inactive.

    Raises ``InvalidArchitecture`` unless ``arch`` is one of ``space``.
    """
    validate(space, arch)
    picks = arch.as_dict()
    return np.array(
        [
            choice.index(picks[choice.label]) if choice.label in picks else -1
            for choice in space.choices
        ],
        dtype=np.int64,
    )


def from_ordinal(space: SearchSpace, vector: ArrayLike) -> Architecture:
    """The inverse of ``ordinal``.

    Raises:
        InvalidArchitecture: wrong length, a value that is not an option's position or −1, or
            picks that are not an architecture of the space.
    """
    values = _vector(vector, len(space.choices), f"an ordinal encoding of {space.name!r}")
    picks: dict[str, Scalar] = {}
    for choice, value in zip(space.choices, values.tolist(), strict=True):
        if value == -1:
            continue
        if value != int(value) or not 0 <= value < len(choice.options):
            raise InvalidArchitecture(
                f"ordinal encoding of {space.name!r}: {value} at {choice.label!r}, expected a "
                f"whole number from 0 to {len(choice.options) - 1}, or -1 where it is inactive"
            )
        picks[choice.label] = choice.options[int(value)]
    return from_picks(space, picks)


def tokens(space: SearchSpace, arch: Architecture) -> list[int]:
    """The picks as integers below ``vocabulary_size``, in the order in which they are made.

    Only active choices appear. All choices share one vocabulary: a token is the position of its
    option in ``one_hot``. Raises ``InvalidArchitecture`` unless ``arch`` is one of ``space``.
    """
    validate(space, arch)
    first = _first_tokens(space)
    by_label = {choice.label: choice for choice in space.choices}
    return [first[label] + by_label[label].index(option) for label, option in arch.picks]


def from_tokens(space: SearchSpace, sequence: Sequence[int]) -> Architecture:
    """The inverse of ``tokens``.

    Raises:
        InvalidArchitecture: a token that is not a legal option of the choice whose turn it is,
            or too few or too many of them.
    """
    first = _first_tokens(space)
    given = list(sequence)
    made: dict[str, Scalar] = {}
    for position, token in enumerate(given):
        step = space.legal(made)
        if step is None:
            raise InvalidArchitecture(
                f"tokens of {space.name!r}: complete after {position}, but {len(given)} are given"
            )
        choice, options = step
        legal = {first[choice.label] + choice.index(option): option for option in options}
        if not isinstance(token, int | np.integer) or token not in legal:
            raise InvalidArchitecture(
                f"tokens of {space.name!r}: {token!r} at position {position}, expected one of "
                f"{sorted(legal)} for {choice.label!r}"
            )
        made[choice.label] = legal[token]
    step = space.legal(made)
    if step is not None:
        raise InvalidArchitecture(
            f"tokens of {space.name!r}: {len(given)} are too few, {step[0].label!r} is still open"
        )
    return Architecture(space.name, tuple(made.items()))


def _first_tokens(space: SearchSpace) -> dict[str, int]:
    starts = itertools.accumulate((len(choice.options) for choice in space.choices), initial=0)
    return {choice.label: start for choice, start in zip(space.choices, starts, strict=False)}


def _vector(vector: ArrayLike, length: int, what: str) -> NDArray[Any]:
    try:
        values = np.asarray(vector)
    except ValueError as error:
        raise InvalidArchitecture(f"{what} is one vector of {length} numbers: {error}") from error
    if values.shape != (length,) or values.dtype.kind not in "biuf":
        raise InvalidArchitecture(
            f"{what} is one vector of {length} numbers, got shape {values.shape} of {values.dtype}"
        )
    if not np.isfinite(values).all():
        raise InvalidArchitecture(f"{what} must be finite, got {vector!r:.200}")
    return values.astype(np.int64) if values.dtype.kind == "b" else values
