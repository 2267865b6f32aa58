"""Predicted against measured latency, for the networks of a run that were measured.

What was predicted is the trials' own ``latency_ms``. What was measured is a file of networks with
their milliseconds in the run folder, as ``nas.latency.whole_files`` reads it: whoever measures
leaves one, and ``measure_front`` does it here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.errors import ConfigError
from nas.history import History, write_file
from nas.latency.whole_files import read_measurements
from nas.objective import Objective
from nas.page.markup import number, table, text
from nas.space import SearchSpace, format_architecture
from nas.trial import Trial

METRIC = "latency_ms"
FILE = "measured_latency.json"


def latency_document(history: History, space: SearchSpace) -> dict[str, Any] | None:
    """The networks of which both are known; ``None`` where there is none.

    ``rows`` have the trial's ``number``, ``predicted`` and ``measured`` milliseconds; ``mape`` and
    ``bias`` are means of (predicted - measured) / measured, without and with its sign;
    ``spearman`` is ``None`` where there are too few.

    Raises:
        DataError: the file in the run folder is damaged, or of another space.
    """
    from nas.latency.check import agreement

    path = None if history.folder is None else history.folder / FILE
    if path is None or not path.exists():
        return None
    measured: dict[Architecture, float] = {}
    for archs, values in read_measurements(path, space).values():
        for arch, value in zip(archs, values, strict=True):
            if value == value:  # NaN: not measured
                measured[space.canonical(arch)] = float(value)
    rows: dict[Architecture, dict[str, Any]] = {}
    for trial in history.trials:
        predicted = trial.values.get(METRIC)
        arch = space.canonical(trial.arch)
        if predicted is not None and arch in measured:
            rows.setdefault(
                arch, {"number": trial.number, "predicted": predicted, "measured": measured[arch]}
            )
    if not rows:
        return None
    found = agreement(
        [row["predicted"] for row in rows.values()], [row["measured"] for row in rows.values()]
    )
    return {
        "rows": list(rows.values()),
        "mape": found.mape,
        "bias": found.bias,
        "spearman": found.spearman if len(rows) > 2 else None,
    }


def latency_body(document: Mapping[str, Any]) -> str:
    """The section's HTML; the picture is drawn into it where there is more than one network."""
    rho = document["spearman"]
    said = f"Off by {document['mape']:.1%} on the mean, {document['bias']:+.1%} with the sign"
    said += "" if rho is None else f"; rank correlation {rho:.2f}"
    rows = [
        [
            f'<a class=open href="#network-{row["number"]}" data-trial={row["number"]}>'
            f"#{row['number']}</a>",
            number(row["predicted"]),
            number(row["measured"]),
            f"{row['predicted'] / row['measured'] - 1:+.1%}",
        ]
        for row in document["rows"]
    ]
    heads = ["trial", "predicted, ms", "measured, ms", "off by"]
    drawn = "<div class=plot id=latency-plot></div>" if len(rows) > 1 else ""
    return f"<p>{text(said)}.</p>{drawn}" + table(heads, rows, [1, 2, 3])


def measure_front(history: History, objectives: Sequence[Objective], space: SearchSpace) -> Path:
    """Measures the networks of the front end to end, as the run's table was, and writes the file.

    Raises:
        ConfigError: the run looked no latency up in a table, or the table is of another machine.
        DataError, UnsupportedRequest: the table cannot be read, or a network not be measured.
    """
    from nas.latency.files import read
    from nas.latency.fresh import measured
    from nas.latency.table import LatencyTable

    if history.folder is None:
        raise ConfigError("a history in memory has no folder for what is measured")
    source = _table_of((history.header or {}).get("evaluator"))
    found = None if source is None else read(source, space)
    if not isinstance(found, LatencyTable):
        raise ConfigError(
            f"{history.folder}: its evaluator looks no latency up in a table of operations, so "
            "there is nothing to compare a measurement with"
        )
    front: dict[str, Trial] = {one.arch.digest(): one for one in history.front(objectives)}
    times: dict[Architecture, float] = {}
    archs = [one.arch for one in front.values()]
    for group in measured(space, archs, found.backend, found.protocol):
        if group.machine != found.machine:
            raise ConfigError(
                f"{found.file} was measured on {dict(found.machine)}, this is {group.machine}: "
                "measure where the table was"
            )
        speed = found.reference_ms / group.reference.ms
        for digest, timing in group.timings.items():
            times[front[digest].arch] = timing.ms * speed
    return write_measured(history.folder, space, times)


def write_measured(folder: Path, space: SearchSpace, times: Mapping[Architecture, float]) -> Path:
    """Writes the milliseconds of measured networks into a run's folder; returns the file."""
    rows = [
        {"architecture": format_architecture(space, arch), METRIC: ms} for arch, ms in times.items()
    ]
    write_file(folder / FILE, json.dumps(rows, indent=1).encode())
    return folder / FILE


def _table_of(description: Any) -> str | None:
    """The file of the latency evaluator, at any depth of an evaluator's description."""
    if isinstance(description, Mapping):
        if description.get("name") == "latency" and description.get("table"):
            return str(description["table"])
        description = list(description.values())
    if isinstance(description, list):
        for child in description:
            found = _table_of(child)
            if found is not None:
                return found
    return None
