"""Slots that are edges of a graph, by their labels.

An edge's slot is called ``normal/0->2`` or ``normal/4/left<-2``: what lies behind ``->``, or
before ``<-``, is the node that it leads to.
"""

from __future__ import annotations

from collections.abc import Iterable

from nas.errors import UnsupportedRequest


def nodes(labels: Iterable[str], where: str) -> dict[str, list[str]]:
    """The nodes that these slots lead to, each with its edges in order.

    Args:
        where: whose slots these are, for the message.

    Raises:
        UnsupportedRequest: a slot is no edge.
    """
    found: dict[str, list[str]] = {}
    for label in labels:
        source, arrow, target = label.partition("->")
        if arrow:
            folder, slash, _ = source.rpartition("/")
            node = folder + slash + target
        else:
            node, arrow, _ = label.partition("<-")
        if not arrow:
            raise UnsupportedRequest(
                f"{where}: slot {label!r} is no edge into a node (its label has no '->' or '<-'), "
                "so there is nothing to weigh it against"
            )
        found.setdefault(node, []).append(label)
    return found
