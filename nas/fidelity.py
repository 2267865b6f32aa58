"""Fidelities: how they are written, and spaces rebuilt at the size that one asks for."""

from __future__ import annotations

import dataclasses
from dataclasses import fields
from typing import Any

from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.space import SearchSpace
from nas.trial import Fidelity

NAMES = tuple(field.name for field in fields(Fidelity))


def parse_fidelity(text: str) -> Fidelity:
    """``epochs=3,resolution=14`` as a fidelity.

    Raises:
        ConfigError: it is not written so, or a value is out of its range.
    """
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise ConfigError(f"fidelity {text!r}: expected NAME=VALUE,…, as in epochs=3")
        if name not in NAMES:
            raise ConfigError(f"fidelity {text!r} has no {name!r}: {nearest(name, NAMES)}")
        if name in values:
            raise ConfigError(f"fidelity {text!r} gives {name} twice")
        try:
            values[name] = float(value) if name == "data_fraction" else int(value)
        except ValueError:
            kind = "number" if name == "data_fraction" else "whole number"
            raise ConfigError(f"fidelity {text!r}: {name} must be a {kind}") from None
    return Fidelity(**values)


def format_fidelity(fidelity: Fidelity) -> str:
    """What ``parse_fidelity`` reads; ``default`` where everything is left open."""
    asked = [f"{n}={getattr(fidelity, n)}" for n in NAMES if getattr(fidelity, n) is not None]
    return ",".join(asked) or "default"


def filled(asked: Fidelity, default: Fidelity) -> Fidelity:
    """A fidelity with what it leaves open as the other has it."""
    missing = {n: getattr(default, n) for n in NAMES if getattr(asked, n) is None}
    return dataclasses.replace(asked, **missing)


def at_size(space: SearchSpace, fidelity: Fidelity) -> SearchSpace:
    """The space whose networks have the channels and cells that a fidelity asks for.

    The choices are the same, so that its architectures are of both spaces. It is a dataclass with
    arguments of these names, as the spaces of cells are; ``None`` leaves an argument as it is.

    Raises:
        UnsupportedRequest: it has no such argument, or its choices depend on it.
        ConfigError: it takes no such value.
    """
    sizes = {"channels": fidelity.channels, "cells": fidelity.cells}
    asked: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    if not asked:
        return space
    instance: Any = space
    known: list[str] = []
    if dataclasses.is_dataclass(space):
        known = [field.name for field in fields(instance) if field.init]
    for name in asked:
        if name not in known:
            raise UnsupportedRequest(
                f"fidelity: space {space.name!r} has no argument {name!r} to make its networks "
                f"smaller by; it takes {', '.join(known) or 'none'}"
            )
    made: SearchSpace = dataclasses.replace(instance, **asked)
    if made.name != space.name or made.choices != space.choices:
        raise UnsupportedRequest(
            f"fidelity: the choices of space {space.name!r} depend on its "
            f"{' and '.join(asked)}, so an architecture is none of a smaller one"
        )
    return made
