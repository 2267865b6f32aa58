"""Published networks by name: points of a space that papers report numbers of.

A space's class may have ``points``, a mapping from names to ``Point``; ``published`` makes the
space and the architecture of one. ``nas cost darts:DARTS_V2`` is this at the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nas import registry
from nas.components import create
from nas.errors import ConfigError, nearest
from nas.space import parse

if TYPE_CHECKING:
    from nas.architecture import Architecture
    from nas.space import SearchSpace


@dataclass(frozen=True, slots=True)
class Point:
    """A published network.

    Attributes:
        architecture: in any text that ``nas.space.parse`` reads.
        paper: where it is from.
        arguments: of the space, where the paper's sizes are not the space's defaults.
    """

    architecture: str
    paper: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def split_reference(reference: str) -> tuple[str, str | None]:
    """``darts:DARTS_V2`` into the space's name and the point's; ``module:attr`` stays whole."""
    name, _, point = reference.rpartition(":")
    if name in registry.names("spaces") or ":" in name:
        return name, point
    return reference, None


def points_of(space_name: str) -> Mapping[str, Point]:
    """The published networks of a registered space, by name; empty where it has none."""
    points = getattr(registry.load("spaces", space_name), "points", {})
    return points if isinstance(points, Mapping) else {}


def find(reference: str) -> tuple[str, Point]:
    """The space's name and the point of a reference as ``mbconv:mobilenet_v2``.

    Raises:
        ConfigError: there is no such space or point.
    """
    name, point_name = split_reference(reference)
    points = points_of(name)
    if point_name is None or point_name not in points:
        raise ConfigError(
            f"{name!r} has no published network {point_name!r}: {nearest(point_name or '', points)}"
            if points
            else f"{name!r} names no published networks"
        )
    return name, points[point_name]


def published(
    reference: str, settings: Mapping[str, Any] | None = None
) -> tuple[SearchSpace, Architecture]:
    """The space and the architecture of a published network, as ``mbconv:mobilenet_v2``.

    Args:
        reference: a space's name and a point's, joined by a colon.
        settings: arguments of the space, over the paper's own.

    Raises:
        ConfigError: there is no such space or point, or a setting does not fit.
    """
    name, point = find(reference)
    description = {"name": name, **point.arguments, **(settings or {})}
    space: SearchSpace = create("spaces", description, reference)
    return space, parse(space, point.architecture)
