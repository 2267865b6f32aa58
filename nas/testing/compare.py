"""Comparing long lists in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def first_difference(one: Sequence[Any], other: Sequence[Any]) -> str:
    """Where two sequences first differ; empty if they are equal.

    What contracts assert of many proposals goes through this: the diff that pytest draws of two
    long lists of long values (in full, wherever ``CI`` is set) can take many minutes.
    """
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return f"item {index} is {left!r:.300} in one and {right!r:.300} in the other"
    if len(one) != len(other):
        return f"one has {len(one)} items, the other {len(other)}"
    return ""
