"""What a search had found by when: the best so far of each objective, and the front's volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nas.history import History, ParetoFront
from nas.objective import Objective, violated
from nas.pareto import costs, hypervolume

MOST_OBJECTIVES = 3
MOST_VOLUMES = 200
"""Volumes of more objectives, or after more changes of the front, take too long."""


def curves(history: History, objectives: Sequence[Objective]) -> list[dict[str, Any]]:
    """A curve for each objective, then the hypervolume of the front where there are several.

    Each has a ``name``, a ``note``, and ``steps``: finished trials, seconds of work until then, the
    value from there on, and the trial that it is of. The last step is the end of the run.
    """
    found = [_best(history, objective, objectives) for objective in objectives]
    if 2 <= len(objectives) <= MOST_OBJECTIVES:
        found.append(_volume(history, objectives))
    return [curve for curve in found if curve["steps"]]


def _best(
    history: History, objective: Objective, objectives: Sequence[Objective]
) -> dict[str, Any]:
    steps: list[tuple[int, float, float, int]] = []
    seconds = 0.0
    for place, trial in enumerate(history.trials, start=1):
        seconds += trial.cost.seconds
        value = trial.values.get(objective.metric)
        if value is None or violated(objectives, trial.values) is not None:
            continue
        if not steps or objective.better(value, steps[-1][2]):
            steps.append((place, seconds, value, trial.number))
    limited = any(one.limit is not None for one in objectives)
    return {
        "name": objective.metric,
        "note": f"best so far, {objective.direction}d" + (", within all limits" * limited),
        "direction": objective.direction,
        "steps": _ended(steps, history, seconds),
    }


def _volume(history: History, objectives: Sequence[Objective]) -> dict[str, Any]:
    kept = [
        trial
        for trial in history.trials
        if all(one.metric in trial.values for one in objectives)
        and violated(objectives, trial.values) is None
    ]
    changes: list[tuple[int, float, int, list[tuple[float, ...]]]] = []
    seconds = 0.0
    front = ParetoFront(objectives)
    known = {trial.number for trial in kept}
    for place, trial in enumerate(history.trials, start=1):
        seconds += trial.cost.seconds
        if trial.number in known and front.add(trial):
            points = [costs(objectives, member.values) for member in front.trials()]
            changes.append((place, seconds, trial.number, points))
    steps: list[tuple[int, float, float, int]] = []
    if changes:
        rows = np.array([costs(objectives, trial.values) for trial in kept])
        worst = rows.max(axis=0)
        span = np.where(np.ptp(rows, axis=0) > 0, np.ptp(rows, axis=0), 1.0)
        some = np.unique(np.linspace(0, len(changes) - 1, MOST_VOLUMES).round().astype(int))
        for place, at, number, points in (changes[int(index)] for index in some):
            # A little beyond the worst, so that the front's ends count too.
            volume = hypervolume((np.array(points) - worst) / span, np.full(len(span), 0.05))
            steps.append((place, at, volume, number))
        last = steps[-1][2]
        steps = [(place, at, volume / last, number) for place, at, volume, number in steps]
    return {
        "name": "hypervolume of the front",
        "note": "share of what the front dominates at the end; the corner is the worst measured",
        "direction": "maximize",
        "steps": _ended(steps, history, seconds),
    }


def _ended(
    steps: list[tuple[int, float, float, int]], history: History, seconds: float
) -> list[list[float]]:
    if steps and steps[-1][0] < len(history.trials):
        steps = [*steps, (len(history.trials), seconds, steps[-1][2], steps[-1][3])]
    return [
        [place, round(at, 3), float(f"{value:.7g}"), number] for place, at, value, number in steps
    ]
