"""Components to plain descriptions and back: what a journal's header and a configuration hold.

A description is ``{"name": registered name, argument: value, …}``. It works because of one
habit: an argument of ``__init__`` is an attribute of the same name.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from nas import registry
from nas.errors import ConfigError, NasError, nearest
from nas.objective import Objective

OPAQUE = "object"
"""The key that marks what a file cannot hold: a data set in memory, say."""

KIND_OF_ARGUMENT: dict[str, registry.Kind] = {
    "space": "spaces",
    "strategy": "strategies",
    "evaluator": "evaluators",
    "stages": "evaluators",
    "data": "datasets",
    "executor": "executors",
}
"""Arguments that are components themselves; a list of descriptions makes a tuple of them."""


def describe(value: Any) -> Any:
    """A value as JSON: components by name and arguments, the opaque by their type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Objective):
        document: dict[str, Any] = {value.direction: value.metric}
        if value.limit is not None:
            document["limit"] = value.limit
        if value.weight is not None:
            document["weight"] = value.weight
        return document
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: describe(item) for key, item in value.items()}
    opaque = {OPAQUE: f"{type(value).__module__}.{type(value).__qualname__}"}
    source = getattr(value, "source", opaque)
    if isinstance(source, Mapping) and source is not opaque:
        return dict(source)  # made by a function, which wrote down its own call
    if source is None or isinstance(value, type) or callable(value):
        return opaque
    arguments: dict[str, Any] = {}
    for name, parameter in _parameters(type(value)).items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            return opaque
        if not hasattr(value, name):
            return opaque
        arguments[name] = describe(getattr(value, name))
    return {"name": registry.name_of(type(value)), **arguments}


def objective_from(document: Any, where: str) -> Objective:
    """An objective from ``maximize accuracy`` or ``{minimize: macs, limit: 5e6}``."""
    expected = "expected 'maximize METRIC', or {minimize: METRIC, limit: NUMBER}"
    if isinstance(document, str):
        words = document.split()
        if len(words) != 2:
            raise ConfigError(f"{where}: {document!r} is not an objective: {expected}")
        document = {words[0]: words[1]}
    if not isinstance(document, Mapping):
        raise ConfigError(f"{where}: {document!r} is not an objective: {expected}")
    known = ("maximize", "minimize", "limit", "weight")
    for key in document:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}: {nearest(key, known)}")
    directions = [key for key in ("maximize", "minimize") if key in document]
    if len(directions) != 1:
        raise ConfigError(f"{where}: {dict(document)!r} is not an objective: {expected}")
    numbers: dict[str, float] = {}
    for key in ("limit", "weight"):
        if document.get(key) is not None:
            try:
                numbers[key] = float(document[key])
            except (TypeError, ValueError):
                raise ConfigError(
                    f"{where}.{key} must be a number, got {document[key]!r}"
                ) from None
    direction = directions[0]
    return Objective(str(document[direction]), direction, **numbers)  # type: ignore[arg-type]  # one of the two


def create(
    kind: registry.Kind, description: Any, where: str, given: Mapping[str, Any] | None = None
) -> Any:
    """Builds a component from its description.

    Args:
        kind: what it has to be.
        description: a registered name, or a mapping with ``name`` and arguments.
        where: its place in the configuration, for messages.
        given: what the run knows already (the space, the seed, …): passed to arguments of these
            names, also of components inside this one, where the description does not say.

    Raises:
        ConfigError: an unknown name or argument, a value of the wrong type or out of range.
    """
    given = given or {}
    if isinstance(description, str):
        description = {"name": description}
    if not isinstance(description, Mapping):
        raise ConfigError(f"{where} must be a name, or a mapping with a name; got {description!r}")
    if OPAQUE in description:
        raise ConfigError(
            f"{where} is a {description[OPAQUE]} that lives in a Python script, not in a file: "
            "continue this run from that script"
        )
    if "name" not in description:
        raise ConfigError(f"{where} has no name: {nearest('', registry.names(kind))}")
    try:
        factory = registry.load(kind, str(description["name"]))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    parameters = _parameters(factory)
    arguments: dict[str, Any] = {}
    for key, value in description.items():
        if key == "name":
            continue
        if key not in parameters:
            raise ConfigError(
                f"{where}: {description['name']!r} has no argument {key!r}: "
                f"{nearest(key, parameters)}"
            )
        arguments[key] = _nested(key, value, f"{where}.{key}", given)
    for name, value in given.items():
        if name in parameters and name not in arguments:
            arguments[name] = value
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ConfigError(f"{where}: {description['name']!r} needs {name!r}")
    arguments = _typed(factory, arguments, where, set(given))
    try:
        made = factory(**arguments)
    except NasError as error:
        raise type(error)(f"{where}: {error}") from error
    if kind == "spaces" and not inspect.isclass(factory):
        return _with_call(made, {"name": description["name"], **describe(arguments)})
    return _with_source(made, description, where) if kind == "datasets" else made


def _with_call(made: Any, call: Mapping[str, Any]) -> Any:
    """A described space that remembers the user's function that made it."""
    from nas.described import Described, described

    if not isinstance(made, Described) or registry.name_of(described) == call["name"]:
        return made
    return dataclasses.replace(made, call=call)


def _with_source(made: Any, description: Mapping[str, Any], where: str) -> Any:
    """A data set that remembers the description it was made from."""
    from nas.data import Data

    if not isinstance(made, Data):
        raise ConfigError(
            f"{where}: {description['name']!r} returned a {type(made).__name__}, expected a "
            "nas.data.Data (nas.data.from_datasets makes one of torch data sets)"
        )
    return dataclasses.replace(made, source=dict(description)) if made.source is None else made


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(factory).parameters)


def _nested(key: str, value: Any, where: str, given: Mapping[str, Any]) -> Any:
    kind = KIND_OF_ARGUMENT.get(key)
    if key == "objectives" and isinstance(value, list):
        return tuple(objective_from(item, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is None or not isinstance(value, str | Mapping | list):
        return value
    if isinstance(value, list):
        return tuple(create(kind, v, f"{where}[{i}]", given) for i, v in enumerate(value))
    return create(kind, value, where, given)


def _typed(
    factory: Callable[..., Any], arguments: dict[str, Any], where: str, given: set[str]
) -> dict[str, Any]:
    """The arguments as the factory's annotations want them (a list as a tuple, say)."""
    try:
        function = factory.__init__ if inspect.isclass(factory) else factory
        hints = typing.get_type_hints(function)
    except NameError:  # annotations that exist for the type checker only
        hints = {}
    known = _parameters(factory)
    checked = dict(arguments)
    for name, value in arguments.items():
        if name not in hints or name in given or name in KIND_OF_ARGUMENT or name == "objectives":
            continue
        record = _one_record(hints[name], value)
        if record is not None:
            if value is not None or inspect.isclass(hints[name]):
                default = known[name].default if name in known else None
                checked[name] = _record(record, value, f"{where}.{name}", default)
            continue
        kind = _records(hints[name])
        if kind is not None and isinstance(value, list | tuple):
            checked[name] = tuple(
                _record(kind, item, f"{where}.{name}[{i}]") for i, item in enumerate(value)
            )
            continue
        if isinstance(value, str) and re.fullmatch(r"\d+(x\d+)+", value):
            value = [int(size) for size in value.split("x")]
        adapter = pydantic.TypeAdapter[Any](
            hints[name], config=pydantic.ConfigDict(arbitrary_types_allowed=True)
        )
        try:
            found = adapter.validate_python(value)
            if isinstance(value, bool) and not isinstance(found, bool):
                raise ConfigError(f"{where}.{name}: expected a number, got {value!r}")
            checked[name] = found
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{where}.{name}: {first['msg']}, got {value!r}") from error
    return checked


def _one_record(hint: Any, value: Any = None) -> type | None:
    """The dataclass of ``Dataclass`` or ``Dataclass | None``; ``None`` for any other annotation.

    Of ``int | Dataclass`` too, where the value is a mapping.
    """
    parts = [part for part in typing.get_args(hint) or (hint,) if part is not type(None)]
    if isinstance(value, Mapping):
        parts = [part for part in parts if part not in (int, float, str)]
    if typing.get_origin(hint) not in (None, types.UnionType, typing.Union) or len(parts) != 1:
        return None
    (kind,) = parts
    return kind if inspect.isclass(kind) and dataclasses.is_dataclass(kind) else None


def _records(hint: Any) -> type | None:
    """The dataclass of ``tuple[Dataclass, ...]``; ``None`` for any other annotation."""
    match (typing.get_origin(hint), typing.get_args(hint)):
        case (builtin, (kind, end)) if builtin is tuple and end is ...:
            return kind if inspect.isclass(kind) and dataclasses.is_dataclass(kind) else None
    return None


def _record(kind: type, value: Any, where: str, default: Any = None) -> Any:
    """A plain dataclass (a training recipe, say) from a mapping of its fields.

    Fields that are not given are those of the argument's default, where that is of this kind; or
    those of a value that the class knows by ``name`` (its ``named``), which may stand alone.
    """
    if isinstance(value, kind):
        return value
    named = getattr(kind, "named", None)
    if isinstance(value, str) and named is not None:
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a mapping of {kind.__name__}'s fields, got {value!r}")
    # A name with a colon is the class's own, of a description.
    if named is not None and ":" not in str(value.get("name", ":")):
        try:
            default = named(str(value["name"]))
        except NasError as error:
            raise type(error)(f"{where}: {error}") from error
    fields = {key: item for key, item in value.items() if key != "name"}
    known = _parameters(kind)
    for key in fields:
        if key not in known:
            raise ConfigError(f"{where} has no {key!r}: {nearest(key, known)}")
    try:
        typed = _typed(kind, fields, where, set())
        if isinstance(default, kind):
            record: Any = default
            return dataclasses.replace(record, **typed)
        return kind(**typed)
    except NasError as error:
        raise type(error)(f"{where}: {error}") from error
