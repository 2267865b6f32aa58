"""``nas fidelity``: how well cheap trainings rank what full training ranks."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.common import (
    Json,
    OutFolder,
    Settings,
    app,
    err_console,
    open_history,
    out_console,
    print_json,
)
from nas.errors import ConfigError, nearest

if TYPE_CHECKING:
    from nas.config import Run
    from nas.fidelity_study import Comparison
    from nas.objective import Objective


@app.command()
def fidelity(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|CONFIG.yaml", help="Whose space, data and evaluator."),
    ],
    low: Annotated[
        list[str],
        typer.Option("--low", metavar="NAME=VALUE,…", help="A cheap fidelity; may be repeated."),
    ],
    full: Annotated[
        str, typer.Option("--full", metavar="NAME=VALUE,…", help="What it is to foretell.")
    ],
    count: Annotated[int, typer.Option(min=3, help="Random architectures.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each at each fidelity.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the architectures and trainings.")] = 0,
    metric: Annotated[
        str | None, typer.Option(help="What is ranked; by default the first objective's.")
    ] = None,
    settings: Settings = None,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="serial or ray, over the configuration's.")
    ] = None,
    out: OutFolder = None,
    as_json: Json = False,
) -> None:
    """Rank correlation of cheap trainings with full ones, and what they cost; goes on if killed."""
    import json

    from nas import fidelity_study as study
    from nas.budget import Budget
    from nas.history import History, write_file
    from nas.progress import watch

    run, default = _run(source, settings, executor)
    sweep = study.FidelitySweep(run.space, [_objective(run, metric)], low, full, count, seeds, seed)
    for stage in getattr(run.evaluator, "stages", (run.evaluator,)):
        if hasattr(stage, "keep_weights"):
            stage.keep_weights = False  # nobody takes these networks home
        if hasattr(stage, "early_stop"):
            stage.early_stop = None  # each training is to reach its fidelity
    folder = out or default
    history = History(folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    budget = Budget(trials=sweep.trials)
    watched = watch(sweep, run.evaluator, run.executor, budget, history, err_console)
    try:
        with contextlib.closing(watched) as trials:
            for _ in trials:
                pass
    except KeyboardInterrupt:
        err_console.print(
            f"interrupted; {len(history.trials)} of {sweep.trials} trials are in {folder}: the "
            "same command goes on"
        )
        raise typer.Exit(130) from None
    comparisons = study.compare(sweep, history.trials)
    document = study.study_document(sweep, comparisons, {})
    write_file(folder / "fidelity.json", json.dumps(document, indent=1).encode())
    write_file(folder / "fidelity.png", study.study_png(sweep, comparisons))
    if as_json:
        for row in document["fidelities"]:
            del row["pairs"]
        print_json(document)
        return
    out_console.print(
        f"{sweep.count} random architectures, {seeds} × each, {sweep.objectives[0].metric} "
        f"against {full}, intervals of {comparisons[0].agreement.confidence:.0%}"
    )
    out_console.print(_table(comparisons))
    out_console.print(f"written: {folder / 'fidelity.json'}, {folder / 'fidelity.png'}")


def _run(source: Path, settings: list[str] | None, executor: str | None) -> tuple[Run, Path]:
    """What is measured and how, and the folder where that is put."""
    from nas import config

    changes = list(settings or []) + ([f"executor={executor}"] if executor else [])
    if source.is_dir():
        header = dict(open_history(source).header or {})
        return config.from_header(config.change(header, changes)), source / "fidelity"
    document = config.change(config.read(source), changes)
    return config.build(document), Path("runs") / f"{source.stem}-fidelity"


def _objective(run: Run, metric: str | None) -> Objective:
    from nas.objective import Objective

    name = run.strategy.objectives[0].metric if metric is None else metric
    for known in run.evaluator.metrics:
        if known.name == name:
            return Objective(name, known.direction)
    names = [known.name for known in run.evaluator.metrics]
    raise ConfigError(f"--metric: the evaluator has no {name!r}: {nearest(name, names)}")


def _table(comparisons: list[Comparison]) -> object:
    from rich.table import Table

    tops = list(comparisons[0].agreement.recall)
    table = Table("fidelity", "Kendall τ", "Spearman ρ", *(f"top-{k} recall" for k in tops))
    for title in ("seconds", "epochs", "left out"):
        table.add_column(title, justify="right")
    for one in comparisons:
        recall = [str(one.agreement.recall.get(k, "")) for k in tops]
        costs = ["" if c is None else f"{c:.3f}" for c in (one.seconds, one.epochs)]
        ranks = [str(one.agreement.kendall), str(one.agreement.spearman)]
        table.add_row(one.fidelity, *ranks, *recall, *costs, str(one.left_out))
    return table
