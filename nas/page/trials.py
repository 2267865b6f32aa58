"""The trials of a run as columns, thinned where there are more than a page can draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nas.history import History
from nas.objective import Objective, violated
from nas.space import HasTextForm, SearchSpace
from nas.trial import Failed, Infeasible, Trial

MOST_DRAWN = 1200
"""Trials in a page; more cost a phone seconds and show nothing that these do not."""

MEASURED, INFEASIBLE, FAILED = range(3)


def status(trial: Trial) -> int:
    """Whether a trial was measured, infeasible, or failed."""
    if isinstance(trial.outcome, Failed):
        return FAILED
    return INFEASIBLE if isinstance(trial.outcome, Infeasible) else MEASURED


def metrics_of(history: History, objectives: Sequence[Objective]) -> list[str]:
    """The objectives first, then whatever else was measured."""
    names = dict.fromkeys(objective.metric for objective in objectives)
    for trial in history.trials:
        names |= dict.fromkeys(trial.values)
    return list(names)


def thinned(history: History, objectives: Sequence[Objective]) -> list[int]:
    """The places of the trials to draw, in order.

    All of them up to ``MOST_DRAWN``. Of more: the front, every trial that was the best so far in
    an objective, and as many of the others, evenly spread, as there is room for.
    """
    count = len(history.trials)
    if count <= MOST_DRAWN:
        return list(range(count))
    front = {trial.number for trial in history.front(objectives)}
    needed = [place for place, trial in enumerate(history.trials) if trial.number in front]
    best: dict[str, float] = {}
    for place, trial in enumerate(history.trials):
        if violated(objectives, trial.values) is not None:
            continue
        for objective in objectives:
            value = trial.values.get(objective.metric)
            known = best.get(objective.metric)
            if value is not None and (known is None or objective.better(value, known)):
                best[objective.metric] = value
                needed.append(place)
    kept = set(needed)
    others = [place for place in range(count) if place not in kept]
    room = max(0, MOST_DRAWN - len(kept))
    spread = np.unique(np.linspace(0, len(others) - 1, min(room, len(others))).astype(int))
    return sorted(kept | {others[int(place)] for place in spread})


def columns(
    history: History, objectives: Sequence[Objective], space: SearchSpace | None
) -> dict[str, Any]:
    """The trials that are drawn, a list a column.

    ``order`` counts finished trials from 1 and ``elapsed`` adds up their seconds, over all of
    them. ``picks`` has the index of each choice's option, -1 where it is inactive; ``text`` the
    architectures where their space has a notation of its own.
    """
    kept = thinned(history, objectives)
    names = metrics_of(history, objectives)
    elapsed = np.cumsum([trial.cost.seconds for trial in history.trials])
    trials = [history.trials[place] for place in kept]
    found: dict[str, Any] = {
        "of": len(history.trials),
        "number": [trial.number for trial in trials],
        "status": [status(trial) for trial in trials],
        "order": [place + 1 for place in kept],
        "elapsed": [round(float(elapsed[place]), 3) for place in kept],
        "seconds": [round(trial.cost.seconds, 3) for trial in trials],
        "epochs": [round(trial.cost.epochs, 4) for trial in trials],
        "within": [violated(objectives, trial.values) is None for trial in trials],
        "parent": [trial.proposal.parent for trial in trials],
        "values": {name: [_rounded(_known(trial).get(name)) for trial in trials] for name in names},
        "why": [_why(trial) for trial in trials],
    }
    if space is not None:
        index = [{option: i for i, option in enumerate(c.options)} for c in space.choices]
        found["picks"] = []
        for trial in trials:
            picks = trial.arch.as_dict()
            found["picks"].append(
                [
                    where.get(picks[choice.label], -1) if choice.label in picks else -1
                    for choice, where in zip(space.choices, index, strict=True)
                ]
            )
    if space is None or isinstance(space, HasTextForm):
        written = str if space is None or not isinstance(space, HasTextForm) else space.format
        found["text"] = [written(trial.arch) for trial in trials]
    return found


def _known(trial: Trial) -> dict[str, float]:
    """What was measured, also of a trial that broke a limit."""
    return {} if isinstance(trial.outcome, Failed) else dict(trial.outcome.values)


def _why(trial: Trial) -> str:
    if isinstance(trial.outcome, Failed):
        return f"{trial.outcome.cause}: {trial.outcome.message}"[:300]
    return trial.outcome.reason[:300] if isinstance(trial.outcome, Infeasible) else ""


def _rounded(value: float | None) -> float | None:
    """To seven digits, but for whole numbers: nobody sees more, and they would be half the file."""
    if value is None:
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.7g}")
