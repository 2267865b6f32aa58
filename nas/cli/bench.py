"""``nas bench``: tables of trained architectures are made, converted and summed up."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.common import Json, Settings, app, err_console, out_console, print_json

if TYPE_CHECKING:
    from nas.execution import Executor
    from nas.tables.making import Part

bench = typer.Typer(
    help="Tables of trained architectures: make, convert and show them.", no_args_is_help=True
)
app.add_typer(bench, name="bench")

_LINE_EVERY_S = 30.0
_TABLE, _PAGE = "table.npz", "table.md"

TableName = Annotated[
    str, typer.Argument(metavar="TABLE", help="A file, or a table that comes along (digits).")
]
Page = Annotated[
    Path | None, typer.Option("--page", metavar="FILE", help="Write the statistics there too.")
]


@bench.command()
def make(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml")],
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the work is kept; go on with the same."),
    ] = None,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="serial or ray, over the configuration's.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The table, if not DIR/table.npz.")
    ] = None,
    page: Page = None,
    as_json: Json = False,
) -> None:
    """Train every architecture of a space, several times, and write what came of it as a table.

    The configuration holds space, data, training (epochs, validation_fraction, recipe, …), runs,
    seed, latency (runs, warmup, rounds) and executor. What was killed goes on when it is started
    again.
    """
    from nas import config as configuration
    from nas.components import create
    from nas.execution.serial import Serial
    from nas.tables import statistics
    from nas.tables.configuration import parts
    from nas.tables.files import load, save
    from nas.tables.making import assemble

    document = configuration.read(config)
    changes = list(settings or []) + ([f"executor={executor}"] if executor else [])
    document = configuration.change(document, changes)
    folder = out or Path("runs") / config.stem
    trainings, timings = parts(document, folder)
    chosen = create("executors", document.get("executor", "serial"), "executor")
    # A cluster ends a job with SIGTERM: treated as Ctrl-C, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _work(trainings, chosen, "trained")
        _work(timings, Serial(), "timed")
    except KeyboardInterrupt:
        err_console.print(f"interrupted; go on with the same command, --out {folder}")
        raise typer.Exit(130) from None
    document.pop("executor", None)
    facts = {"command": f"nas bench make {config.name}", "configuration": document}
    made = assemble(folder, facts)
    target = table or folder / _TABLE
    save(made, target)
    _tell(statistics.document(load(target)), target, page or folder / _PAGE, as_json, written=True)


@bench.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="NATS-Bench's archive folder or .pickle.pbz2 (with nats_bench), or a table .npz.",
        ),
    ],
    table: Annotated[Path, typer.Argument(metavar="TABLE.npz", help="What to write.")],
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="NAME", help="Only this column; may be repeated."),
    ] = None,
    page: Page = None,
    as_json: Json = False,
) -> None:
    """Write a benchmark that others made as a compact table, without pickle and with a checksum."""
    from nas.tables import statistics
    from nas.tables.files import load, save, selected

    if source.suffix == ".npz":
        made = selected(load(source), datasets)
    else:
        from nas.tables import natsbench

        api = natsbench.opened(source)
        with err_console.status("converting") as status:
            made = natsbench.converted(
                api,
                datasets or natsbench.DATASETS,
                lambda done: status.update(f"{done} of {len(api)} architectures"),
            )
    save(made, table)
    _tell(statistics.document(load(table)), table, page, as_json, written=True)


@bench.command()
def show(table: TableName, page: Page = None, as_json: Json = False) -> None:
    """What is in a table: best, mean, seed noise, rank correlation between fidelities, fronts."""
    from nas.tables import statistics
    from nas.tables.files import find, load

    _tell(statistics.document(load(table)), find(table), page, as_json, written=False)


def _tell(
    found: dict[str, Any], table: Path, page: Path | None, as_json: bool, *, written: bool
) -> None:
    from nas.history import write_file
    from nas.tables.files import facts_of_file
    from nas.tables.page import markdown

    found = {**found, "file": facts_of_file(table)}
    text = markdown(found)
    if page is not None:
        write_file(page, text.encode())
    if as_json:
        print_json(found)
        return
    out_console.print(text, markup=False, highlight=False)
    for path in ([table] if written else []) + ([page] if page is not None else []):
        out_console.print(f"written: {path}", highlight=False)


def _work(part: Part, executor: Executor, verb: str) -> None:
    """Runs one part to its end, a bar or, where nobody watches, a line now and then."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    total, failed = len(part.strategy), 0
    with (
        contextlib.closing(part.run(executor)) as trials,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=err_console,
            disable=not err_console.is_terminal,
            transient=True,
        ) as progress,
    ):
        done = part.done()
        task = progress.add_task(f"{done} of {total} {verb}", total=total, completed=done)
        printed = time.monotonic()
        for trial in trials:
            done += 1
            failed += trial.cost.trials > 0 and not trial.values
            line = f"{done} of {total} {verb}, {failed} failed"
            progress.update(task, description=line, completed=done)
            if not err_console.is_terminal and time.monotonic() - printed > _LINE_EVERY_S:
                err_console.print(line, highlight=False)
                printed = time.monotonic()
    err_console.print(f"{done} of {total} {verb}", highlight=False)
