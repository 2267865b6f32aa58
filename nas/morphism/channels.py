"""Which channel of a parent's tensor each channel of a child's tensor equals."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

Channels = tuple[int, ...]
"""For each channel of the child's tensor that of the parent's; -1 where it equals none."""


@dataclass(frozen=True)
class Same:
    """A tensor of the child that equals one of the parent.

    Attributes:
        value: the parent's, by its number.
        channels: along dimension 1; ``None`` where they are the parent's, one by one.
    """

    value: int
    channels: Channels | None = None


@dataclass(frozen=True)
class Other:
    """A tensor of the child that the parent has not.

    Attributes:
        silent: whether it can be made zero by weights that are the child's own.
    """

    silent: bool


Origin = Same | Other


@functools.lru_cache(maxsize=512)
def widened(parent: int, child: int, seed: int) -> Channels | None:
    """The channels of a wider layer: all of the parent's, then random ones once more.

    The same for equal sizes and seeds, so that tensors that are added stay alike.
    """
    if parent == child:
        return None
    drawn = np.random.default_rng([seed, parent, child]).integers(parent, size=child - parent)
    return (*range(parent), *(int(channel) for channel in drawn))


def simplest(channels: Channels, parent: int) -> Channels | None:
    """``None`` for channels that are the parent's, one by one."""
    return None if channels == tuple(range(parent)) else channels


def listed(channels: Channels | None, parent: int) -> Channels:
    """The channels one by one."""
    return tuple(range(parent)) if channels is None else channels


def joined(one: Channels, other: Channels) -> Channels | None:
    """The channels of a sum; ``None`` where two that differ are added."""
    if len(one) != len(other):
        return None
    if one == other:
        return one
    found = []
    for mine, theirs in zip(one, other, strict=True):
        if mine != theirs and -1 not in (mine, theirs):
            return None
        found.append(min(mine, theirs))
    return tuple(found)
