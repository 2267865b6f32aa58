"""``nas surrogate``: models that predict what a training would find are fitted, checked, asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.common import (
    Json,
    Settings,
    app,
    err_console,
    known,
    open_history,
    out_console,
    print_json,
    read_architecture,
)
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.predictor import FittedSurrogate, Measurements
    from nas.predictor.validation import Agreement
    from nas.space import SearchSpace

surrogate = typer.Typer(
    help="Models that predict what training would find: fit, check and ask them.",
    no_args_is_help=True,
)
app.add_typer(surrogate, name="surrogate")

Source = Annotated[
    str,
    typer.Argument(
        metavar="RUN|TABLE", help="A run's folder, a table's file, or a shipped table (digits)."
    ),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="Written by 'nas surrogate fit'.")]
Dataset = Annotated[str | None, typer.Option(metavar="NAME", help="The table's column.")]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Of trainings; the table's most if not given.")
]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="Whose latency_ms of the table.")]
Rows = Annotated[int | None, typer.Option(min=1, help="So many at random, not all.")]
Seed = Annotated[int, typer.Option(min=0, help="Of rows, folds and the model.")]


@surrogate.command()
def fit(
    source: Source,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="What to write.")],
    metric: Annotated[str, typer.Option(help="What is predicted.")] = "accuracy",
    model: Annotated[
        str,
        typer.Option(help="ridge, gp_hamming, gp_path, forest, boosting, mlp or graph."),
    ] = "forest",
    targets: Annotated[
        str, typer.Option(help="Learn the scores of ranks, or values (suits costs).")
    ] = "scores",
    dataset: Dataset = None,
    epochs: Epochs = None,
    device: Device = None,
    rows: Rows = None,
    folds: Annotated[int, typer.Option(min=2, help="Of the cross-validation.")] = 5,
    seed: Seed = 0,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Fit a model on a run or a table, cross-validate it, and write it.

    Prints Kendall τ and calibration on rows that the models had not seen.
    """
    from nas.predictor import fit_surrogate, save_surrogate

    measured = _measured(source, metric, dataset, epochs, device, None)
    measured = measured if rows is None else measured.some(rows, seed)
    with err_console.status(f"fitting {model} to {len(measured.archs)} rows") as status:
        fitted = fit_surrogate(
            measured,
            model,
            targets,  # type: ignore[arg-type]  # checked there, with the valid names
            folds,
            seed,
            _settings(settings),
            lambda done: status.update(f"{model}: {done} of {folds} folds"),
        )
    size = save_surrogate(fitted, out)
    agreed = fitted.validation.agreement
    facts = {"file": str(out), "bytes": size, **_facts(fitted)}
    if as_json:
        print_json({**facts, "cross_validated": agreed.to_document()})
        return
    for line in (_title(fitted), *lines(agreed, f"cross-validated, {folds} folds", fitted)):
        out_console.print(line, highlight=False, markup=False)
    out_console.print(f"written: {out} ({size:,} bytes)", highlight=False)


@surrogate.command()
def check(
    file: File,
    against: Annotated[
        str | None,
        typer.Option(metavar="RUN|TABLE", help="Measurements it was not fitted on, of the metric."),
    ] = None,
    dataset: Dataset = None,
    epochs: Epochs = None,
    device: Device = None,
    rows: Rows = None,
    seed: Seed = 0,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="PNG", help="Where to draw; beside FILE if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """How far a surrogate can be trusted: Kendall τ, calibration, and a picture of both.

    From the cross-validation of its fit; with --against, on measurements it has not seen.
    Architectures that it was fitted on are left out of those.
    """
    from nas.history import write_file
    from nas.predictor import load_surrogate
    from nas.predictor.picture import agreement_png

    fitted = load_surrogate(file)
    if against is None:
        said, values = fitted.validation.said, fitted.values
        agreed, title = fitted.validation.agreement, "rows, cross-validated"
    else:
        measured = _measured(against, fitted.metric.name, dataset, epochs, device, fitted.space)
        measured = fitted.unseen(measured)
        measured = measured if rows is None else measured.some(rows, seed)
        agreed, title = fitted.agreement(measured), f"other rows of {measured.source}"
        said, values = fitted.predict(measured.archs), measured.values
    target = picture or file.with_suffix(".png")
    write_file(target, agreement_png(said, values, agreed, fitted.metric.name, title))
    if as_json:
        found = {"rows": title, **agreed.to_document(), "picture": str(target)}
        print_json({**_facts(fitted), "agreement": found})
        return
    for line in (_title(fitted), *lines(agreed, title, fitted)):
        out_console.print(line, highlight=False, markup=False)
    out_console.print(f"drawn: {target}", highlight=False)


@surrogate.command()
def predict(
    file: File,
    archs: Annotated[
        list[str], typer.Argument(metavar="ARCH …", help="Architectures: texts, or JSON files.")
    ],
    as_json: Json = False,
) -> None:
    """What a surrogate expects of architectures, how sure it is, and where it extrapolates."""
    from nas.predictor import load_surrogate
    from nas.space import format_architecture, parse

    fitted = load_surrogate(file)
    read = [parse(fitted.space, read_architecture(text)[0]) for text in archs]
    judged = fitted.judge(read)
    if as_json:
        print_json(
            [
                {"architecture": format_architecture(fitted.space, arch), **asdict(one)}
                for arch, one in zip(read, judged, strict=True)
            ]
        )
        return
    for arch, one in zip(read, judged, strict=True):
        out_console.print(
            f"{format_architecture(fitted.space, arch)}: {fitted.metric.name} {one.mean:.5g} ± "
            f"{one.std:.2g} (95 %: {one.low:.5g} … {one.high:.5g})",
            highlight=False,
            markup=False,
        )
        if one.extrapolates:
            why = f"options never seen: {', '.join(one.unseen)}" if one.unseen else "too far away"
            out_console.print(
                f"  extrapolates, {why}; {one.distance} choices from the nearest fitted, which lie "
                f"at most {fitted.reach} apart",
                highlight=False,
                markup=False,
            )


def lines(agreed: Agreement, title: str, fitted: FittedSurrogate) -> list[str]:
    """An agreement, for people."""
    covered = ", ".join(
        f"{share:.0%} in {float(level):.0%}" for level, share in agreed.coverage.items()
    )
    unit = f" {fitted.metric.unit}" if fitted.metric.unit else ""
    return [
        f"{agreed.count} {title}",
        f"{'Kendall τ':<14} {agreed.kendall:.3f} "
        f"({agreed.kendall_low:.3f} … {agreed.kendall_high:.3f})",
        f"{'Spearman ρ':<14} {agreed.spearman:.3f}",
        f"{'error':<14} {agreed.rmse:.4g}{unit}, root mean square",
        f"{'coverage':<14} {covered}",
        f"{'sharpness':<14} {agreed.sharpness:.4g}{unit}, the mean deviation",
        f"{'surprise':<14} {agreed.nll:.3f} nats a row; of a guess {agreed.nll_of_guess:.3f}",
    ]


def _title(fitted: FittedSurrogate) -> str:
    return (
        f"{fitted.name} of {fitted.metric.name} on {fitted.space.name}, fitted to "
        f"{len(fitted.values)} architectures of {fitted.source}"
    )


def _facts(fitted: FittedSurrogate) -> dict[str, Any]:
    return {
        "space": fitted.space.name,
        "metric": fitted.metric.name,
        "model": fitted.name,
        "rows": len(fitted.values),
        "source": fitted.source,
    }


def _measured(
    source: str,
    metric: str,
    dataset: str | None,
    epochs: int | None,
    device: str | None,
    space: SearchSpace | None,
) -> Measurements:
    """The measurements of a run or a table; of a space, or of its own."""
    from nas.components import create, describe
    from nas.predictor import from_history, from_table
    from nas.tables import load

    if Path(source).is_dir():
        if dataset is not None or device is not None:
            raise ConfigError(f"{source} is a run: --dataset and --device are of tables")
        history = open_history(Path(source))
        found = from_history(history, known(history)[0], metric, epochs)
        if space is not None and describe(space) != describe(found.space):
            raise ConfigError(
                f"{source} is a run on {describe(found.space)}, the surrogate is for "
                f"{describe(space)}"
            )
        return found
    table = load(source)
    if space is None:
        space = create("spaces", dict(table.space), f"{source}: space")
    return from_table(table, space, metric, dataset, epochs, device)


def _settings(changes: list[str] | None) -> Mapping[str, Any]:
    """``--set trees=500``: arguments of the model."""
    import yaml

    found: dict[str, Any] = {}
    for change in changes or []:
        key, equals, value = change.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set takes KEY=VALUE, got {change!r}")
        found[key] = yaml.safe_load(value)
    return found
