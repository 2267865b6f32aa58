"""The page of a sweep: its table, its curves with their bands, and each of its searches."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nas.errors import DataError
from nas.page import commands, origin
from nas.page.markup import (
    Section,
    command,
    duration,
    facts,
    note,
    number,
    page,
    table,
    text,
)
from nas.page.run import OnStep
from nas.sweep.curves import Curve, panels
from nas.sweep.files import TABLE, Sweep, SweepSearch, read_sweep
from nas.sweep.results import Box, Found, box, objectives_of, results
from nas.sweep.table import HYPERVOLUME, notes, table_document

FORMAT = 1
REPORT = "report.html"
"""The page of a search, where it has been written into its run folder."""


def sweep_page(folder: str | Path, on_step: OnStep | None = None) -> str:
    """A sweep as one HTML file, as text; it may still be running.

    Args:
        folder: the sweep's; what it is called here is what the commands in the page say.
        on_step: told what is being made.

    Raises:
        DataError: the folder holds no sweep, or its files are damaged.
        JournalError: the journal of a search is damaged.
    """
    document = sweep_document(folder, on_step)
    drawn = {key: document[key] for key in ("format", "kind", "folder", "height", "panels")}
    return page(document["name"], "Sweep", _head(document), _sections(document), drawn)


def sweep_document(folder: str | Path, on_step: OnStep | None = None) -> dict[str, Any]:
    """Everything that the page of a sweep shows, as JSON values. Arguments as for ``sweep_page``.

    ``table`` is what ``table.json`` holds once the sweep has ended.
    """
    path = Path(folder)
    sweep = read_sweep(path)
    if on_step is not None:
        on_step("reading the journals")
    found = list(results(path, sweep))
    objectives = objectives_of(sweep.objectives)
    inside = box(objectives, found, _reference(path)) if len(objectives) > 1 else None
    several = len(objectives) > 1
    return {
        "format": FORMAT,
        "kind": "sweep",
        "name": sweep.name,
        "folder": str(folder),
        "axes": {axis: list(labels) for axis, labels in sweep.axes.items()},
        "objectives": [str(one) for one in objectives],
        "table": table_document(sweep, found, inside, {}),
        "height": HYPERVOLUME if several else f"best {objectives[0].metric} so far",
        "panels": _panels(sweep, found, inside),
        "searches": _searches(path, sweep, found),
        "config": dict(sweep.searches[0].config) if sweep.searches else {},
    }


def _reference(folder: Path) -> Mapping[str, float] | None:
    """The reference point that the sweep's own table was made with, where there is one."""
    path = folder / TABLE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("reference")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return found if isinstance(found, Mapping) else None


def _panels(sweep: Sweep, found: Sequence[Found], inside: Box | None) -> list[dict[str, Any]]:
    def curves(several: Sequence[Curve]) -> list[dict[str, Any]]:
        return [
            {
                "name": one.label,
                "x": _plain(one.x),
                "mean": _plain(one.mean),
                # One seed has no band: NaN is no JSON.
                "half": [] if math.isnan(float(one.half[0])) else _plain(one.half),
            }
            for one in several
        ]

    return [
        {
            "title": panel.title,
            "trials": curves(panel.over_trials),
            "seconds": curves(panel.over_seconds),
        }
        for panel in panels(sweep, found, inside)
    ]


def _plain(values: Any) -> list[float]:
    return [float(f"{float(value):.6g}") for value in values]


def _searches(folder: Path, sweep: Sweep, found: Sequence[Found]) -> list[dict[str, Any]]:
    by_folder = {one.search.folder: one for one in found}
    return [_search(folder, one, by_folder.get(one.folder)) for one in sweep.searches]


def _search(folder: Path, one: SweepSearch, ended: Found | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "folder": one.folder,
        "labels": dict(one.labels),
        "ended": ended is not None,
        "report": (folder / one.folder / REPORT).exists(),
    }
    if ended is not None:
        document["trials"] = ended.trials
        document["failed"] = ended.failed
        document["seconds"] = float(ended.seconds[-1]) if ended.trials else 0.0
        document["best"] = ended.best(objectives_of(one.config["objectives"]))
        document["front"] = len(ended.steps[-1][1]) if ended.steps else 0
    return document


# --------------------------------------------------------------------------------- the page


def _head(document: Mapping[str, Any]) -> str:
    searches = document["searches"]
    ended = [one for one in searches if one["ended"]]
    trials = sum(one["trials"] for one in ended)
    failed = sum(one["failed"] for one in ended)
    axes = " × ".join(f"{axis} ({len(labels)})" for axis, labels in document["axes"].items())
    below = "all ended" if len(ended) == len(searches) else f"of {len(searches)} ended"
    tiles = [
        ("searches", f"{len(ended):,}", below),
        ("trials", f"{trials:,}", f"{failed:,} failed" if failed else "none failed"),
        ("work", duration(sum(one["seconds"] for one in ended)), "of all workers"),
    ]
    shown = "".join(
        f"<li><span>{text(name)}</span><b>{text(value)}</b><small>{text(under)}</small></li>"
        for name, value, under in tiles
    )
    aims = ", ".join(document["objectives"])
    many = "1 search" if len(searches) == 1 else f"{len(searches):,} searches"
    return f"<p class=lead>{text(f'{many}, {axes}: {aims}.')}</p><ul class=tiles>{shown}</ul>"


def _sections(document: Mapping[str, Any]) -> list[Section]:
    sections = [Section("table", "Results", "", _results(document["table"]))]
    if any(panel["trials"] for panel in document["panels"]):
        sections.append(
            Section(
                "curves",
                "Progress",
                "Means over the seeds; bands are 95 % confidence intervals of the mean. The first "
                "twentieth may lie outside the picture. Point at a name to see its curve alone.",
                "".join(_panel(place, one) for place, one in enumerate(document["panels"])),
            )
        )
    return [
        *sections,
        Section("searches", "Searches", "", _list(document)),
        Section("origin", "What was run", "", _origin(document)),
        Section("commands", "Commands", "", _commands(document)),
    ]


def _results(document: Mapping[str, Any]) -> str:
    several = "reference" in document
    metrics = list(document["rows"][0]["best"]) if document["rows"] else []
    best = _leading(document, metrics)
    rows = []
    for place, (row, seconds) in enumerate(zip(document["rows"], document["seconds"], strict=True)):
        measured = [row["best"][metric] for metric in metrics]
        measured += [row[HYPERVOLUME]] if several else []
        shown = [_mean(one, leads=place in best[column]) for column, one in enumerate(measured)]
        ended = row["ended"]
        searches = f"{ended}" if ended == row["searches"] else f"{ended} of {row['searches']}"
        cells = [text(label) for label in row["labels"].values()]
        counts = [searches, f"{row['trials']:,}", f"{row['failed']:,}", _mean(seconds)]
        rows.append([*cells, *shown, *counts])
    heads = [*document["axes"], *(f"best {metric}" for metric in metrics)]
    heads += [HYPERVOLUME] if several else []
    heads += ["searches", "trials", "failed", "seconds a search"]
    axes = len(document["axes"])
    return table(heads, rows, range(axes, len(heads))) + "".join(
        f"<p class=small>{text(line)}</p>" for line in [*notes(document), _BOLD]
    )


_BOLD = "In bold: the best mean of a column among rows that may be compared."


def _leading(document: Mapping[str, Any], metrics: Sequence[str]) -> list[set[int]]:
    """For each column of results the rows of the best mean, among those of the same problem.

    Rows differ in strategy only, or in whatever the first axis is: accuracies on two data sets are
    no contest.
    """
    axes = list(document["axes"])
    across = "strategy" if "strategy" in axes else (axes[0] if axes else "")
    objectives = objectives_of(document["objectives"])
    columns: list[tuple[str, str, str]] = [("best", m, _direction(objectives, m)) for m in metrics]
    if "reference" in document:
        columns.append(("", HYPERVOLUME, "maximize"))
    found = []
    for group, key, direction in columns:
        leaders: dict[tuple[str, ...], tuple[float, set[int]]] = {}
        rows: dict[tuple[str, ...], int] = {}
        for place, row in enumerate(document["rows"]):
            mean = (row[group] if group else row)[key]["mean"]
            if mean is None:
                continue
            problem = tuple(label for axis, label in row["labels"].items() if axis != across)
            rows[problem] = rows.get(problem, 0) + 1
            signed = mean if direction == "maximize" else -mean
            held, places = leaders.get(problem, (-math.inf, set()))
            if signed > held:
                leaders[problem] = signed, {place}
            elif signed == held:
                places.add(place)
        # Where all are equal none leads.
        found.append(
            {
                place
                for problem, (_, places) in leaders.items()
                if len(places) < rows[problem]
                for place in places
            }
        )
    return found


def _direction(objectives: Sequence[Any], metric: str) -> str:
    return next(str(one.direction) for one in objectives if one.metric == metric)


def _mean(one: Mapping[str, Any], leads: bool = False) -> str:
    if one["mean"] is None:
        return "–"
    shown = text(_digits(one["mean"]))
    shown = f"<b>{shown}</b>" if leads else shown
    if one["std"] is None:
        return shown
    # Not what rounding leaves of equal values.
    spread = "0" if one["std"] < 1e-6 * abs(one["mean"]) else _two(one["std"])
    return f"{shown} <small>± {spread}</small>"


def _digits(value: float) -> str:
    return number(value) if abs(value) < 1e4 else f"{value:,.0f}"


def _two(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def _panel(place: int, panel: Mapping[str, Any]) -> str:
    title = f"<h3>{text(panel['title'])}</h3>" if panel["title"] else ""
    legend = "".join(
        f"<li data-panel={place} data-curve={i}><i class='key c{i % 8}'></i>{text(c['name'])}</li>"
        for i, c in enumerate(panel["trials"])
    )
    return (
        f"{title}<ul class='legend curves'>{legend}</ul><div class=columns>"
        f"<div class=plot id=panel-{place}-trials></div>"
        f"<div class=plot id=panel-{place}-seconds></div></div>"
    )


def _list(document: Mapping[str, Any]) -> str:
    searches = document["searches"]
    axes = list(document["axes"])
    metrics = next((list(one["best"]) for one in searches if one["ended"] and one["best"]), [])
    rows = []
    for one in searches:
        name = text(one["folder"].removeprefix("runs/"))
        if one["report"]:
            name = f'<a href="{text(quote(one["folder"]))}/{REPORT}">{name}</a>'
        labels = [text(one["labels"].get(axis, "")) for axis in axes]
        if not one["ended"]:
            rows.append([name, *labels, *("–" for _ in metrics), "–", "not ended", "–"])
            continue
        best = [number(one["best"].get(metric)) for metric in metrics]
        failed = f" ({one['failed']} failed)" if one["failed"] else ""
        rows.append(
            [
                name,
                *labels,
                *best,
                f"{one['front']:,}",
                f"{one['trials']:,}{failed}",
                duration(one["seconds"]),
            ]
        )
    heads = ["search", *axes, *(f"best {metric}" for metric in metrics), "front", "trials", "work"]
    body = table(heads, rows, range(1 + len(axes), len(heads)))
    if not any(one["report"] for one in searches):
        body += note("With --searches, nas report writes a page of each search, linked from here.")
    return body


def _origin(document: Mapping[str, Any]) -> str:
    config = document["config"]
    parts = [(axis, text(", ".join(labels))) for axis, labels in document["axes"].items() if labels]
    whole = json.dumps(config, indent=1, ensure_ascii=False)
    return (
        facts(parts)
        + facts((key, text(origin.brief(value))) for key, value in _told(config))
        + "<details class=part><summary>The first search's configuration, in full</summary>"
        f"<pre>{text(whole)}</pre></details>"
    )


def _told(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What is plain of a configuration; the axes are told already."""
    return [(key, config[key]) for key in ("data", "budget", "executor") if config.get(key)]


def _commands(document: Mapping[str, Any]) -> str:
    folder = document["folder"]
    first = f"{folder.rstrip('/')}/{document['searches'][0]['folder']}"
    lines = commands.of_sweep(folder, document["name"], first)
    return "<div class=commands>" + "".join(command(line, what) for line, what in lines) + "</div>"
