"""What is left of a sweep when its searches are done: the table and the curves, in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.history import write_file
from nas.sweep.curves import curves_png
from nas.sweep.grid import Plan
from nas.sweep.results import box, objectives_of, results
from nas.sweep.table import table_document, write_table

CURVES = "curves.png"


def summarise(plan: Plan, folder: Path, errors: Mapping[str, str]) -> dict[str, Any]:
    """Writes ``table.json``, ``table.md`` and ``curves.png``; gives the table.

    Args:
        errors: of the searches that did not end, by folder (``run_searches``).
    """
    sweep = plan.sweep
    found = list(results(folder, sweep))
    common = box(objectives_of(sweep.objectives), found, plan.reference)
    document = table_document(sweep, found, common, errors)
    write_table(folder, document)
    write_file(folder / CURVES, curves_png(sweep, found, common))
    return document
