"""``nas latency``: what operations take, tables of it, and whether the tables hold."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.common import Json, OutFolder, Settings, app, err_console, out_console, print_json
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.latency.check import Agreement
    from nas.latency.table import LatencyTable
    from nas.space import SearchSpace

latency = typer.Typer(
    help="Measure latencies: tables by operation, and how well they tell a network's.",
    no_args_is_help=True,
)
app.add_typer(latency, name="latency")

Space = Annotated[str, typer.Argument(metavar="SPACE", help="A space's name, or module:attribute.")]
Backend = Annotated[
    str,
    typer.Option(help="torch, torch_compile, onnxruntime, onnxruntime_int8 or cuda."),
]


@latency.command()
def profile(
    space: Space,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The table; goes on where it is there.")
    ],
    backend: Backend = "onnxruntime",
    settings: Settings = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            "--arch", metavar="STRING|FILE", help="Only what this one needs; may be repeated."
        ),
    ] = None,
    clock: Annotated[
        str | None, typer.Option(help="wall (what passes), or cpu: the thread's own time.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples at once.")] = None,
    half_width: Annotated[
        float | None, typer.Option(help="Of the median's interval: a share; default 0.01.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="At most, on average for each operation; default 2.")
    ] = None,
    group: Annotated[int, typer.Option(min=1, help="Measured beside one another.")] = 64,
    as_json: Json = False,
) -> None:
    """Measure every distinct operation of a space once, at its real shapes, into a table.

    What was killed goes on when it is started again. Defaults are those of the table, where it is
    there: wall clock, one thread, one example.
    """
    from nas.latency.operations import operations
    from nas.latency.table import LatencyTable, continued, empty_table, profiled
    from nas.space import parse

    found = space_of(space, settings)
    words = shlex.join([space, *(w for one in settings or [] for w in ("--set", one))])
    before = LatencyTable.load(out) if out.exists() else None
    given = {
        "clock": clock,
        "threads": threads,
        "batch": batch,
        "half_width": half_width,
        "seconds": seconds,
    }
    protocol = _protocol(before, given)
    if before is None:
        table = empty_table(found, backend, protocol, words, str(out))
    else:
        table = dataclasses.replace(
            continued(before, found, backend, protocol), protocol=protocol, words=words
        )
    archs = None if arch is None else [parse(found, _text(one)) for one in arch]
    with err_console.status("finding the operations") as status:

        def on_progress(read: int, known: int) -> None:
            status.update(f"finding the operations: {known} in {read} architectures")

        wanted = operations(found, archs, protocol.batch, on_progress)
        lacking = sum(key not in table.entries for key in wanted)
        status.update(f"measuring {lacking} of {len(wanted)} operations with {backend}")

        def on_table(made: LatencyTable, waiting: int) -> None:
            made.save(out)
            status.update(f"{waiting} of {len(wanted)} operations are still to be measured")

        table = profiled(table, found, wanted, on_table, group)
    loose = [entry for entry in table.entries.values() if not entry.tight]
    summary: dict[str, Any] = {
        "table": str(out),
        "space": table.space,
        "backend": backend,
        "operations": len(table.entries),
        "measured_now": lacking,
        "not_tight": len(loose),
        "overhead_ms": table.overhead_ms,
        "machine": dict(table.machine),
        "protocol": dataclasses.asdict(table.protocol),
    }
    if as_json:
        print_json(summary)
        return
    values = sorted(entry.ms - table.overhead_ms for entry in table.entries.values())
    out_console.print(
        f"{len(table.entries)} operations, {lacking} of them measured now: {values[0]:.4f} to "
        f"{values[-1]:.4f} ms, and {table.overhead_ms:.4f} ms for a network",
        highlight=False,
    )
    if loose:
        worst = max(entry.half_width for entry in loose)
        out_console.print(
            f"{len(loose)} are not tight within {table.protocol.half_width:.1%}: up to "
            f"±{worst:.1%}; give more --seconds",
            highlight=False,
        )
    out_console.print(f"table: {out}", highlight=False)


@latency.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="TABLE.json")],
    count: Annotated[int, typer.Option("--n", min=2, help="Random networks.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the networks.")] = 0,
    seconds: Annotated[
        float | None, typer.Option(help="At most, on average for each network.")
    ] = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="Store the fitted correction in the table.")
    ] = False,
    out: OutFolder = None,
    as_json: Json = False,
) -> None:
    """Measure random networks end to end, and compare them with the table's sums.

    The measurements are kept in --out (TABLE_check by default): what was killed goes on.
    """
    import json

    from nas.components import create
    from nas.history import write_file
    from nas.latency import check as checking
    from nas.latency.table import LatencyTable, load_for

    found: SearchSpace = create("spaces", LatencyTable.load(file).description, str(file))
    table = load_for(file, found)
    if not table.reference_ms:
        raise ConfigError(f"{file} was measured on a device: only a table of this machine's is")
    if seconds is not None:
        table = dataclasses.replace(
            table, protocol=dataclasses.replace(table.protocol, seconds=seconds)
        )
    folder = out or file.with_name(f"{file.stem}_check")
    with err_console.status(f"measuring {count} networks with {table.backend}") as status:

        def on_measured(done: int, of: int) -> None:
            status.update(f"{done} of {of} networks measured")

        result = checking.check(table, found, count, seed, folder, on_measured)
    document: dict[str, Any] = {
        "table": str(file),
        "space": table.space,
        "backend": table.backend,
        "seed": seed,
        **result.document(),
    }
    write_file(folder / "check.json", json.dumps(document, indent=1).encode())
    picture = folder / "check.png"
    title = f"{table.space}, {table.backend}: {count} random networks"
    write_file(picture, checking.check_png(result, title))
    if correct:
        if result.correction is None:
            raise ConfigError(f"--correct needs 20 networks at least, got --n {count}")
        kept = LatencyTable.load(file)
        dataclasses.replace(kept, correction=result.correction).save(file)
    if as_json:
        print_json(document)
        return
    rows = {
        f"sums, all {count}": result.raw,
        "sums, held out": result.held_out_raw,
        "corrected, held out": result.held_out,
        "sums, at any speed": result.unscaled,
    }
    for name, row in rows.items():
        if row is not None:
            out_console.print(line(name, row), highlight=False)
    low, high = document["speed"]["least"], document["speed"]["greatest"]
    out_console.print(
        f"the machine's speed, when the table was measured: {low:.2f} to {high:.2f} of now's; "
        f"{document['tight']} of {count} medians are tight",
        highlight=False,
    )
    if correct:
        out_console.print(f"the correction is in {file}", highlight=False)
    out_console.print(f"written: {folder / 'check.json'}, {picture}", highlight=False)


def line(name: str, found: Agreement) -> str:
    """How predictions agree, for people."""
    rho = "none" if found.spearman is None else f"{found.spearman:.3f}"
    return (
        f"{name:<22} MAPE {found.mape:6.2%}  RMSE {found.rmse:.4f} ms  bias {found.bias:+6.2%}  "
        f"Spearman ρ {rho}  within ±10 % {found.within_10:.0%}"
    )


def space_of(name: str, settings: list[str] | None) -> SearchSpace:
    from nas.components import create
    from nas.config import change

    space: SearchSpace = create("spaces", change({"name": name}, settings or []), "space")
    return space


def _text(given: str) -> str:
    from nas.cli.common import read_architecture

    return read_architecture(given)[0]


def _protocol(before: LatencyTable | None, given: dict[str, Any]) -> Any:
    """What is given over the table's, or over the defaults."""
    from nas.latency.measure import Protocol

    asked = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(Protocol() if before is None else before.protocol, **asked)
