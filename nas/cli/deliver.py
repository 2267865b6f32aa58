"""The commands that deliver a network: export, retrain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.common import (
    Json,
    OutFolder,
    RunFolder,
    app,
    beside,
    err_console,
    known,
    open_history,
    out_console,
    print_json,
    read_architecture,
)
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.data import Data
    from nas.export.quantize import Int8
    from nas.history import History

Best = Annotated[str | None, typer.Option(metavar="METRIC", help="The best trial in this metric.")]
Number = Annotated[int | None, typer.Option("--trial", help="The trial of this number instead.")]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="source|onnx|pt2",
        help="What to write: plain PyTorch (the default), ONNX, torch.export; may be repeated.",
    ),
]
WithInt8 = Annotated[
    bool, typer.Option("--int8", help="ONNX in 8 bits too, with the accuracy before and after.")
]
Calibration = Annotated[
    int, typer.Option(min=1, metavar="N", help="Training images that --int8 takes ranges from.")
]


@app.command()
def export(
    folder: RunFolder,
    best: Best = None,
    trial: Number = None,
    formats: Formats = None,
    int8: WithInt8 = False,
    calibration: Calibration = 256,
    out: OutFolder = None,
    as_json: Json = False,
) -> None:
    """Write a trial's network with the weights it was trained to: as PyTorch code, ONNX, …"""
    from nas import delivery, report

    history = open_history(folder)
    space, objectives = known(history)
    chosen = report.choose(history, objectives, best, trial)
    target = out or beside(folder, "export")
    document = delivery.export_trial(
        history,
        chosen,
        space,
        target,
        formats=formats or ["source"],
        int8=_int8(_data(history), calibration) if int8 else None,
    )
    facts = {"trial": chosen.number, "values": dict(chosen.values)}
    facts |= {"files": document} if document else {}
    _say_exported(target, facts, formats or ["source"], as_json)


@app.command()
def retrain(
    folder: RunFolder,
    best: Best = None,
    trial: Number = None,
    arch: Annotated[
        str | None,
        typer.Option(metavar="STRING|FILE", help="This architecture of the run's space instead."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training data.")] = 40,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="A published recipe: darts, mobilenet, …")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An exported network to learn from.")
    ] = None,
    formats: Formats = None,
    int8: WithInt8 = False,
    calibration: Calibration = 256,
    out: OutFolder = None,
    as_json: Json = False,
) -> None:
    """Train an architecture of a run fully, test it, and export it."""
    from nas import delivery, report
    from nas.space import parse
    from nas.training import Recipe

    if arch is not None and (best is not None or trial is not None):
        raise ConfigError("give --arch, or --best, or --trial: they name different architectures")
    history = open_history(folder)
    space, objectives = known(history)
    if arch is not None:
        chosen = parse(space, read_architecture(arch)[0])
    else:
        chosen = report.choose(history, objectives, best, trial).arch
    data = _data(history)
    trained_by = None if recipe is None else Recipe.named(recipe)
    with err_console.status("training") as status:
        written, facts = delivery.retrain_and_export(
            space,
            chosen,
            data,
            out or beside(folder, "retrained"),
            epochs=epochs,
            seed=seed,
            on_epoch=lambda done, loss: status.update(
                f"training: epoch {done} of {epochs}, loss {loss:.4f}"
            ),
            formats=formats or ["source"],
            int8=_int8(data, calibration) if int8 else None,
            recipe=trained_by,
            teacher=teacher,
        )
    _say_exported(written, facts, formats or ["source"], as_json)


def _data(history: History) -> Data:
    from nas.config import data_from_header

    data: Data = data_from_header(history.header or {})
    return data


def _int8(data: Data, images: int) -> Int8:
    from nas.export.quantize import Int8

    return Int8(data, images)


def _say_exported(
    folder: Path, facts: dict[str, Any], formats: Sequence[str], as_json: bool
) -> None:
    if as_json:
        print_json({"folder": str(folder), **facts})
        return
    from nas.delivery import lines

    for key, value in facts.items():
        if key != "files":
            out_console.print(f"{key}: {value}", markup=False)
    for line in lines(facts.get("files", {})):
        out_console.print(line, markup=False, highlight=False)
    out_console.print(f"written: {folder}")
    if "source" in formats:
        out_console.print(f"run it:  python {folder / 'model.py'}")
