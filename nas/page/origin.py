"""What was run, with which settings, and on what machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nas.components import OPAQUE
from nas.config import find
from nas.page.markup import facts, note, text

_ELSEWHERE = ("name", "space", "objectives", "data", "seed", "stages", "strategy", "source")
_LONGEST = 90

FROM_SCRIPT = "(made by a script)"
"""What is said of a part that no file can name."""


def origin_document(header: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a run in one line each, its machine, and the whole header.

    ``machine`` is empty for a journal of a version that did not write it down.
    """
    strategy, evaluator = header.get("strategy") or {}, header.get("evaluator") or {}
    parts = {
        "space": brief(find(strategy, "space")),
        "strategy": _layers(strategy),
        "evaluator": _stages(evaluator),
        "data": brief(find(evaluator, "data")),
        "executor": brief(header.get("executor")),
        "budget": _pairs(header.get("budget") or {}),
        "seed": str(find(strategy, "seed")),
        "nasforge": str(header.get("version", "?")),
    }
    return {
        "parts": {name: value for name, value in parts.items() if value not in ("", "None")},
        "machine": _machine(header.get("machine") or {}),
        "header": dict(header),
    }


def origin_body(document: Mapping[str, Any]) -> str:
    """The section's HTML."""
    body = "<h3>Settings</h3>" + facts((n, text(v)) for n, v in document["parts"].items())
    body += "<h3>Machine it was started on</h3>"
    if document["machine"]:
        body += facts((name, text(value)) for name, value in document["machine"].items())
    else:
        body += note("The journal does not say: it was begun by an earlier version.")
    whole = json.dumps(document["header"], indent=1, ensure_ascii=False)
    return body + (
        "<details class=part><summary>The journal's header, in full</summary>"
        f"<pre>{text(whole)}</pre></details>"
    )


def brief(description: Any) -> str:
    """A component's name and those of its settings that are plain and not empty."""
    if description is None:
        return ""
    if not isinstance(description, Mapping):
        return str(description)
    if OPAQUE in description:
        return f"{description[OPAQUE]} {FROM_SCRIPT}"
    name = str(description.get("name", ""))
    told = _pairs({key: v for key, v in description.items() if key not in _ELSEWHERE})
    return f"{name} ({told})" if told and name else name or told


def _pairs(settings: Mapping[str, Any]) -> str:
    written = ""
    for key, value in settings.items():
        if value is None or value in ({}, [], ""):
            continue
        plain = isinstance(value, str | int | float) or (
            isinstance(value, list) and all(isinstance(item, str | int | float) for item in value)
        )
        shown = json.dumps(value) if isinstance(value, list) else value
        part = f"{key} {shown}" if plain else f"{key} …"
        if len(written) + len(part) > _LONGEST:
            return f"{written}, …"
        written += f", {part}" if written else part
    return written


def _layers(strategy: Mapping[str, Any]) -> str:
    """A strategy, and those it is a layer around."""
    inner = strategy.get("strategy")
    around = f" around {_layers(inner)}" if isinstance(inner, Mapping) else ""
    return brief(strategy) + around


def _stages(evaluator: Mapping[str, Any]) -> str:
    stages = evaluator.get("stages")
    if isinstance(stages, list):
        return ", then ".join(brief(stage) for stage in stages)
    return brief(evaluator)


def _machine(machine: Mapping[str, Any]) -> dict[str, str]:
    named = {
        "host": machine.get("host"),
        "processor": machine.get("cpu"),
        "cores": machine.get("cores"),
        "memory": machine.get("memory_bytes"),
        "system": machine.get("system"),
    }
    if isinstance(named["memory"], int | float):
        named["memory"] = f"{named['memory'] / 2**30:.1f} GiB"
    found = {name: str(value) for name, value in named.items() if value}
    versions = machine.get("versions") or {}
    return found | {str(name): str(value) for name, value in versions.items()}
