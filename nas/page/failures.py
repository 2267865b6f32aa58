"""What went wrong in a run: the causes with how often, and which limits were broken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nas.history import History
from nas.page.markup import amount, note, table, text
from nas.page.trials import FAILED, INFEASIBLE, MEASURED, status
from nas.trial import Failed, Infeasible

MOST_CAUSES = 20
_BINS = 100
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_LONGEST = 4000


def failures_document(history: History) -> dict[str, Any]:
    """Causes of failures and reasons of infeasibility, the most frequent first.

    Messages that differ in their numbers only are one. ``over_time`` counts outcomes (measured,
    infeasible, failed) in equal parts of the run.
    """
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for trial in history.trials:
        if isinstance(trial.outcome, Failed):
            cause, message = str(trial.outcome.cause), trial.outcome.message
            traceback = trial.outcome.traceback
        elif isinstance(trial.outcome, Infeasible):
            cause, message, traceback = "infeasible", trial.outcome.reason, ""
        else:
            continue
        group = groups.setdefault(
            (cause, _NUMBER.sub("#", message)),
            {"cause": cause, "message": message, "traceback": traceback, "trials": []},
        )
        group["trials"].append(trial.number)
    ordered = sorted(groups.values(), key=lambda group: -len(group["trials"]))
    return {
        "causes": [group for group in ordered if group["cause"] != "infeasible"],
        "infeasible": [group for group in ordered if group["cause"] == "infeasible"],
        "over_time": _over_time(history),
    }


def _over_time(history: History) -> list[list[int]]:
    count = len(history.trials)
    bins = [[0, 0, 0] for _ in range(min(_BINS, count))]
    for place, trial in enumerate(history.trials):
        bins[place * len(bins) // count][status(trial)] += 1
    return bins


def failures_body(document: dict[str, Any]) -> str:
    """The section's HTML: it is all there without scripts."""
    bins = document["over_time"]
    totals = [sum(column[kind] for column in bins) for kind in (MEASURED, INFEASIBLE, FAILED)]
    body = _strip(bins, totals)
    if document["causes"]:
        body += "<h3>Failed</h3>" + _groups(document["causes"], "cause")
    if document["infeasible"]:
        body += "<h3>Broke a limit</h3>" + _groups(document["infeasible"], "")
    return body if totals[INFEASIBLE] + totals[FAILED] else body + note("No trial failed.")


def _groups(groups: Sequence[dict[str, Any]], cause: str) -> str:
    rows = []
    for group in groups[:MOST_CAUSES]:
        message = text(group["message"])
        if group["traceback"]:
            shown = group["traceback"][-_LONGEST:]
            message += (
                f"<details><summary>traceback of trial {group['trials'][0]}</summary>"
                f"<pre>{text(shown)}</pre></details>"
            )
        some = ", ".join(map(str, group["trials"][:6]))
        some += " …" if len(group["trials"]) > 6 else ""
        first = [text(group["cause"])] if cause else []
        rows.append([*first, f"{len(group['trials']):,}", message, text(some)])
    heads = [*([cause] if cause else []), "trials", "message of the first", "which"]
    more = len(groups) - MOST_CAUSES
    left = note(f"{amount(more, 'other message')} not listed.") if more > 0 else ""
    return table(heads, rows, [1 if cause else 0], "messages") + left


def _strip(bins: Sequence[Sequence[int]], totals: Sequence[int]) -> str:
    """Outcomes along the run, as bars that need no script."""
    names = ("measured", "broke a limit", "failed")
    legend = "".join(
        f"<li><i class=s{kind}></i>{totals[kind]:,} {name}</li>" for kind, name in enumerate(names)
    )
    bars = []
    for place, column in enumerate(bins):
        whole, top = sum(column), 0.0
        for kind, count in enumerate(column):
            height = 40 * count / whole
            if count:
                bars.append(
                    f'<rect class=s{kind} x={place} y="{top:.2f}" width=.92 height="{height:.2f}"/>'
                )
            top += height
    drawn = (
        f'<svg class=strip viewBox="0 0 {len(bins)} 40" preserveAspectRatio=none role=img '
        f'aria-label="outcomes from the first trial to the last">{"".join(bars)}</svg>'
    )
    return f"<ul class=legend>{legend}</ul>{drawn if bins else ''}"
