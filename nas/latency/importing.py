"""What a pack's runner measured on a device, as a table of latencies.

The device's speed may change while it is measured (it grows warm): each group of operations is
brought to the speed of the first by the network that was timed beside all of them. Whole networks
that went along are no entries of the table; they say how well its sums hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.components import create
from nas.errors import ConfigError, DataError
from nas.latency.check import Agreement, agreement
from nas.latency.correction import LEAST, fit
from nas.latency.measure import Protocol, Timing
from nas.latency.pack import BACKEND, Manifest, read_manifest
from nas.latency.runner import FORMAT, VERSION
from nas.latency.table import LatencyTable, at_speed
from nas.space import SearchSpace


@dataclass(frozen=True)
class Imported:
    """A table, and what was measured beside it.

    Attributes:
        table: of the device, its sums as they are.
        networks: architecture to milliseconds, at the table's speed.
        raw: how the sums of operations agree with those; ``None`` where there are none.
        held_out_raw, held_out: the same of sums, and of corrected sums, on the half of the
            networks that no correction was fitted to; ``None`` where there are too few.
    """

    table: LatencyTable
    networks: Mapping[Architecture, float]
    raw: Agreement | None
    held_out_raw: Agreement | None
    held_out: Agreement | None


def imported(results: str | Path, pack: str | Path) -> Imported:
    """Reads the results of a pack that was measured whole.

    Args:
        results: the runner's file.
        pack: the folder or zip file that was measured, or its manifest.

    Raises:
        DataError: a file is damaged; or the results are of another pack, or lack operations.
    """
    manifest = read_manifest(pack)
    document = _read(Path(results))
    if document["pack"] != manifest.id:
        raise DataError(
            f"{results} is of another pack ({document['pack']}) than {pack} ({manifest.id}): give "
            "the pack that was measured, or measure this one"
        )
    try:
        protocol = Protocol(**document["settings"])
        operations, networks, overhead = _at_one_speed(document["groups"])
        machine = dict(document["machine"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"{results} is damaged: {error!r:.200}") from error
    missing = [title for key, title in manifest.titles.items() if key not in operations]
    if missing:
        more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"{results} lacks {len(missing)} of the pack's {len(manifest.titles)} operations: "
            f"{'; '.join(missing[:3])}{more}. Go on measuring with python run.py --out {results}"
        )
    device = machine.pop("device", "") or machine.get("cpu") or "a device"
    space: SearchSpace = create("spaces", manifest.space, f"the space of {pack}")
    table = LatencyTable(
        space=space.name,
        description=manifest.space,
        backend=BACKEND,
        protocol=protocol,
        machine={"device": device, **machine},
        overhead_ms=overhead,
        reference_ms=0.0,  # nothing more can be measured for it here
        entries={key: operations[key] for key in manifest.titles},
    )
    return _checked(table, space, manifest, networks)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged, or no results of a pack: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path} is no results of a pack: its format is not {FORMAT!r}")
    if document.get("version") != VERSION:
        raise DataError(
            f"{path} is of version {document.get('version')!r}, this release reads {VERSION}: "
            "measure with the run.py of its own packs"
        )
    for name in ("pack", "settings", "machine", "groups"):
        if name not in document:
            raise DataError(f"{path} is damaged: it has no {name!r}")
    return document


def _at_one_speed(
    groups: list[dict[str, Any]],
) -> tuple[dict[str, Timing], dict[str, Timing], float]:
    """Operations, networks and a call's own cost, at the speed of the first group."""
    found: dict[str, dict[str, Timing]] = {"operations": {}, "networks": {}}
    first = _timing(groups[0]["beside"]["reference"]).ms
    overhead = _timing(groups[0]["beside"]["nothing"]).ms
    for group in groups:
        speed = first / _timing(group["beside"]["reference"]).ms
        for kind, timings in found.items():
            for key, timing in group[kind].items():
                timings[key] = at_speed(_timing(timing), speed)
    return found["operations"], found["networks"], overhead


def _timing(document: Mapping[str, Any]) -> Timing:
    timing = Timing(**{field.name: document[field.name] for field in fields(Timing)})
    for value in (timing.ms, timing.p10, timing.p90):
        if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
            raise ValueError(f"{value!r} is no latency in ms")
    return timing


def _checked(
    table: LatencyTable,
    space: SearchSpace,
    manifest: Manifest,
    networks: Mapping[str, Timing],
) -> Imported:
    measured = {
        arch: networks[key].ms for key, arch in manifest.networks.items() if key in networks
    }
    if not measured:
        return Imported(table, {}, None, None, None)
    sums = [table.sum(space, arch) for arch in measured]
    totals = [one.ms for one in sums]
    y = list(measured.values())
    raw = agreement(totals, y)
    if len(y) < 2 * LEAST:
        return Imported(table, measured, raw, None, None)
    half = len(y) // 2
    line = fit(sums[:half], y[:half])
    corrected = [line(one) for one in sums[half:]]
    return Imported(
        table, measured, raw, agreement(totals[half:], y[half:]), agreement(corrected, y[half:])
    )


def corrected(found: Imported, space: SearchSpace) -> LatencyTable:
    """The table with a correction fitted to all of its networks.

    Raises:
        ConfigError: there are too few.
    """
    if found.held_out is None:
        raise ConfigError(
            f"a correction needs {2 * LEAST} networks measured beside the operations, there are "
            f"{len(found.networks)}: nas latency pack --networks {2 * LEAST}"
        )
    sums = [found.table.sum(space, arch) for arch in found.networks]
    line = fit(sums, list(found.networks.values()))
    return replace(found.table, correction=line)
