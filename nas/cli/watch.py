"""``nas watch``: a search or a sweep that another process runs, as it goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.common import Json, app, here, out_console, print_json
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.watching.run import WatchedRun
    from nas.watching.sweep import WatchedSweep


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(metavar="RUN|SWEEP", help="A run's or sweep's folder.")],
    once: Annotated[bool, typer.Option("--once", help="Print how it stands, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between looks.")] = 1.0,
    patience: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="How long nothing may be written where no process of the run is seen.",
        ),
    ] = 600.0,
    as_json: Json = False,
) -> None:
    """Watch a search that another process runs, on this machine or over a shared folder.

    Reads the journal on and touches nothing. It ends with the run, or at Ctrl-C: when the run's
    process on this machine has ended, when the budget is spent, or when nothing was written for
    --patience seconds. --json prints how it stands once.
    """
    from nas.watching.loop import follow

    watched = _opened(folder, patience)
    if once or as_json:
        watched.look()
        if as_json:
            print_json(watched.document())
        else:
            out_console.print(watched.view(out_console.width, 1000))
        return
    with contextlib.suppress(KeyboardInterrupt):
        why = follow(watched, out_console, every)
        out_console.print(f"ended: {why}", markup=False, highlight=False)


def _opened(folder: Path, patience: float) -> WatchedRun | WatchedSweep:
    from nas.history import JOURNAL

    folder = here(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a run folder: there is no such folder")
    # Not through nas.sweep: a run is watched without loading what sweeps are made of.
    if (folder / "sweep.json").exists():
        from nas.watching.sweep import WatchedSweep

        return WatchedSweep(folder, patience)
    from nas.watching.run import WatchedRun

    others = sorted(path.name for path in folder.iterdir())
    if others and not (folder / JOURNAL).exists():
        held = ", ".join(others[:5])
        raise ConfigError(f"{folder} is not a run folder: it has no {JOURNAL}, but {held}")
    return WatchedRun(folder, patience)
