"""Markdown out of docstrings and signatures: what the pages of systems are made of."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")


def markdown(text: str) -> str:
    """A docstring's prose as Markdown: a list or a code block needs an empty line before it."""
    lines: list[str] = []
    for line in text.splitlines():
        item = re.match(r"\s*[-*] ", line)
        before = lines[-1] if lines else ""
        if item and before.strip() and not re.match(r"\s*[-*] |  ", before):
            lines.append("")
        lines.append(line)
    return "\n".join(lines).strip()


def prose(docstring: str) -> str:
    """A docstring without its sections."""
    kept, inside = [], False
    for line in docstring.splitlines():
        if line in SECTIONS:
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        if not inside:
            kept.append(line)
    return markdown("\n".join(kept))


def arguments(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument or attribute, by name."""
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if line in SECTIONS:
            inside = line in ("Args:", "Attributes:")
            names = []
        elif line and not line.startswith(" "):
            inside = False
        elif inside:
            entry = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
            if entry:
                names = entry.group(1).split(", ")
                found |= dict.fromkeys(names, entry.group(2))
            else:
                found |= {name: f"{found[name]} {line.strip()}".rstrip() for name in names}
    return found


def module_text(factory: Callable[..., Any]) -> str:
    """What the module says that defines a component; for one of several functions nothing."""
    if not inspect.isclass(factory):
        return ""
    return markdown(inspect.getdoc(sys.modules[factory.__module__]) or "")


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "needed"
    if dataclasses.is_dataclass(value):
        return "see below"
    if isinstance(value, tuple) and any(dataclasses.is_dataclass(item) for item in value):
        return f"{len(value)} of them"
    text = repr(value)
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}…`"


def record_of(hint: Any) -> type | None:
    """The dataclass in an annotation: itself, or in a union or a tuple; or none."""
    if inspect.isclass(hint) and dataclasses.is_dataclass(hint):
        return hint
    if typing.get_origin(hint) in (types.UnionType, typing.Union, tuple):
        return next(filter(None, map(record_of, typing.get_args(hint))), None)
    return None


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except NameError:  # annotations that exist for the type checker only
        return {}


def settings(factory: Callable[..., Any], given: Sequence[str] = ()) -> str:
    """The table of a component's arguments, and one for each record among them.

    Args:
        given: those that a run fills in: they have no row.
    """
    said = arguments(inspect.getdoc(sys.modules[factory.__module__]) or "")
    if inspect.isclass(factory):  # what a shared base says holds where the class says nothing
        for base in reversed(factory.__mro__):
            said |= arguments(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
            init = base.__dict__.get("__init__")
            said |= arguments(inspect.cleandoc(getattr(init, "__doc__", None) or ""))
    else:
        said |= arguments(inspect.getdoc(factory) or "")
    parameters = inspect.signature(factory).parameters.values()
    rows = ["| argument | default | |", "|---|---|---|"]
    records: list[tuple[str, type, Any]] = []
    hints = _hints(factory)
    for one in parameters:
        if one.name in given or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        rows.append(f"| `{one.name}` | {_default(one.default)} | {cell(said.get(one.name, ''))} |")
        record = record_of(hints.get(one.name))
        if record is not None and (
            dataclasses.is_dataclass(one.default) or "settings" in one.name or one.name == "layout"
        ):
            records.append((one.name, record, one.default))
    parts = ["\n".join(rows)] if len(rows) > 2 else ["It has none of its own."]
    for record in records:
        parts += _records(*record)
    return "\n\n".join(parts)


def _records(name: str, kind: type, default: Any) -> list[str]:
    """The table of a record's fields, and those of the records in it."""
    said: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        said |= arguments(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
    rows = [f"### `{name}`", "", "| field | default | |", "|---|---|---|"]
    inside: list[str] = []
    for field in dataclasses.fields(kind):
        value = _value(field, default if isinstance(default, kind) else None)
        rows.append(f"| `{field.name}` | {_default(value)} | {cell(said.get(field.name, ''))} |")
        if dataclasses.is_dataclass(value):
            inside += _records(f"{name}.{field.name}", type(value), value)
    return ["\n".join(rows), *inside]


def _value(field: dataclasses.Field[Any], record: Any) -> Any:
    if record is not None:
        return getattr(record, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    missing = field.default is dataclasses.MISSING
    return inspect.Parameter.empty if missing else field.default
