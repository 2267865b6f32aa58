"""Classes, functions and constants copied word for word, with all they reference.

Starting from a class or function, the names its source leaves free are looked up among the
top-level statements of its module: definitions are copied, dependencies first; imports of torch
and the standard library are repeated; imports from anywhere else are followed to their source.
The methods by which a layer speaks to a search alone (``SEARCH_METHODS``) are left out.
"""

from __future__ import annotations

import ast
import builtins
import copy
import importlib
import importlib.util
import inspect
import symtable
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from nas.errors import ExportError

SEARCH_METHODS = {"layouts", "grows_from", "grown"}
"""Of ``nas.supernet.slicing.HasLayouts`` and ``nas.morphism.Grows``."""

_DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


# ------------------------------------------------------------------------- reading a module


@dataclass(frozen=True)
class _Source:
    lines: tuple[str, ...]
    bound: dict[str, tuple[ast.stmt, ...]]
    postponed: bool  # whether annotations are, by ``from __future__ import annotations``
    left_out: dict[ast.stmt, set[int]]  # lines of classes, counted from 1

    def text(self, statement: ast.stmt) -> str:
        left_out = self.left_out.get(statement, set())
        lines = range(_first_line(statement), (statement.end_lineno or statement.lineno) + 1)
        return "\n".join(self.lines[line - 1] for line in lines if line not in left_out)


def _first_line(statement: ast.stmt) -> int:
    first = statement.lineno
    if isinstance(statement, _DEFINITION):
        first = min([first, *(line.lineno for line in statement.decorator_list)])
    return first


def _without_search_methods(statement: ast.ClassDef) -> set[int]:
    """Takes the methods that only a search calls out of a class; gives their lines."""
    methods = [
        part
        for part in statement.body
        if isinstance(part, ast.FunctionDef) and part.name in SEARCH_METHODS
    ]
    rest = [part for part in statement.body if part not in methods]
    called = {
        node.attr for part in rest for node in ast.walk(part) if isinstance(node, ast.Attribute)
    }
    if not methods or not rest or called & SEARCH_METHODS:
        return set()
    lines: set[int] = set()
    before = _first_line(statement.body[0]) - 1
    for part in statement.body:
        if part in methods:  # with the empty lines and comments before it
            lines |= set(range(before + 1, (part.end_lineno or part.lineno) + 1))
        before = part.end_lineno or part.lineno
    statement.body = rest
    return lines


def _read(module: ModuleType) -> _Source:
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        raise ExportError(
            f"module {module.__name__!r} has no source file: define what the network needs in "
            "a module of its own and import it from there"
        ) from None
    tree = ast.parse(source)
    bound: dict[str, tuple[ast.stmt, ...]] = {}
    left_out: dict[ast.stmt, set[int]] = {}
    postponed = False
    for statement in _top_level(tree):
        if isinstance(statement, ast.ClassDef):
            left_out[statement] = _without_search_methods(statement)
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            postponed = postponed or any(name.name == "annotations" for name in statement.names)
            continue
        for name in _binds(statement):
            bound[name] = (*bound.get(name, ()), statement)
    return _Source(tuple(source.splitlines()), bound, postponed, left_out)


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    for statement in tree.body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) in (
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
        ):
            yield from statement.body  # annotations name what is imported here
        else:
            yield statement


def _binds(statement: ast.stmt) -> set[str]:
    if isinstance(statement, _DEFINITION):
        return {statement.name}
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, _DEFINITION):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {_bound_name(alias) for alias in node.names}
    return found


def _bound_name(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


# ------------------------------------------------------------------------------- free names


def _free_names(statement: ast.stmt) -> tuple[list[str], list[str]]:
    """The global names a statement uses, and those it may use: in annotations, for instance."""
    bare = copy.deepcopy(statement)
    perhaps: dict[str, None] = {}
    for node in ast.walk(bare):
        if isinstance(node, ast.arg) and node.annotation is not None:
            perhaps |= dict.fromkeys(_annotation_names(node.annotation))
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            perhaps |= dict.fromkeys(_annotation_names(node.returns))
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            perhaps |= dict.fromkeys(_annotation_names(node.annotation))
            node.annotation = ast.Constant(None)
    top = symtable.symtable(ast.unparse(bare), "<export>", "exec")
    used: dict[str, None] = {}
    for table in _tables(top):
        for symbol in table.get_symbols():
            if symbol.is_global() or (table is top and symbol.is_referenced()):
                used[symbol.get_name()] = None
            elif isinstance(table, symtable.Class) and symbol.is_referenced():
                # ``half = staticmethod(half)``: its own, but it may have been the module's first.
                perhaps[symbol.get_name()] = None
    own = _binds(statement)
    return (
        [name for name in used if name not in own],
        [name for name in perhaps if name not in used and name not in own],
    )


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _annotation_names(annotation: ast.AST) -> Iterator[str]:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except SyntaxError:
            return
    if isinstance(annotation, ast.Name):
        yield annotation.id
    parts = list(ast.iter_child_nodes(annotation))
    if isinstance(annotation, ast.Subscript) and "Literal" in ast.unparse(annotation.value):
        parts = [annotation.value]  # the strings in Literal["same"] are no names
    for part in parts:
        yield from _annotation_names(part)


# ------------------------------------------------------------------------------ the collector


@dataclass(frozen=True)
class _Import:
    module: str
    member: str | None
    alias: str | None

    def value(self) -> Any:
        module = importlib.import_module(self.module)
        if self.member is None:
            return module if self.alias else sys.modules[self.module.split(".")[0]]
        try:
            return getattr(module, self.member)
        except AttributeError:
            return importlib.import_module(f"{self.module}.{self.member}")


class Definitions:
    """What one exported file holds beside its network: imports and definitions, each once."""

    def __init__(self, replaced: Mapping[str, str] | None = None) -> None:
        """``replaced``: another text for a definition, by its module and name."""
        self._replaced = replaced or {}
        self._sources: dict[ModuleType, _Source] = {}
        self._origins: dict[str, object] = {}
        self._imports: dict[str, set[_Import]] = {}
        self._texts: dict[tuple[str, int], tuple[str, bool]] = {}
        self._postponed = False

    def reserve(self, name: str) -> None:
        """Keeps a name for the file itself."""
        self._claim(name, "the exported file itself")

    def need(self, value: Any) -> str:
        """Copies a class or function, with all it references; returns its name.

        Raises:
            ExportError: its source cannot be found, or cannot stand alone.
        """
        name, qualified = value.__name__, value.__qualname__
        home = value.__module__
        what = f"{'class' if inspect.isclass(value) else 'function'} {home}.{qualified}"
        if name == "<lambda>":
            raise ExportError(
                f"a lambda of {home} (in {qualified}) has no name to be exported under: make it "
                "a function at the top level of its module"
            )
        if qualified != name:
            raise ExportError(
                f"{what} is defined inside another definition: move it to the top level of its "
                "module"
            )
        module = sys.modules.get(home)
        if module is None or getattr(module, name, None) is not value:
            raise ExportError(
                f"{what} is not what its module calls {name!r}, so its source cannot be told: "
                "export needs classes and functions as their module defines them"
            )
        self._define(module, name)
        return str(name)

    def need_import(self, module: str, member: str | None = None, alias: str | None = None) -> str:
        """Adds an import statement; returns the name it binds."""
        wanted = _Import(module, member, alias)
        name = alias or member or module.split(".")[0]
        self._claim(name, wanted.value())
        known = self._imports.setdefault(name, set())
        # ``import a.b`` and ``import a.c`` both bind a; any other two say the same twice.
        if not known or (member is None and alias is None):
            known.add(wanted)
        return name

    def _claim(self, name: str, origin: object) -> None:
        known = self._origins.setdefault(name, origin)
        if known is not origin and known != origin:
            raise ExportError(
                f"two things are called {name!r}, in {_say(known)} and in {_say(origin)}, and one "
                "file has to hold both: rename one"
            )

    def _define(self, module: ModuleType, name: str) -> None:
        if self._origins.get(name) == f"module {module.__name__}":
            return
        self._claim(name, f"module {module.__name__}")
        source = self._source(module)
        statement = self._statement(module, name)
        used, perhaps = _free_names(statement)
        for free in used:
            if free in source.bound:
                self._resolve(module, free)
            elif not hasattr(builtins, free) and not (free[:2] == free[-2:] == "__"):
                raise ExportError(
                    f"{module.__name__}.{name} uses {free!r}, which no statement at the top "
                    "level of its module binds by name: define or import it there"
                )
        for free in perhaps:
            if free in source.bound:
                self._resolve(module, free)
        self._postponed = self._postponed or source.postponed
        key = module.__name__, statement.lineno
        text = self._replaced.get(f"{module.__name__}.{name}") or source.text(statement)
        self._texts[key] = text, isinstance(statement, _DEFINITION)

    def _source(self, module: ModuleType) -> _Source:
        if module not in self._sources:
            self._sources[module] = _read(module)
        return self._sources[module]

    def _statement(self, module: ModuleType, name: str) -> ast.stmt:
        statements = self._source(module).bound.get(name, ())
        plain = _DEFINITION | ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom
        if len(statements) != 1 or not isinstance(statements[0], plain):
            found = "; ".join(f"line {statement.lineno}" for statement in statements)
            raise ExportError(
                f"{name!r} must be bound by one plain statement at the top level of "
                f"{module.__name__!r} to be exported; it is bound by: {found or 'none'}"
            )
        return statements[0]

    def _resolve(self, module: ModuleType, name: str) -> None:
        statement = self._statement(module, name)
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            self._define(module, name)
            return
        alias = next(alias for alias in statement.names if _bound_name(alias) == name)
        if isinstance(statement, ast.Import):
            if not _may_import(alias.name):
                raise ExportError(
                    f"{module.__name__} imports {alias.name!r} (as {name!r}), but an exported "
                    "file may import torch and the standard library only: import what you need "
                    "from it by name, or do without it"
                )
            self.need_import(alias.name, None, alias.asname)
            return
        dots = "." * statement.level + (statement.module or "")
        origin = importlib.util.resolve_name(dots, module.__package__)
        if _may_import(origin):
            self.need_import(origin, alias.name, alias.asname)
            return
        self._follow(module, name, _Import(origin, alias.name, alias.asname))

    def _follow(self, module: ModuleType, name: str, found: _Import) -> None:
        """An import from the user's own code, or this project's: its source comes along."""
        value = found.value()
        if isinstance(value, ModuleType):
            raise ExportError(
                f"{module.__name__} imports the module {value.__name__!r}: import the names you "
                "need from it instead, so that they can be copied"
            )
        if found.alias not in (None, found.member):
            raise ExportError(
                f"{module.__name__} imports {found.member!r} as {found.alias!r}: import it under "
                "its own name, so that it can be copied"
            )
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__name__ == name:
            self.need(value)
        else:
            self._resolve(sys.modules[found.module], name)

    # ------------------------------------------------------------------------- as source

    def imports(self) -> str:
        """The import statements, in the order of isort."""
        statements = sorted(
            {statement for group in self._imports.values() for statement in group},
            key=lambda found: (found.module, found.member or ""),
        )
        sections = [["from __future__ import annotations"] if self._postponed else []]
        for torchs in (False, True):
            section = [s for s in statements if (s.module.split(".")[0] == "torch") == torchs]
            sections.append([*_plain_imports(section), *_from_imports(section)])
        return "\n\n".join("\n".join(section) for section in sections if section)

    def parts(self) -> list[tuple[str, bool]]:
        """The definitions' texts, dependencies first; whether each is a class or function."""
        return list(self._texts.values())


def _plain_imports(statements: list[_Import]) -> list[str]:
    return [
        f"import {found.module}" + (f" as {found.alias}" if found.alias else "")
        for found in statements
        if found.member is None
    ]


def _from_imports(statements: list[_Import]) -> Iterator[str]:
    members: dict[str, list[str]] = {}
    renamed: dict[str, list[str]] = {}
    for found in statements:
        if found.member is not None and found.alias in (None, found.member):
            members.setdefault(found.module, []).append(found.member)
        elif found.member is not None:
            renamed.setdefault(found.module, []).append(f"{found.member} as {found.alias}")
    for module in sorted({*members, *renamed}):
        if module in members:
            names = sorted(members[module], key=_member_order)
            line = f"from {module} import {', '.join(names)}"
            if len(line) > 100:
                line = f"from {module} import (\n    " + ",\n    ".join(names) + ",\n)"
            yield line
        for name in renamed.get(module, ()):
            yield f"from {module} import {name}"


def _member_order(name: str) -> tuple[int, str]:
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name


def _may_import(module: str) -> bool:
    root = module.split(".")[0]
    return root == "torch" or root in sys.stdlib_module_names


def _say(origin: object) -> str:
    if isinstance(origin, str):
        return origin
    return f"an import ({getattr(origin, '__name__', origin)})"
