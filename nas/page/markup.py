"""HTML: text made safe, tables, commands, and the page around the sections."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

STYLE = ("page.css", "parts.css")
SCRIPTS = (
    "core.js",
    "tooltip.js",
    "plot.js",
    "scatter.js",
    "lines.js",
    "parallel.js",
    "opened.js",
    "sweep.js",
    "main.js",
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page: what its link says, its heading, a line below that, and its content."""

    key: str
    title: str
    lead: str
    body: str


def text(value: object) -> str:
    """A value as text that stands in HTML, quotes of attributes included."""
    return html.escape(str(value), quote=True)


def embedded(document: Any) -> str:
    """JSON that stands in a script element: nothing in it can end the element.

    Raises:
        ValueError: a number is not finite.
    """
    written = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return written


def number(value: float | None) -> str:
    """A measurement for a table: whole numbers with separators, others to four digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def short(value: float) -> str:
    """A number to three digits, large ones as ``44.7M``."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if letter == 'k' else unit):.3g}{letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def amount(count: int, thing: str) -> str:
    """A count of things: ``1 trial``, ``2 trials``."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = (), kind: str = ""
) -> str:
    """A table that scrolls in its own box where it is too wide.

    Args:
        heads: plain text.
        rows: HTML.
        numbers: the columns that are aligned to the right.
    """
    right = set(numbers)

    def cell(tag: str, place: int, content: str) -> str:
        return f"<{tag}{' class=n' if place in right else ''}>{content}</{tag}>"

    head = "".join(cell("th", place, text(name)) for place, name in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell("td", place, content) for place, content in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll {text(kind)}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, the values HTML."""
    return (
        "<dl class=facts>"
        + "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
        + "</dl>"
    )


def command(line: str, what: str) -> str:
    """A command to copy, with what it does above."""
    return (
        f"<div class=command><p>{text(what)}</p><div class=line><code>{text(line)}</code>"
        "<button type=button class=copy hidden>Copy</button></div></div>"
    )


def note(message: str) -> str:
    """A remark: why something is not shown, or what to keep in mind."""
    return f"<p class=note>{text(message)}</p>"


def page(title: str, kind: str, head: str, sections: Sequence[Section], document: Any) -> str:
    """The whole file.

    Args:
        kind: above the title.
        head: HTML below the title.
        document: what the scripts draw, as JSON values.
    """
    assets = resources.files("nas.page") / "assets"

    def read(names: Sequence[str]) -> str:
        return "\n".join((assets / name).read_text(encoding="utf-8") for name in names)

    links = "".join(f'<a href="#{one.key}">{text(one.title)}</a>' for one in sections)
    body = "".join(
        f"<section id={one.key}><h2>{text(one.title)}</h2>"
        + (f"<p class=lead>{text(one.lead)}</p>" if one.lead else "")
        + f"{one.body}</section>"
        for one in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{text(title)}</title><link rel="icon" href="data:,">'
        f"<style>\n{read(STYLE)}</style></head><body>\n"
        f"<header><div class=top><p class=kind>{text(kind)}</p>"
        '<button type=button id=theme hidden aria-label="Switch between light and dark">'
        f"Dark</button></div><h1>{text(title)}</h1>{head}<nav>{links}</nav></header>\n"
        f"<main>{body}</main>\n"
        "<noscript><p class=note>Without JavaScript the tables are all there is.</p></noscript>"
        f'<script type="application/json" id=document>{embedded(document)}</script>\n'
        f'<script>(() => {{\n"use strict";\n{read(SCRIPTS)}\n}})();</script></body></html>\n'
    )
