"""The command for many searches: sweep."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.common import Json, OutFolder, Settings, app, err_console, out_console, print_json


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(metavar="SWEEP.yaml")],
    settings: Settings = None,
    out: OutFolder = None,
    executor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ray, or serial: one by one in this process."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Ray cluster, such as auto.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a grid of searches, with one table at the end; the same command again goes on."""
    from nas import config as configuration
    from nas.sweep.grid import planned
    from nas.sweep.progress import Show
    from nas.sweep.running import run_searches
    from nas.sweep.summary import summarise
    from nas.sweep.table import print_table

    changes = list(settings or [])
    changes += [f"executor.name={executor}"] if executor else []
    changes += [f"executor.address={address}"] if address else []
    # A configuration may name a module that lies beside it; workers look where this process does.
    sys.path.append(str(config.absolute().parent))
    plan = planned(configuration.change(configuration.read(config), changes), config.stem)
    folder = out or Path("runs") / config.stem
    # A cluster ends a job with SIGTERM: treated as Ctrl-C, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Show(err_console) as show:
            errors = run_searches(plan, folder, show)
        document = summarise(plan, folder, errors)
    except KeyboardInterrupt:
        command = shlex.join(["nas", *sys.argv[1:]])
        err_console.print(
            f"interrupted; what is finished is in {folder}. Go on with: {command}",
            markup=False,
            highlight=False,
        )
        raise typer.Exit(130) from None
    if as_json:
        print_json(document)
    else:
        print_table(out_console, document)
        out_console.print(f"picture: {folder / 'curves.png'}")
    if errors:
        for name, error in errors.items():
            err_console.print(
                f"failed: {folder / name}: {error}", markup=False, highlight=False, soft_wrap=True
            )
        raise typer.Exit(2)
