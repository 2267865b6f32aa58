"""What the page of one run shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas.components import objective_from
from nas.config import find, space_from_header
from nas.errors import ConfigError, NasError
from nas.history import JOURNAL, History, objectives_of
from nas.objective import Objective
from nas.page import commands, failures, latency, networks, origin, progress, trials
from nas.page.choices import axes, importance_documents
from nas.page.run_sections import page_of
from nas.space import SearchSpace

FORMAT = 1
OnStep = Callable[[str], None]


def run_page(folder: str | Path, on_step: OnStep | None = None) -> str:
    """A run as one HTML file, as text.

    Args:
        folder: the run's; what it is called here is what the commands in the page say.
        on_step: told what is being made.

    Raises:
        ConfigError: the folder holds no run.
        JournalError: its journal is damaged.
    """
    return page_of(run_document(folder, on_step))


def run_document(folder: str | Path, on_step: OnStep | None = None) -> dict[str, Any]:
    """Everything that the page of a run shows, as JSON values. Arguments as for ``run_page``."""
    say = on_step or (lambda _: None)
    path = Path(folder)
    if not (path / JOURNAL).exists():
        raise ConfigError(f"{folder} is not a run folder: it has no {JOURNAL}")
    say("reading the journal")
    history = History(path)
    header = history.header
    if header is None:
        raise ConfigError(f"{folder}: the run was killed before it began; start it again")
    objectives = [
        objective_from(one, f"objectives[{i}]") for i, one in enumerate(objectives_of(header))
    ]
    space, problem = _space(header)
    front = history.front(objectives)
    document: dict[str, Any] = {
        "format": FORMAT,
        "kind": "run",
        "name": path.resolve().name,
        "folder": str(folder),
        "written": datetime.fromtimestamp((path / JOURNAL).stat().st_mtime, UTC).strftime(
            "%Y-%m-%d %H:%M UTC"
        ),
        "objectives": [
            {"metric": o.metric, "direction": o.direction, "limit": o.limit, "text": str(o)}
            for o in objectives
        ],
        "metrics": trials.metrics_of(history, objectives),
        "space": str(header.get("space", "?")),
        "problem": problem,
        "choices": [],
        "axes": [],
        "varied": 0,
        "counts": _counts(history, objectives, space),
        "trials": trials.columns(history, objectives, space),
        "front": [trial.number for trial in front],
        "progress": progress.curves(history, objectives),
        "failures": failures.failures_document(history),
        "importance": [],
        "networks": [],
        "latency": None,
        "origin": origin.origin_document(header),
        "ways": _ways(header, space),
    }
    if space is None:
        return document
    document["choices"] = [
        {"label": choice.label, "options": list(choice.options)} for choice in space.choices
    ]
    say("importance of choices")
    document["importance"] = importance_documents(history, space, objectives)
    document["axes"], document["varied"] = axes(history, space, document["importance"])
    document["networks"] = networks.networks_document(
        history, objectives, space, lambda done, of: say(f"networks of the front: {done} of {of}")
    )
    document["latency"] = latency.latency_document(history, space)
    return document


def _space(header: dict[str, Any]) -> tuple[SearchSpace | None, str]:
    """The run's space, or why it cannot be had."""
    try:
        return space_from_header(header), ""
    except NasError as error:
        return None, str(error)


def _ways(header: dict[str, Any], space: SearchSpace | None) -> dict[str, bool]:
    evaluator = header.get("evaluator")
    # Looked at, not made: a report reads no data.
    trains = not commands.opaque(evaluator) and find(evaluator, "data") is not None
    whole = {key: header.get(key) for key in ("strategy", "evaluator", "executor")}
    built = space is not None
    return {"built": built, "trains": trains, "resumes": built and not commands.opaque(whole)}


def _counts(
    history: History, objectives: Sequence[Objective], space: SearchSpace | None
) -> dict[str, Any]:
    kinds = [trials.status(trial) for trial in history.trials]
    front = history.front(objectives)
    return {
        "trials": len(kinds),
        "measured": kinds.count(trials.MEASURED),
        "infeasible": kinds.count(trials.INFEASIBLE),
        "failed": kinds.count(trials.FAILED),
        "seconds": history.spent.seconds,
        "epochs": history.spent.epochs,
        "front": len(front),
        "best": {
            objective.metric: [
                (best := history.best(objective, among=front)).number,
                best.values[objective.metric],
            ]
            for objective in objectives
            if front
        },
    }
