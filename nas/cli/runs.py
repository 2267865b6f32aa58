"""The commands of a search: search, resume, show."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

Executor = Annotated[
    str | None, typer.Option(metavar="NAME", help="serial or ray, over what is written down.")
]
Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="A Ray cluster; auto: the one this machine is part of."),
]
Board = Annotated[
    bool, typer.Option("--tensorboard", help="Write events for TensorBoard into the run folder.")
]


@app.command()
def search(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml")],
    settings: Settings = None,
    out: OutFolder = None,
    executor: Executor = None,
    address: Address = None,
    tensorboard: Board = False,
    as_json: Json = False,
) -> None:
    """Search as a configuration file says, into a run folder."""
    from nas import config as configuration
    from nas.history import History

    document = configuration.read(config)
    run = configuration.build(_changed(document, settings, executor, address))
    folder = out or Path("runs") / config.stem
    history = History(folder)
    if history.header is not None:
        raise ConfigError(
            f"{history.place} holds a run already: continue it with 'nas resume {history.place}', "
            "or choose another folder with --out"
        )
    _search(run, history, tensorboard, as_json)


@app.command()
def resume(
    folder: RunFolder,
    settings: Settings = None,
    executor: Executor = None,
    address: Address = None,
    tensorboard: Board = False,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed (--set budget.… or executor.… may change)."""
    from nas import config as configuration

    history = open_history(folder)
    header = history.header or {}
    open_keys = {key: header[key] for key in ("budget", "executor")}
    for change in settings or []:
        if change.split("=")[0].split(".")[0] not in open_keys:
            raise ConfigError(
                f"--set {change}: a run is continued with the settings it was started with; only "
                "budget and executor may change"
            )
    changed = _changed(open_keys, settings, executor, address)
    run = configuration.from_header(header, changed["executor"], changed["budget"])
    _search(run, history, tensorboard, as_json)


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


def _changed(
    document: dict[str, Any], settings: list[str] | None, executor: str | None, address: str | None
) -> dict[str, Any]:
    """The document with what the options change; an executor that stays keeps its arguments."""
    from nas import config as configuration

    changes = list(settings or [])
    if executor and executor != _executor_of(document):
        changes.insert(0, f"executor={executor}")
    changed = configuration.change(document, changes)
    if address is None:
        return changed
    if (name := _executor_of(changed)) == "serial":
        raise ConfigError(
            f"--address {address} is of a Ray cluster, and the executor of this search is "
            f"{name!r}: add --executor ray"
        )
    return configuration.change(changed, [f"executor.address={json.dumps(address)}"])


def _executor_of(document: dict[str, Any]) -> Any:
    described = document.get("executor", "serial")
    return described.get("name") if isinstance(described, dict) else described


def _search(run: Run, history: History, tensorboard: bool, as_json: bool) -> None:
    from nas import report
    from nas.progress import watch

    objectives = run.strategy.objectives
    board = None
    if tensorboard:
        from nas.tensorboard import TensorBoard

        board = TensorBoard(history, objectives)
    # A cluster ends a job with SIGTERM: treated as Ctrl-C, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    watched = watch(run.strategy, run.evaluator, run.executor, run.budget, history, err_console)
    try:
        with contextlib.closing(watched) as trials, board or contextlib.nullcontext():
            for trial in trials:
                if board is not None:
                    board.add(trial)
    except KeyboardInterrupt:
        err_console.print(
            f"interrupted; {len(history.trials)} trials are in {history.place}. "
            f"Go on with: nas resume {history.place}"
        )
        raise typer.Exit(130) from None
    if as_json:
        print_json(report.run_document(history, run.space, objectives))
        return
    report.print_run(out_console, history, run.space, objectives)
    first = objectives[0].metric
    out_console.print(f"picture: {history.place}/front.png")
    if board is not None:
        out_console.print(f"events:  tensorboard --logdir {history.folder}")
    if any(first in trial.values for trial in history.trials):
        out_console.print(f"next:    nas retrain {history.place} --best {first}")
