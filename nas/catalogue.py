"""What a search space offers, for people: its size, its choices by kind, its published networks."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas import registry
from nas.architecture import Scalar
from nas.components import create
from nas.errors import NasError
from nas.points import points_of
from nas.space import HasSize, SearchSpace


@dataclass(frozen=True, slots=True)
class SpaceSummary:
    """One line about a registered space.

    Attributes:
        summary: the first line of its docstring.
        choices: how many there are with its default arguments; ``None`` where it has none.
        size: how many architectures; ``None`` where the space does not know.
        paper: where it is from.
        points: names of its published networks.
        broken: why it cannot be made, or ``""``.
    """

    name: str
    summary: str
    choices: int | None = None
    size: int | None = None
    paper: str = ""
    points: tuple[str, ...] = ()
    broken: str = ""


def summarise_space(name: str) -> SpaceSummary:
    """What ``nas list spaces`` says of a registered space. One that is broken says so."""
    try:
        summary = registry.summary("spaces", name)
    except NasError as error:
        return SpaceSummary(name, "", broken=str(error))
    points = tuple(points_of(name))
    factory = registry.load("spaces", name)
    needed = [
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:  # nothing is wrong with it: it is not known before its arguments are
        return SpaceSummary(name, summary, points=points)
    try:
        space: SearchSpace = create("spaces", name, "space")
    except NasError as error:
        return SpaceSummary(name, summary, points=points, broken=str(error))
    return SpaceSummary(
        name, summary, len(space.choices), known_size(space), paper_of(space), points
    )


def known_size(space: SearchSpace) -> int | None:
    """How many architectures a space has, if it knows without listing them."""
    if not isinstance(space, HasSize):
        return None
    try:
        return space.size()
    except NasError:  # a space that cannot tell with these arguments
        return None


def paper_of(space: SearchSpace) -> str:
    """Where a space is from: its ``paper``, if it has one."""
    return str(getattr(space, "paper", ""))


def size_text(size: int | None) -> str:
    """A size as people say it: exact up to a million, else its order of magnitude."""
    if size is None:
        return "?"
    if size < 1_000_000:
        return f"{size:,}"
    # Not size / 10**exponent: these are too large for a float.
    exponent = len(str(size)) - 1
    mantissa = math.floor(size / 10**exponent * 10 + 0.5) / 10
    if mantissa >= 10:
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.1f}e{exponent}"


@dataclass(frozen=True, slots=True)
class ChoiceGroup:
    """Choices of one kind: the same options, and labels that differ in their numbers only."""

    labels: tuple[str, ...]
    options: tuple[Scalar, ...]
    conditional: bool

    def title(self) -> str:
        """One label, or the first and the last."""
        if len(self.labels) == 1:
            return self.labels[0]
        joint = ", " if len(self.labels) == 2 else " … "
        return f"{self.labels[0]}{joint}{self.labels[-1]}"


def choice_groups(space: SearchSpace) -> list[ChoiceGroup]:
    """The choices of a space by kind, in the order in which each kind first appears."""
    groups: dict[tuple[str, tuple[Scalar, ...], bool], list[str]] = {}
    for choice in space.choices:
        pattern = re.sub(r"\d+", "#", choice.label)
        key = pattern, choice.options, bool(choice.conditions())
        groups.setdefault(key, []).append(choice.label)
    return [
        ChoiceGroup(tuple(labels), options, conditional)
        for (_, options, conditional), labels in groups.items()
    ]


def space_document(name: str, space: SearchSpace) -> dict[str, Any]:
    """What ``nas show-space --json`` prints."""
    points: Mapping[str, Any] = points_of(name)
    return {
        "name": name,
        "space": space.name,
        "paper": paper_of(space),
        "input": list(space.input),
        "classes": space.classes,
        "size": known_size(space),
        "choices": [
            {
                "label": choice.label,
                "options": list(choice.options),
                "when": {label: list(options) for label, options in choice.conditions()},
            }
            for choice in space.choices
        ],
        "points": {key: point.paper for key, point in points.items()},
    }
