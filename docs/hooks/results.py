"""The list of the results pages, each with the commands that give it: read from the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parents[1] / "results"
COMMAND = re.compile(r"^[ \t]*(?:- command: )?(?:OMP_\w+=\w+ )*((?:python experiments/|nas \w).*)$")
INTRO = """# Results

Every number of this project stands on one of these pages, written by the command beside it: run it
again, and you have yours. Results that are poor are there too, with what we know of why. Two cores
and no GPU, unless a page says otherwise. How to search NAS-Bench-201's table one's own way says
[black-box strategies](../strategies.md#on-a-table-instead-of-training).

| page | command |
|---|---|
"""


def commands(text: str) -> list[str]:
    """The commands that a page shows, continued lines joined."""
    joined = text.replace("\\\n", " ")
    found = [match.group(1) for line in joined.splitlines() if (match := COMMAND.match(line))]
    return [" ".join(one.split()) for one in found]


def index_page() -> str:
    rows = []
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text()
        title = text.splitlines()[0].lstrip("# ")
        shown = "<br>".join(f"`{one}`" for one in commands(text)).replace("|", "\\|")
        rows.append(f"| [{title}]({path.name}) | {shown} |")
    return INTRO + "\n".join(rows) + "\n"


def pages() -> dict[str, str]:
    """The page, by its path in the documentation."""
    return {"results/index.md": index_page()}


def navigation() -> list[Any]:
    """The results in the site's navigation, the list first."""
    return ["results/index.md", *(f"results/{path.name}" for path in sorted(PAGES.glob("*.md")))]
