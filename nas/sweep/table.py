"""The table of a sweep: a row for each cell of the axes other than the seeds'.

``table.json`` keeps what the seeds decide (``rows``) apart from what the clock says (``seconds``).
Where the searches' executors are serial, the first are the same whatever interrupted the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.history import write_file
from nas.report import number
from nas.sweep.files import FORMAT, TABLE, Sweep, write_json
from nas.sweep.results import Box, Found, objectives_of

PAGE = "table.md"
HYPERVOLUME = "hypervolume"


def table_document(
    sweep: Sweep, found: Sequence[Found], box: Box | None, errors: Mapping[str, str]
) -> dict[str, Any]:
    """The table as JSON values.

    Args:
        found: what the searches that ended found.
        errors: of the searches that did not, by folder.
    """
    objectives = objectives_of(sweep.objectives)
    by_folder = {one.search.folder: one for one in found}
    rows: list[dict[str, Any]] = []
    seconds: list[dict[str, Any]] = []
    for cell, searches in sweep.cells().items():
        ended = [by_folder[one.folder] for one in searches if one.folder in by_folder]
        bests = [one.best(objectives) for one in ended]
        labels = dict(zip(sweep.cell_axes, cell, strict=True))
        row: dict[str, Any] = {
            "labels": labels,
            "searches": len(searches),
            "ended": len(ended),
            "best": {
                one.metric: spread([best[one.metric] for best in bests if best])
                for one in objectives
            },
        }
        if len(objectives) > 1 and box is not None:
            row[HYPERVOLUME] = spread(
                [box.share(one.search, one.steps[-1][1]) if one.steps else 0.0 for one in ended]
            )
        row["trials"] = sum(one.trials for one in ended)
        row["failed"] = sum(one.failed for one in ended)
        rows.append(row)
        worked = [float(one.seconds[-1]) if one.trials else 0.0 for one in ended]
        seconds.append({"labels": labels, **spread(worked)})
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": sweep.name,
        "axes": list(sweep.cell_axes),
        "objectives": [dict(one) for one in sweep.objectives],
        "rows": rows,
        "seconds": seconds,
        "unfinished": [
            {"folder": one.folder, "error": errors.get(one.folder)}
            for one in sweep.searches
            if one.folder not in by_folder
        ],
    }
    if len(objectives) > 1 and box is not None:
        document["reference"] = None if box.given is None else dict(box.given)
        document["boxes"] = [
            {
                "labels": dict(one.labels),
                "reference": dict(one.reference),
                "ideal": dict(one.ideal),
            }
            for one in box.corners
        ]
    return document


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation of a sample (over n − 1), and the values themselves."""
    count = len(values)
    mean = math.fsum(values) / count if count else None
    deviation = None
    if mean is not None and count > 1:
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return {"mean": mean, "std": deviation, "n": count, "values": list(values)}


# --------------------------------------------------------------------------- for readers


def _columns(document: Mapping[str, Any]) -> list[str]:
    objectives = objectives_of(document["objectives"])
    names = [f"best {one.metric}" for one in objectives]
    if "reference" in document:
        names.append(HYPERVOLUME)
    return [*document["axes"], *names, "searches", "trials", "failed", "seconds a search"]


def _cells(document: Mapping[str, Any]) -> list[list[str]]:
    lines: list[list[str]] = []
    for row, seconds in zip(document["rows"], document["seconds"], strict=True):
        ended, searches = row["ended"], row["searches"]
        measured = list(row["best"].values())
        if "reference" in document:
            measured.append(row[HYPERVOLUME])
        lines.append(
            [
                *row["labels"].values(),
                *(_spread(one, ended) for one in measured),
                str(ended) if ended == searches else f"{ended} of {searches}",
                f"{row['trials']:,}",
                f"{row['failed']:,}",
                _spread(seconds, ended),
            ]
        )
    return lines


def _spread(one: Mapping[str, Any], ended: int) -> str:
    """``0.912 ± 0.004``; with the number of searches behind it where that is not all."""
    if one["mean"] is None:
        return "–"
    text = _digits(one["mean"])
    if one["std"] is not None:
        # Not what rounding leaves of equal values.
        text += " ± 0" if one["std"] < 1e-6 * abs(one["mean"]) else f" ± {_two(one['std'])}"
    return text if one["n"] == ended else f"{text} ({one['n']})"


def _digits(value: float) -> str:
    return number(value) if abs(value) < 1e4 else f"{value:,.0f}"


def _two(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def notes(document: Mapping[str, Any]) -> list[str]:
    """What a reader has to know of the table."""
    lines = ["Best values within the limits: mean ± standard deviation over the seeds."]
    for one in document.get("boxes", ()):
        corners = (
            ", ".join(f"{metric} {number(value)}" for metric, value in one[corner].items())
            for corner in ("reference", "ideal")
        )
        where = "".join(f", {label}" for label in one["labels"].values())
        lines.append(
            "Hypervolume{}: the share of the box between {} (reference point) and {} that the "
            "front dominates.".format(where, *corners)
        )
    for one in document["unfinished"]:
        name = one["folder"].removeprefix("runs/")
        lines.append(f"Not finished: {name}" + (f": {one['error']}" if one["error"] else ""))
    return lines


def page(document: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    columns = _columns(document)
    axes = len(document["axes"])
    rule = ["---"] * axes + ["---:"] * (len(columns) - axes)
    rows = [columns, rule, *_cells(document)]
    objectives = ", ".join(map(str, objectives_of(document["objectives"])))
    lines = [f"# {document['name']}", "", f"Searched for: {objectives}.", ""]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    for note in notes(document):
        lines += ["", note]
    return "\n".join(lines) + "\n"


def print_table(console: Console, document: Mapping[str, Any]) -> None:
    """The table on a console."""
    objectives = ", ".join(map(str, objectives_of(document["objectives"])))
    table = Table(title=f"{document['name']}: {objectives}", title_style="")
    for position, column in enumerate(_columns(document)):
        table.add_column(column, justify="left" if position < len(document["axes"]) else "right")
    for row in _cells(document):
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    for note in notes(document):
        console.print(note, markup=False, highlight=False)


def write_table(folder: Path, document: Mapping[str, Any]) -> None:
    """``table.json`` and ``table.md`` of a sweep's folder."""
    write_json(folder / TABLE, document)
    write_file(folder / PAGE, page(document).encode())
