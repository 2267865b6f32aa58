"""A table's statistics for people, as Markdown: what ``nas bench show`` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def markdown(document: Mapping[str, Any]) -> str:
    """The statistics (``nas.tables.statistics.document``) as a Markdown page."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    space = json.dumps(document["space"]) if document["space"] else "not known"
    name = document["space"].get("name", document["table"])
    yield f"# {name}: {document['architectures']:,} trained architectures"
    yield ""
    yield f"{document['choices']} choices; data sets: {', '.join(document['datasets'])}."
    yield ""
    yield f"Space: `{space}`"
    yield ""
    yield (
        f"Runs: {len(document['seeds'])}, seeds {', '.join(map(str, document['seeds']))}."
        if document["seeds"]
        else "Values are means over runs."
    )
    for name, facts in document["datasets"].items():
        yield from ("", f"## {name}", "")
        yield from _dataset(facts)
    if document["devices"]:
        yield from ("", "## Latency, ms", "")
        yield from _grid(
            ("device", "architectures", "lowest", "median", "mean", "highest"),
            [[device, *_cells(spread, "")] for device, spread in document["devices"].items()],
        )
    if document["made"] or document.get("file"):
        yield from ("", "## How it was made", "")
        for key, value in document.get("file", {}).items():
            yield f"- {key}: {value}"
        for key, value in document["made"].items():
            shown = value if isinstance(value, str | int) else f"`{json.dumps(value)}`"
            yield f"- {key}: {shown}"


def _dataset(facts: Mapping[str, Any]) -> Iterator[str]:
    quantities = {n: q for n, q in facts["quantities"].items() if q["known"]}
    yield "After the last epoch, means over runs:"
    yield ""
    rows = [
        [name, str(q["epochs"][-1]), *_cells(q, q["unit"]), str(q["failed_trainings"])]
        for name, q in quantities.items()
    ]
    for name, spread in facts["counts"].items():
        rows.append([name, "", *_cells(spread, "count"), ""])
    rows.append(["seconds an epoch", "", *_cells(facts["seconds_per_epoch"], "s"), ""])
    head = ("", "epochs", "architectures", "lowest", "median", "mean", "highest", "failed")
    yield from _grid(head, rows)
    if "training_hours" in facts:
        yield from ("", f"All trainings took {facts['training_hours']:.2f} hours of computing.")
    for name in ("validation_accuracy", "test_accuracy"):
        if name in quantities:
            best = quantities[name]["best"]
            picks = " ".join(f"{label}={option}" for label, option in best["picks"].items())
            value = _number(best["value"], "fraction")
            yield from ("", f"Best {name}: {value} (row {best['row']}: `{picks}`)")
    if facts["agreement"]:
        found = facts["agreement"]
        yield ""
        yield (
            f"Validation ranks the test with Kendall τ {_tau(found['kendall_tau'])}, Spearman ρ "
            f"{_tau(found['spearman_rho'])}; what is best in validation reaches "
            f"{_number(found['test_of_best_validation'], 'fraction')} in the test, where the best "
            f"has {_number(found['best_test'], 'fraction')}."
        )
    noisy = {n: q["seed_noise"] for n, q in quantities.items() if "seed_noise" in q}
    if noisy:
        yield from ("", "Seed noise (standard deviation between runs; agreement of two runs):", "")
        yield from _grid(
            ("", "mean", "median", "Kendall τ", "Spearman ρ"),
            [
                [
                    name,
                    _number(noise["mean_std"], quantities[name]["unit"]),
                    _number(noise["median_std"], quantities[name]["unit"]),
                    _tau(noise["kendall_tau"]),
                    _tau(noise["spearman_rho"]),
                ]
                for name, noise in noisy.items()
            ],
        )
    curves = {n: q["with_last"] for n, q in quantities.items() if "with_last" in q}
    if curves:
        epochs = list(dict.fromkeys(e for curve in curves.values() for e in curve))
        yield from ("", "Rank correlation with the last epoch, Kendall τ (Spearman ρ):", "")
        yield from _grid(
            ("after epochs", *epochs),
            [
                [name, *(_both(curve.get(epoch)) for epoch in epochs)]
                for name, curve in curves.items()
            ],
        )
    yield from ("", "Pareto fronts, number of architectures:", "")
    yield from _grid(
        ("minimised", "size"), [[name, str(size)] for name, size in facts["fronts"].items()]
    )


def _cells(spread: Mapping[str, Any], unit: str) -> list[str]:
    keys = ("lowest", "median", "mean", "highest")
    return [str(spread["known"]), *(_number(spread.get(key), unit) for key in keys)]


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "fraction":
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if unit == "count" else f"{value:.4g}"


def _tau(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _both(found: Mapping[str, float | None] | None) -> str:
    if found is None:
        return ""
    return f"{_tau(found['kendall_tau'])} ({_tau(found['spearman_rho'])})"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table whose columns are aligned, so that it reads well as it is."""
    table = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    for number, row in enumerate(table):
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            rules = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
            yield f"| {' | '.join(rules)} |"
