"""The page of one run as HTML: its head and its sections."""

from __future__ import annotations

from typing import Any

from nas.page import commands, failures, latency, networks, origin
from nas.page.choices import importance_body
from nas.page.markup import (
    Section,
    amount,
    command,
    duration,
    note,
    number,
    page,
    table,
    text,
)

_DRAWN = (
    "format",
    "kind",
    "folder",
    "objectives",
    "metrics",
    "choices",
    "axes",
    "trials",
    "front",
    "progress",
    "latency",
    "ways",
)
"""What the scripts read; the rest is HTML already."""


def page_of(document: dict[str, Any]) -> str:
    """The file, of what ``nas.page.run_document`` gives."""
    return page(
        document["name"],
        "Search",
        _head(document),
        _sections(document),
        {key: document[key] for key in _DRAWN},
    )


def _head(document: dict[str, Any]) -> str:
    counts = document["counts"]
    parts = document["origin"]["parts"]
    who = str(parts.get("strategy", "?")).partition(" (")[0]
    data = str(parts.get("data", ""))
    data = "" if data.endswith(origin.FROM_SCRIPT) else data.partition(" (")[0]
    said = f"{who} searched {document['space']}" + (f" on {data}" if data else "")
    aims = ", ".join(one["text"] for one in document["objectives"])
    tiles = [
        (metric, number(value), f"best, trial {which}")
        for metric, (which, value) in counts["best"].items()
    ][:3]
    lost = counts["infeasible"] + counts["failed"]
    tiles.append(
        ("trials", f"{counts['trials']:,}", f"{lost:,} without a value" if lost else "all measured")
    )
    epochs = f"{counts['epochs']:,.0f} epochs of training" if counts["epochs"] else "of all workers"
    tiles.append(("work", duration(counts["seconds"]), epochs))
    tiles.append(
        ("front", f"{counts['front']:,}", "networks" if counts["front"] != 1 else "network")
    )
    shown = "".join(
        f"<li><span>{text(name)}</span><b>{text(value)}</b><small>{text(below)}</small></li>"
        for name, value, below in tiles
    )
    when = f"Journal last written {document['written']}."
    return f"<p class=lead>{text(said)}: {text(aims)}. {text(when)}</p><ul class=tiles>{shown}</ul>"


def _sections(document: dict[str, Any]) -> list[Section]:
    drawn, of = len(document["trials"]["number"]), document["trials"]["of"]
    thin = (
        f" {drawn:,} of {of:,} trials are drawn: the front, every best so far, and others evenly "
        "spread."
        if drawn < of
        else ""
    )
    sections = [
        Section(
            "front",
            "Pareto front" if len(document["objectives"]) > 1 else "Trials",
            "Point at a trial to see its architecture; click to open it." + thin,
            "<div class=controls id=front-controls></div><div class=plot id=front-plot></div>"
            + _front_table(document),
        ),
        Section(
            "progress",
            "Progress",
            "Over finished trials, and over the seconds of work of all workers.",
            "<div class=controls id=progress-controls></div>"
            "<div class=columns><div class=plot id=progress-trials></div>"
            "<div class=plot id=progress-time></div></div>" + _progress_table(document),
        ),
    ]
    if document["axes"]:
        some = _some_choices(document)
        sections.append(
            Section(
                "choices",
                "Choices",
                "Each line is a trial. Drag along an axis, or click an option, to keep some; "
                "the front above follows." + some,
                "<div class=controls id=choices-controls></div>"
                "<div class=plot id=choices-plot></div><div id=choices-best></div>",
            )
        )
    if document["importance"]:
        sections.append(
            Section(
                "importance",
                "Importance of choices",
                "How much of the variance of unseen architectures a random forest no longer "
                "explains when a choice is shuffled. A search looks where it found good networks, "
                "so what it settled early varies little and counts little here.",
                importance_body(document["importance"]),
            )
        )
    if document["networks"] or document["problem"]:
        sections.append(_networks(document))
    if document["latency"]:
        sections.append(
            Section(
                "latency",
                "Latency, predicted and measured",
                "Predicted during the search, measured end to end.",
                latency.latency_body(document["latency"]),
            )
        )
    return [
        *sections,
        Section("failures", "Outcomes", "", failures.failures_body(document["failures"])),
        Section("origin", "What was run", "", origin.origin_body(document["origin"])),
        Section("commands", "Commands", "", _commands(document)),
    ]


def _some_choices(document: dict[str, Any]) -> str:
    """Which choices are drawn, where not all are, and what a dash means."""
    shown, varied = len(document["axes"]), document["varied"]
    told = ""
    if shown < varied:
        known = [one["metric"] for one in document["importance"] if one["choices"]]
        told = f" Of {varied} choices, the first {shown}."
        if known:
            told = f" Of {varied} choices, the {shown} that matter most for {' or '.join(known)}."
    if any(picks[place] < 0 for picks in document["trials"]["picks"] for place in document["axes"]):
        told += " A dash: not active."
    return told


def _front_table(document: dict[str, Any]) -> str:
    shown = {network["number"]: network for network in document["networks"]}
    if not shown:
        return "" if document["front"] else note("No trial was measured within the limits.")
    heads = ["trial", *document["metrics"], "architecture"]
    rows = [
        [
            f'<a class=open href="#network-{n}" data-trial={n}>#{n}</a>',
            *(number(network["values"].get(metric)) for metric in document["metrics"]),
            f"<code>{text(network['arch'])}</code>",
        ]
        for n, network in shown.items()
    ]
    more = len(document["front"]) - len(rows)
    left = note(f"{amount(more, 'other network')} of the front not listed.") if more > 0 else ""
    return table(heads, rows, range(1, len(heads) - 1), "front") + left


def _progress_table(document: dict[str, Any]) -> str:
    rows = []
    for curve in document["progress"][: len(document["objectives"])]:
        step = next(s for s in curve["steps"] if s[3] == curve["steps"][-1][3])
        rows.append([text(curve["name"]), number(step[2]), f"{step[0]:,}", duration(step[1])])
    heads = ["objective", "best", "found after trials", "found after work"]
    return table(heads, rows, [1, 2, 3]) if rows else ""


def _networks(document: dict[str, Any]) -> Section:
    ways = commands.Ways(**document["ways"])
    metrics = [one["metric"] for one in document["objectives"]]
    body = note(f"Not drawn: {document['problem']}.") if document["problem"] else ""
    for place, network in enumerate(document["networks"]):
        values = ", ".join(f"{m} {number(network['values'].get(m))}" for m in metrics)
        inside = networks.network_body(network, document["folder"], ways, document["metrics"])
        body += (
            f"<details class=network id=network-{network['number']}{' open' if place == 0 else ''}>"
            f"<summary><b>#{network['number']}</b> {text(values)}</summary>{inside}</details>"
        )
    more = document["counts"]["front"] - len(document["networks"])
    some = f" {len(document['networks'])} of {document['counts']['front']} are shown." * (more > 0)
    return Section(
        "networks",
        "Networks of the front",
        "Best first by the first objective." + some,
        body,
    )


def _commands(document: dict[str, Any]) -> str:
    ways = commands.Ways(**document["ways"])
    best = document["counts"]["best"]
    first = next(iter(best), "")
    lines = ways.of_run(document["folder"], document["origin"]["header"], first)
    body = "<div class=commands>" + "".join(command(line, what) for line, what in lines)
    body += "</div>"
    if not ways.resumes:
        body += note(
            "It was started by a script that holds parts of it: run the script again to go on."
        )
    return body
