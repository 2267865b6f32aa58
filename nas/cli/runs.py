"""The commands of a search: search, resume, show."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.common import (
    Json,
    OutFolder,
    RunFolder,
    Settings,
    app,
    err_console,
    known,
    open_history,
    out_console,
    print_json,
)
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.config import Run
    from nas.history import History


@app.command()
def search(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml")],
    settings: Settings = None,
    out: OutFolder = None,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="serial or ray, over the configuration's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search as a configuration file says, into a run folder."""
    from nas import config as configuration
    from nas.history import History

    document = configuration.read(config)
    changes = list(settings or []) + ([f"executor={executor}"] if executor else [])
    run = configuration.build(configuration.change(document, changes))
    folder = out or Path("runs") / config.stem
    history = History(folder)
    if history.header is not None:
        raise ConfigError(
            f"{folder} holds a run already: continue it with 'nas resume {folder}', or choose "
            "another folder with --out"
        )
    _search(run, history, as_json)


@app.command()
def resume(
    folder: RunFolder,
    settings: Settings = None,
    executor: Annotated[str | None, typer.Option(metavar="NAME", help="serial or ray.")] = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed (--set budget.… or executor.… may change)."""
    from nas import config as configuration

    history = open_history(folder)
    header = history.header or {}
    open_keys = {key: header[key] for key in ("budget", "executor")}
    changes = list(settings or []) + ([f"executor={executor}"] if executor else [])
    for change in changes:
        if change.split("=")[0].split(".")[0] not in open_keys:
            raise ConfigError(
                f"--set {change}: a run is continued with the settings it was started with; only "
                "budget and executor may change"
            )
    changed = configuration.change(open_keys, changes)
    run = configuration.from_header(header, changed["executor"], changed["budget"])
    _search(run, history, as_json)


@app.command()
def show(folder: RunFolder, as_json: Json = False) -> None:
    """The Pareto front of a run, the best, and the failures with their causes."""
    from nas import report

    history = open_history(folder)
    space, objectives = known(history)
    if as_json:
        print_json(report.run_document(history, space, objectives))
    else:
        report.print_run(out_console, history, space, objectives)


def _search(run: Run, history: History, as_json: bool) -> None:
    from nas import report
    from nas.progress import watch

    objectives = run.strategy.objectives
    # A cluster ends a job with SIGTERM: treated as Ctrl-C, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    watched = watch(run.strategy, run.evaluator, run.executor, run.budget, history, err_console)
    try:
        with contextlib.closing(watched) as trials:
            for _ in trials:
                pass
    except KeyboardInterrupt:
        err_console.print(
            f"interrupted; {len(history.trials)} trials are in {history.folder}. "
            f"Go on with: nas resume {history.folder}"
        )
        raise typer.Exit(130) from None
    folder = history.folder or Path()
    if as_json:
        print_json(report.run_document(history, run.space, objectives))
        return
    report.print_run(out_console, history, run.space, objectives)
    first = objectives[0].metric
    out_console.print(f"picture: {folder / 'front.png'}")
    if any(first in trial.values for trial in history.trials):
        out_console.print(f"next:    nas retrain {folder} --best {first}")
