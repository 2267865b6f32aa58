"""``nas supernet``: shared weights are trained into a file, looked at, and scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.common import Json, Settings, app, err_console, out_console, print_json
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.execution import Executor
    from nas.predictor import FittedSurrogate
    from nas.specialize import Inherited
    from nas.specialize.scores import Row

supernet = typer.Typer(
    help="One set of weights for all networks of a space: train, look at, score.",
    no_args_is_help=True,
)
app.add_typer(supernet, name="supernet")

FILE = "supernet.safetensors"

File = Annotated[Path, typer.Argument(metavar="SUPERNET", help="Of 'nas supernet train'.")]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME",
        help="A data set, or {name: …, root: …}; what the supernet was trained on if not given.",
    ),
]
Recalibration = Annotated[
    int,
    typer.Option(
        "--recalibration", min=0, metavar="N", help="Training batches for batch-norm statistics."
    ),
]


@supernet.command()
def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="data, space, and supernet's settings.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where supernet.safetensors is written.")
    ],
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train shared weights as a configuration file says; goes on where it was killed.

    The file has three keys: data, space (its input and classes are the data's where it does not
    say), and supernet: arguments of the evaluator one_shot, as sampling, settings and seed.
    """
    from nas.supernet import files

    target = out / FILE
    evaluator = _evaluator(config, settings, target)
    _fit(evaluator)
    stored = files.read(target)
    # What is shared needs no momentum; without it the file is half the size.
    size = target.stat().st_size if set(stored.tensors) == {files.WEIGHTS} else files.share(target)
    seconds = float(stored.document["facts"]["seconds"])
    facts = {"file": str(target), "bytes": size, "seconds": seconds, **_told(stored)}
    if as_json:
        print_json(facts)
        return
    out_console.print(
        f"{facts['parameters']:,} shared parameters trained for {facts['epochs']} epochs in "
        f"{seconds:.0f} s, loss {facts['loss']:.4f}",
        highlight=False,
    )
    out_console.print(f"written: {target} ({size:,} bytes)", highlight=False)
    out_console.print(f"next:    nas supernet score {target} --rows 300", highlight=False)


@supernet.command()
def show(file: File, as_json: Json = False) -> None:
    """What a supernet's file holds: space, weights, what it was trained on and how."""
    from nas.supernet import files

    facts = {"file": str(file), "bytes": file.stat().st_size if file.is_file() else 0}
    facts |= _told(files.read(file))
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        out_console.print(f"{key:<20} {shown}", highlight=False, markup=False)


@supernet.command()
def score(
    file: File,
    rows: Annotated[int, typer.Option(min=1, help="Random sub-networks.")] = 300,
    data: DataName = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="The scores; beside SUPERNET if not given. Goes on."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Of the predictor: ridge, forest, gp_hamming, mlp, …")
    ] = "ridge",
    seed: Annotated[int, typer.Option(min=0, help="Of the sub-networks and the model.")] = 0,
    recalibration: Recalibration = 20,
    workers: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Processes that score; more than one run on Ray."),
    ] = 1,
    as_json: Json = False,
) -> None:
    """Score random sub-networks with inherited weights, and fit the accuracy predictor.

    Their MACs are spread evenly over the range, on a log scale: each is the one of eight draws
    whose tenth of the range has the fewest. They are scored on the held-out part of the training
    set, recalibrated. Every score is on disk at once; the same command goes on, or adds rows.
    Several workers read one copy of the weights and give the same scores.
    """
    from nas.specialize import Inherited, data_of
    from nas.supernet.files import load_supernet

    shared = load_supernet(file)
    inherited = Inherited(shared, data_of(shared, described(data)), recalibration)
    found, fitted, paths = scored(inherited, file, rows, out, model, seed, workers)
    agreed = fitted.validation.agreement
    accuracies = [row.accuracy for row in found]
    macs = [min(row.macs for row in found), max(row.macs for row in found)]
    facts = {
        "scores": str(paths[0]),
        "predictor": str(paths[1]),
        "rows": len(found),
        "macs": macs,
        "accuracy": [min(accuracies), max(accuracies)],
        "model": fitted.name,
        "cross_validated": agreed.to_document(),
    }
    if as_json:
        print_json(facts)
        return
    for line in summary(found, fitted):
        out_console.print(line, highlight=False)
    out_console.print(f"written: {paths[0]}, {paths[1]}", highlight=False)
    out_console.print(
        f"next:    nas specialize {file} --limit macs={_amid(macs)} --out DIR",
        highlight=False,
    )


def scored(
    inherited: Inherited,
    file: Path,
    rows: int,
    out: Path | None,
    model: str,
    seed: int,
    workers: int = 1,
) -> tuple[list[Row], FittedSurrogate, tuple[Path, Path]]:
    """Scores, shown as they come; the predictor of them, saved; and where both are."""
    from nas.predictor import save_surrogate
    from nas.predictor.models import kind_of
    from nas.specialize import fit_predictor, predictor_path
    from nas.specialize import score as score_rows
    from nas.specialize.scores import scores_path

    kind_of(model)  # refused before any work
    paths = out or scores_path(file), predictor_path(file)
    progress = progress_bar()
    with progress:
        task = progress.add_task("scoring", total=rows)

        def on_row(done: int, row: Row) -> None:
            text = f"sub-network {done} of {rows}: accuracy {row.accuracy:.4f}"
            progress.update(task, completed=done, description=text)

        executor = _executor(workers)
        try:
            found = score_rows(inherited, paths[0], rows, seed, on_row, executor)
        finally:
            if executor is not None:
                executor.close()
    with err_console.status(f"fitting {model} to {len(found)} rows"):
        fitted = fit_predictor(inherited.shared, found, model, seed)
        save_surrogate(fitted, paths[1])
    return found, fitted, paths


def _executor(workers: int) -> Executor | None:
    """Ray's, where there are several workers; else this process."""
    if workers == 1:
        return None
    from nas.execution.ray import RayExecutor

    return RayExecutor(workers)


def summary(found: list[Row], fitted: FittedSurrogate) -> list[str]:
    """Scores and their predictor, for people."""
    agreed = fitted.validation.agreement
    accuracies = [row.accuracy for row in found]
    return [
        f"{len(found)} sub-networks of {min(row.macs for row in found):,} to "
        f"{max(row.macs for row in found):,} MACs: accuracy {min(accuracies):.4f} to "
        f"{max(accuracies):.4f} with inherited weights",
        f"predictor ({fitted.name}), cross-validated: Kendall τ {agreed.kendall:.3f} "
        f"({agreed.kendall_low:.3f} … {agreed.kendall_high:.3f}), error {agreed.rmse:.4f}",
    ]


def described(data: str | None) -> Any:
    """``--data``: a name, or a mapping in YAML."""
    import yaml

    if data is None:
        return None
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ConfigError(f"--data {data}: not YAML: {error}") from error


def progress_bar() -> Any:
    """A bar with the time left, on the terminal alone."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err_console,
        disable=not err_console.is_terminal,
        transient=True,
    )


def _evaluator(config: Path, settings: list[str] | None, target: Path) -> Any:
    """The one-shot evaluator that a configuration describes, with its checkpoint in place."""
    from pydantic import BaseModel, ConfigDict

    from nas import config as configuration
    from nas.components import create

    class SupernetConfig(BaseModel):
        model_config = ConfigDict(extra="forbid")

        data: str | dict[str, Any]
        space: str | dict[str, Any]
        supernet: dict[str, Any] = {}

    document = configuration.change(configuration.read(config), settings or [])
    read = configuration.checked(SupernetConfig, document)
    for key in ("name", "space", "data", "checkpoint"):
        if key in read.supernet:
            raise ConfigError(f"supernet: {key!r} is not set here: it takes one_shot's settings")
    data = create("datasets", read.data, "data")
    given = {"input": data.input, "classes": data.classes}
    space = create("spaces", read.space, "space", given)
    return create(
        "evaluators",
        {"name": "one_shot", **read.supernet, "checkpoint": str(target)},
        "supernet",
        {"space": space, "data": data},
    )


def _fit(evaluator: Any) -> None:
    """Trains, with a bar; on Ctrl-C says how to go on."""
    total = evaluator.settings.epochs
    progress = progress_bar()
    try:
        with progress:
            task = progress.add_task("training the supernet", total=total)
            started = False

            def on_epoch(epoch: int, loss: float) -> None:
                nonlocal started
                text = f"epoch {epoch} of {total}, loss {loss:.4f}"
                if not started:  # epochs done before say nothing of the time left
                    progress.update(task, total=total - epoch + 1)
                    started = True
                progress.update(task, advance=1, description=text)
                if not err_console.is_terminal:
                    err_console.print(text, highlight=False)

            evaluator.fit(on_epoch=on_epoch)
    except KeyboardInterrupt:
        err_console.print("interrupted; the same command goes on from the last epoch")
        raise typer.Exit(130) from None


def _told(stored: Any) -> dict[str, Any]:
    """What a file says, in plain values."""
    from nas.supernet import files

    document: Mapping[str, Any] = stored.document
    facts, training = document["facts"], document["training"]
    tensors = stored.tensors[files.WEIGHTS]
    space = document["space"]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    found: dict[str, Any] = {
        "space": space["name"],
        "space_description": space["description"],
        "input": "x".join(map(str, space["input"])),
        "classes": space["classes"],
        "tensors": len(tensors),
        "parameters": sum(
            t.numel() for name, t in tensors.items() if not name.endswith(statistics)
        ),
        "kernel_transforms": document["kernel_transforms"],
        "digest": stored.digest,
    }
    if training is not None:
        found |= {
            "epochs": training["epoch"]
            if training["done"]
            else f"{training['epoch']} of {training['epochs']}: not done",
            "loss": training["curve"][-1] if training["curve"] else None,
        }
    return found | {key: value for key, value in facts.items() if key != "space"}


def _amid(macs: list[int]) -> str:
    """A limit amid the range, to two digits."""
    return f"{(macs[0] * macs[1]) ** 0.5:.2g}"
