"""The networks of the front, each with its drawing, its values, its choices and its costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.cost import LayerCost, architecture_breakdown
from nas.delivery import WEIGHTS
from nas.history import ARTIFACTS, History
from nas.objective import Objective
from nas.page import commands, drawing
from nas.page.markup import command, facts, note, number, table, text
from nas.report import layer_document
from nas.space import SearchSpace, format_architecture
from nas.trial import Trial

MOST_SHOWN = 24
"""Networks that are drawn; a front may have hundreds."""

MOST_LAYERS = 32
_LONG = 44


def shown_of(front: Sequence[Trial]) -> list[Trial]:
    """The networks to draw: both ends of the front, and others evenly spread between."""
    if len(front) <= MOST_SHOWN:
        return list(front)
    return [front[int(place)] for place in np.linspace(0, len(front) - 1, MOST_SHOWN).round()]


def networks_document(
    history: History,
    objectives: Sequence[Objective],
    space: SearchSpace,
    on_network: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """The networks of the front that are drawn, best first by the first objective.

    Each has what is known of its trial, its ``drawing`` as SVG, ``layers`` as ``nas cost --json
    --layers`` has them but for the deepest of a large network, whether its ``weights`` are kept,
    and ``problem``: why it could not be built, or an empty text.

    Args:
        on_network: told how many of how many are done.
    """
    shown = shown_of(history.front(objectives))
    found = []
    for place, trial in enumerate(shown):
        document: dict[str, Any] = {
            "number": trial.number,
            "values": dict(trial.values),
            "arch": format_architecture(space, trial.arch),
            "picks": [list(pick) for pick in trial.arch.picks],
            "seconds": trial.cost.seconds,
            "epochs": trial.cost.epochs,
            "parent": trial.proposal.parent,
            "weights": _has_weights(history.folder, trial),
            "drawing": "",
            "legend": drawing.legend(space),
            "layers": [],
            "problem": "",
        }
        try:
            layers = architecture_breakdown(space, trial.arch)
            document["layers"] = [
                {**layer_document(row), "depth": row.depth} for row in _shallow(layers)
            ]
            document["drawing"] = drawing.drawn(space, trial.arch, layers)
        # A space of anyone's may fail in any way; the run has a report all the same.
        except Exception as error:
            document["problem"] = f"its network cannot be built here: {error}"
        found.append(document)
        if on_network is not None:
            on_network(place + 1, len(shown))
    return found


def _has_weights(folder: Path | None, trial: Trial) -> bool:
    return folder is not None and (folder / ARTIFACTS / str(trial.number) / WEIGHTS).exists()


def _shallow(rows: Sequence[LayerCost]) -> list[LayerCost]:
    """Down to the greatest depth that leaves ``MOST_LAYERS`` rows; its children in any case."""
    for depth in range(max(row.depth for row in rows), 1, -1):
        kept = [row for row in rows if row.depth <= depth]
        if len(kept) <= MOST_LAYERS:
            return kept
    return [row for row in rows if row.depth <= 1]


def network_body(
    network: dict[str, Any], folder: str, ways: commands.Ways, metrics: Sequence[str]
) -> str:
    """A network as HTML: what opens when its point is clicked, and what the page lists."""
    values = [(name, network["values"].get(name)) for name in metrics]
    body = facts([(name, text(number(value))) for name, value in values if value is not None])
    body += f"<p class=arch><code>{text(network['arch'])}</code></p>"
    if network["problem"]:
        body += note(network["problem"])
    if network["drawing"]:
        caption = f"<p class=small>{text(network['legend'])}</p>" if network["legend"] else ""
        body += f"<figure class=scroll>{network['drawing']}</figure>{caption}"
    body += "<div class=commands>" + "".join(
        command(line, what)
        for line, what in ways.of_trial(folder, network["number"], network["weights"])
    )
    body += "</div>"
    if network["layers"]:
        body += _details("Cost by layer", _layers(network["layers"]), open_=True)
    rows = [[text(label), text(option)] for label, option in network["picks"]]
    return body + _details("Choices", table(["choice", "option"], rows), open_=len(rows) <= 8)


def _details(title: str, content: str, open_: bool) -> str:
    is_open = " open" if open_ else ""
    return f"<details class=part{is_open}><summary>{text(title)}</summary>{content}</details>"


def _layers(rows: Sequence[dict[str, Any]]) -> str:
    whole = rows[0]
    shown = []
    for row in rows:
        name = row["path"].rpartition(".")[2] or "network"
        kind = row["type"].removesuffix("()")
        short = kind if len(kind) <= _LONG else kind[:_LONG] + "…"
        shown.append(
            [
                f'<span style="padding-left:{row["depth"] * 0.9:.1f}em">{text(name)}</span>',
                f'<span class=small title="{text(kind)}">{text(short)}</span>',
                text("×".join(map(str, row["output"][1:])) or "–"),
                number(row["parameters"]),
                number(row["macs"]) + _bar(row["macs"], whole["macs"]),
            ]
        )
    heads = ["layer", "type", "output", "parameters", "MACs"]
    return table(heads, shown, [2, 3, 4], "layers")


def _bar(value: float, whole: float) -> str:
    share = 100 * value / whole if whole else 0.0
    return f'<i class=bar title="{share:.1f} %"><i style="width:{share:.1f}%"></i></i>'
