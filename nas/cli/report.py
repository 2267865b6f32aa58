"""``nas report``: a run, or a sweep, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.common import (
    Json,
    app,
    beside,
    err_console,
    here,
    known,
    open_history,
    out_console,
    print_json,
)
from nas.errors import ConfigError


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN|SWEEP", help="A run's folder, a sweep's.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="FOLDER/report.html if none.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure the front's latency first, beside the table's."),
    ] = False,
    searches: Annotated[
        bool, typer.Option("--searches", help="Of a sweep, write the page of each search too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a page of a run or a sweep: one file, which opens from disk."""
    from nas.history import write_file
    from nas.page import run_page, sweep_page
    from nas.page.sweep import REPORT
    from nas.sweep.files import is_done, is_sweep, read_sweep

    target = out or beside(folder, REPORT)
    folder = here(folder)
    if target.suffix != ".html":
        raise ConfigError(f"--out {target}: a report is an .html file")
    written: list[Path] = []
    with err_console.status("reading") as status:

        def write(path: Path, page: str) -> None:
            # What no encoding has (half of a file's name in a message) is a question mark.
            write_file(path, page.encode("utf-8", "replace"))
            written.append(path)

        if is_sweep(folder):
            if measure:
                raise ConfigError("--measure is of one run: give the folder of a search")
            for one in read_sweep(folder).searches if searches else ():
                run = folder / one.folder
                if is_done(run, one.config):
                    status.update(one.name)
                    write(run / REPORT, run_page(run))
            write(target, sweep_page(folder, status.update))
        else:
            if measure:
                from nas.page.latency import measure_front

                status.update("measuring the front's networks")
                history = open_history(folder)
                space, objectives = known(history)
                measure_front(history, objectives, space)
            write(target, run_page(folder, status.update))
    size = target.stat().st_size
    if as_json:
        print_json({"page": str(target), "bytes": size, "pages": [str(path) for path in written]})
        return
    out_console.print(f"page: {target} ({size / 1000:,.0f} kB)", markup=False, highlight=False)
    if len(written) > 1:
        out_console.print(f"and a page in each of {len(written) - 1} searches")
