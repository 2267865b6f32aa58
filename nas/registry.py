"""Names to components, through entry points: built-ins and third parties alike.

A package registers its own in the groups ``nasforge.spaces``, ``.strategies``, ``.evaluators``,
``.datasets`` and ``.executors``. Where a name is expected, ``package.module:attribute`` works
too, for what is not installed as a package.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args

from nas.errors import ConfigError, nearest

Kind = Literal["spaces", "strategies", "evaluators", "datasets", "executors"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SINGULAR: dict[Kind, str] = {
    "spaces": "space",
    "strategies": "strategy",
    "evaluators": "evaluator",
    "datasets": "data set",
    "executors": "executor",
}


@functools.cache
def _registered(kind: Kind) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=f"nasforge.{kind}"), key=lambda entry: entry.name):
        if entry.name in found and found[entry.name].value != entry.value:
            raise ConfigError(
                f"two installed packages register the {kind} name {entry.name!r}: "
                f"{found[entry.name].value} and {entry.value}"
            )
        found[entry.name] = entry
    return found


def names(kind: Kind) -> list[str]:
    """The registered names of a kind, in order."""
    return list(_registered(kind))


def load(kind: Kind, name: str) -> Callable[..., Any]:
    """The factory behind a name, a class usually.

    Raises:
        ConfigError: there is no such name, or what registers it cannot be imported.
    """
    registered = _registered(kind)
    if name in registered:
        try:
            return registered[name].load()  # type: ignore[no-any-return]  # whatever is registered
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{SINGULAR[kind]} {name!r} ({registered[name].value}) cannot be imported: {error}"
            ) from error
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            factory = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{name!r} cannot be imported: {error}") from error
        if not callable(factory):
            raise ConfigError(f"{name!r} is a {type(factory).__name__}, not a class or function")
        return factory  # type: ignore[no-any-return]  # whatever is named
    raise ConfigError(f"there is no {SINGULAR[kind]} {name!r}: {nearest(name, registered)}")


def name_of(factory: Callable[..., Any]) -> str:
    """The name a configuration would use for a factory: registered, or module and attribute."""
    value = f"{factory.__module__}:{factory.__qualname__}"
    for kind in KINDS:
        for name, entry in _registered(kind).items():
            if entry.value == value or _exports(entry, factory):
                return name
    return value


def _exports(entry: EntryPoint, factory: Callable[..., Any]) -> bool:
    """Whether a package registers under its own path what a module inside it defines."""
    module = sys.modules.get(entry.module)
    inside = str(factory.__module__).startswith(f"{entry.module}.")
    return inside and getattr(module, entry.attr, None) is factory


def summary(kind: Kind, name: str) -> str:
    """One line about a component: the first of its docstring."""
    return (inspect.getdoc(load(kind, name)) or "").strip().split("\n")[0]
