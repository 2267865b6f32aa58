"""One page a system: read from the registry, from docstrings and signatures, and systems.yaml."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import yaml
from texts import cell, markdown, module_text, prose, settings

from nas import registry
from nas.catalogue import size_text, summarise_space

DOCS = Path(__file__).parents[1]
TOLD: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "systems.yaml").read_text()
)
GIVEN = ("space", "objectives", "seed", "data")
"""Arguments that a run fills in."""
TITLES: dict[str, str] = {
    "strategies": "Strategies",
    "spaces": "Search spaces",
    "evaluators": "Evaluators",
    "datasets": "Data sets",
    "executors": "Executors",
}
USED: dict[str, tuple[str, str]] = {
    "datasets": ("data", "data: NAME"),
    "executors": ("executor", "executor: NAME"),
}


def configuration(kind: str, name: str) -> str:
    """The YAML of a search that uses a component; empty where its place is one line."""
    told = TOLD.get(kind, {}).get(name) or {}
    templates = TOLD["templates"]
    text = told.get("config") or templates.get(told.get("template", kind), "")
    return str(text).replace("SPACE", told.get("space", name)).replace("NAME", name)


def command(before: str) -> str:
    return f"{before}nas search search.yaml --out runs/search"


def result_links(pages: list[str], up: str) -> str:
    """A list of the results pages, each under its own title."""
    lines = []
    for page in pages:
        title = (DOCS / "results" / f"{page}.md").read_text().splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}]({up}results/{page}.md)")
    return "\n".join(lines)


def _run(text: str, before: str) -> list[str]:
    return [
        "## How to run it",
        "`search.yaml`:",
        f"```yaml\n{text.strip()}\n```",
        f"```bash\n{command(before)}\n```",
    ]


def component_page(kind: registry.Kind, name: str) -> str:
    """The page of a registered component."""
    factory = registry.load(kind, name)
    told = TOLD.get(kind, {}).get(name) or {}
    own = prose(inspect.getdoc(factory) or "")
    about = module_text(factory) if kind != "datasets" else ""
    title, _, rest = about.partition("\n")
    parts = [f"# `{name}`", f"*{registry.SINGULAR[kind].capitalize()}*"]
    if kind == "spaces":
        parts.append(_size(name))
    parts += [f"**{title}**", rest.strip(), "## What it does"] if about else []
    parts += [own, "## Settings", settings(factory, GIVEN)]
    text = configuration(kind, name)
    if kind in USED:
        key, line = USED[kind]
        parts += ["## How to use it", f"In a configuration, `{line.replace('NAME', name)}`."]
        if kind == "datasets" and "needed" in parts[parts.index("## Settings") + 1]:
            parts[-1] = f"In a configuration, `{key}: {{name: {name}, root: FOLDER}}`."
        if kind == "executors":
            parts[-1] += f" Or `nas search … --executor {name}`."
    else:
        parts += _run(text, told.get("before", ""))
    if kind == "spaces":
        parts.append(f"```bash\nnas show-space {name}\nnas cost {name}\n```")
    if told.get("results"):
        parts += ["## Its numbers here", result_links(told["results"], "../../")]
    where = f"`{factory.__module__}`"
    parts.append(f"Source: {where}. Found as `{factory.__module__}:{factory.__qualname__}`, too.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _size(name: str) -> str:
    found = summarise_space(name)
    facts = []
    if found.size is not None:
        facts.append(f"{size_text(found.size)} architectures")
    if found.choices is not None:
        facts.append(f"{found.choices} choices")
    if found.paper:
        facts.append(found.paper)
    text = " · ".join(facts)
    if found.points:
        names = ", ".join(f"`{name}:{point}`" for point in found.points)
        text += (
            f"\n\nPublished networks: {names} ([their costs](../../spaces.md#published-networks))."
        )
    return text


def published_page(name: str) -> str:
    """The page of a system that is a choice of parts."""
    told = TOLD["published"][name]
    links = [
        f"- {registry.SINGULAR[kind]}: [`{part}`](../{kind}/{part}.md)"
        for kind, part in told["parts"].items()
    ]
    parts = [f"# {told['title']}", told["paper"] + ".", told["says"], "## What it is made of"]
    parts += ["\n".join(links)]
    parts.append("What differs from the paper, and all settings, stand on the pages of the parts.")
    parts += _run(told["config"], told.get("before", ""))
    if told["results"]:
        parts += ["## Its numbers here", result_links(told["results"], "../../")]
    return "\n\n".join(parts) + "\n"


def index_page() -> str:
    """All systems by kind."""
    parts = [
        "# Systems",
        "A published system is a choice of space, strategy and evaluator, and any part goes with "
        "any other. Every page has the paper, what differs from it, the settings, a configuration "
        "that runs it, and where its numbers are. The pages are read from the code: they cannot "
        "say anything else than it does.",
        "## Published systems made of parts",
        "| system | space | strategy | evaluator |\n|---|---|---|---|",
    ]
    for name, told in TOLD["published"].items():
        row = [f"[{told['title']}](published/{name}.md)"]
        row += [f"[`{told['parts'][k]}`]({k}/{told['parts'][k]}.md)" for k in told["parts"]]
        parts[-1] += f"\n| {' | '.join(row)} |"
    parts.append(
        "Those that are a strategy of their own (DARTS, PC-DARTS, ENAS, FBNet, ProxylessNAS, PNAS, "
        "NASH, EAS, large-scale evolution, …) are below."
    )
    for kind, title in TITLES.items():
        rows = [f"## {title}", "", "| name | |", "|---|---|"]
        for name in registry.names(kind):  # type: ignore[arg-type]  # the registry's kinds
            rows.append(f"| [`{name}`]({kind}/{name}.md) | {first_line(kind, name)} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def first_line(kind: str, name: str) -> str:
    text = registry.summary(kind, name)  # type: ignore[arg-type]  # the registry's kinds
    return cell(re.sub(r"\s+", " ", markdown(text)))


def pages() -> dict[str, str]:
    """All pages, by their path in the documentation."""
    found = {"systems/index.md": index_page()}
    found |= {f"systems/published/{name}.md": published_page(name) for name in TOLD["published"]}
    for kind in TITLES:
        for name in registry.names(kind):  # type: ignore[arg-type]  # the registry's kinds
            found[f"systems/{kind}/{name}.md"] = component_page(kind, name)  # type: ignore[arg-type]
    return found


def navigation() -> list[Any]:
    """Their place in the site's navigation."""
    published = [
        {told["title"]: f"systems/published/{name}.md"} for name, told in TOLD["published"].items()
    ]
    entries: list[Any] = ["systems/index.md", {"Published systems": published}]
    for kind, title in TITLES.items():
        names = registry.names(kind)  # type: ignore[arg-type]  # the registry's kinds
        entries.append({title: [{name: f"systems/{kind}/{name}.md"} for name in names]})
    return entries
