"""The pages of the API reference: one a module of the core, one a package inside it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("nas.cli",)
"""What is no interface for programs: the command line says itself what it does (--help)."""


def modules() -> dict[str, list[str]]:
    """The pages by name, each with the modules on it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "nas").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        page = ".".join(name.split(".")[:2])
        private = any(part.startswith("_") for part in name.split("."))
        if not private and page not in LEFT_OUT and _shows(path):
            found.setdefault(page, []).append(name)
    return found


def _shows(path: Path) -> bool:
    """Whether a module has a docstring, or anything public of its own."""
    tree = ast.parse(path.read_text())
    return ast.get_docstring(tree) is not None


def summary(module: str) -> str:
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def pages() -> dict[str, str]:
    """All pages, by their path in the documentation."""
    rows = ["| module | |", "|---|---|"]
    found: dict[str, str] = {}
    for page, inside in modules().items():
        rows.append(f"| [`{page}`]({page}.md) | {summary(page)} |")
        blocks = "\n\n".join(f"::: {module}" for module in inside)
        found[f"reference/{page}.md"] = f"# {page}\n\n{blocks}\n"
    intro = (
        "# API\n\nThe core, `nas`, from its docstrings. Spaces, strategies and evaluators have "
        "[pages of their own](../systems/index.md).\n\n"
    )
    return {"reference/index.md": intro + "\n".join(rows) + "\n"} | found


def navigation() -> list[Any]:
    """Their place in the site's navigation."""
    single, packages = [], []
    for page in modules():
        folder = ROOT.joinpath(*page.split(".")).is_dir() and page != "nas"
        (packages if folder else single).append({page: f"reference/{page}.md"})
    return ["reference/index.md", {"Modules": single}, {"Packages": packages}]
