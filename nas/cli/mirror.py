"""The command that shows a run in Optuna's dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli.common import Json, RunFolder, app, open_history, out_console, print_json


@app.command()
def mirror(
    folder: RunFolder,
    storage: Annotated[
        str, typer.Argument(metavar="STORAGE", help="A database, as in sqlite:///runs.db.")
    ],
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="The study's name; the run folder's if none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a run's trials to an Optuna storage, for optuna-dashboard and Optuna's plots."""
    from nas import optuna_mirror

    history = open_history(folder)
    name = study or folder.resolve().name
    added = optuna_mirror.mirror(history, storage, name)
    if as_json:
        print_json({"study": name, "storage": storage, "added": added})
        return
    out_console.print(f"{added} of {len(history.trials)} trials added to the study {name!r}")
    out_console.print(f"look:    optuna-dashboard {storage}")
