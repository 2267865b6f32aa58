"""The choices of a run: which axes parallel coordinates have, and which of them matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.errors import NasError
from nas.history import History
from nas.importance import Importance, of_history
from nas.objective import Objective
from nas.page.markup import note, short, text
from nas.space import SearchSpace

MOST_AXES = 7
MOST_BARS = 12


def importance_documents(
    history: History, space: SearchSpace, objectives: Sequence[Objective]
) -> list[dict[str, Any]]:
    """What ``nas.importance`` finds, as JSON values, for each objective.

    Where nothing can be said, ``weak`` says why.
    """
    found = []
    for objective in objectives:
        try:
            one: Importance | None = of_history(history, space, objective.metric)
        except NasError as error:
            one, why = None, str(error)
        document: dict[str, Any] = {"metric": objective.metric, "direction": objective.direction}
        if one is None:
            found.append({**document, "rows": 0, "quality": None, "weak": why, "choices": []})
            continue
        choices = [
            {
                "label": choice.label,
                "importance": choice.importance,
                "std": choice.std,
                "effects": [list(effect) for effect in choice.effects],
            }
            for choice in one.choices
        ]
        found.append(
            {
                **document,
                "rows": one.rows,
                "quality": one.quality,
                "weak": one.weak,
                "choices": choices,
            }
        )
    return found


def axes(
    history: History, space: SearchSpace, importances: Sequence[Mapping[str, Any]]
) -> tuple[list[int], int]:
    """The choices that parallel coordinates show, in the space's order, and how many varied.

    Of many, those most important for any objective whose importances are known; where none is,
    the first.
    """
    picked: list[set[Any]] = [set() for _ in space.choices]
    for trial in history.trials:
        picks = trial.arch.as_dict()
        for place, choice in enumerate(space.choices):
            picked[place].add(picks.get(choice.label))
    varied = [place for place, options in enumerate(picked) if len(options) > 1]
    if len(varied) <= MOST_AXES:
        return varied, len(varied)
    worth: dict[str, float] = {}
    for one in importances:
        for choice in one["choices"]:
            label = choice["label"]
            worth[label] = max(worth.get(label, 0.0), float(choice["importance"]))
    ordered = sorted(varied, key=lambda place: -worth.get(space.choices[place].label, 0.0))
    return sorted(ordered[:MOST_AXES]), len(varied)


def importance_body(documents: Sequence[Mapping[str, Any]]) -> str:
    """The section's HTML: bars that need no script."""
    return "<div class=columns>" + "".join(_of_metric(one) for one in documents) + "</div>"


def _of_metric(document: Mapping[str, Any]) -> str:
    head = f"<div><h3>{text(document['metric'])}</h3>"
    if document["weak"]:
        return head + note(f"Not drawn: {document['weak']}.") + "</div>"
    quality = document["quality"]
    trust = "well" if quality >= 0.7 else "roughly" if quality >= 0.4 else "poorly"
    body = (
        f"<p class=small>A forest fitted to {document['rows']} architectures explains "
        f"<b>{quality:.0%}</b> of the variance of those it has not seen: {trust}.</p>"
    )
    shown = document["choices"][:MOST_BARS]
    most = max((choice["importance"] for choice in shown), default=0.0) or 1.0
    rows = []
    for choice in shown:
        worth = max(0.0, choice["importance"])
        rows.append(
            f"<li><span class=name>{text(choice['label'])}</span>"
            f"<span class=n>{worth:.2f} ± {choice['std']:.2f}</span>"
            f'<i class=bar><i style="width:{100 * worth / most:.1f}%"></i></i>'
            f"<span class=small>{_effects(choice['effects'], document['direction'])}</span></li>"
        )
    more = len(document["choices"]) - len(shown)
    left = f"<p class=small>{more} less important choices not listed.</p>" if more > 0 else ""
    return head + body + f"<ol class=bars>{''.join(rows)}</ol>{left}</div>"


def _effects(effects: Sequence[Sequence[Any]], direction: str) -> str:
    """The best and the worst option, with what is expected of each."""
    if len(effects) < 2:
        return ""
    ordered = sorted(effects, key=lambda effect: effect[1], reverse=direction == "maximize")
    best, worst = ordered[0], ordered[-1]
    return f"best {text(best[0])} ({short(best[1])}), worst {text(worst[0])} ({short(worst[1])})"
