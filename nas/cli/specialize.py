"""``nas specialize``: from one supernet, the best network under each of several limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.common import Json, app, err_console, out_console, print_json
from nas.cli.deliver import Formats
from nas.cli.supernet import DataName, File, Recalibration, described, scored, summary
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.specialize import Inherited, Specialized


@app.command()
def specialize(
    supernet: File,
    limits: Annotated[
        list[str],
        typer.Option(
            "--limit",
            metavar="METRIC=NUMBER",
            help="A network's limits: latency_ms, macs, parameters, weight_bytes or "
            "peak_memory_bytes, several joined by a comma; repeat it for a family.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The family's folder.")],
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tells latency_ms: see 'nas latency'.")
    ] = None,
    predictor: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of accuracies; the one beside SUPERNET if not given."),
    ] = None,
    score: Annotated[
        int | None,
        typer.Option(min=10, metavar="N", help="Score so many sub-networks first, and fit it."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Any that needs no training.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Predictions for each network.")] = 500,
    check: Annotated[int, typer.Option(min=1, help="Of the best, how many are scored truly.")] = 8,
    finetune: Annotated[
        int, typer.Option(min=0, metavar="EPOCHS", help="Train each for so many more.")
    ] = 0,
    formats: Formats = None,
    data: DataName = None,
    recalibration: Recalibration = 20,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Find, test and export the best sub-network under each limit, in seconds.

    A strategy maximises the predicted accuracy under the hard limits; the best few are scored
    with inherited weights on held-out examples, and the best of those is recalibrated, tested,
    fine-tuned if asked for, and written to DIR. A limit that nothing meets is told, the others
    are delivered, and the exit code is 2.
    """
    from nas import specialize as family
    from nas.specialize.candidates import ONCE_FOR_ALL
    from nas.specialize.family import FAMILY, PICTURE
    from nas.specialize.limits import family_of
    from nas.supernet.files import load_supernet

    asked = family_of(limits)
    shared = load_supernet(supernet)
    costs = family.Costs(shared.space, table)
    for one in asked:
        costs.check(one)
    known = family.data_of(shared, described(data))
    fitted = _predictor(
        supernet, predictor, score, family.Inherited(shared, known, recalibration), seed
    )
    unmet: dict[Any, str] = {}
    with err_console.status("specialising") as status:
        try:
            found = family.specialize(
                shared,
                asked,
                out,
                data=known,
                predictor=fitted,
                table=costs.table,
                strategy=ONCE_FOR_ALL if strategy is None else strategy,
                trials=trials,
                check=check,
                finetune=finetune,
                formats=formats or ["source"],
                recalibration_batches=recalibration,
                seed=seed,
                on_progress=status.update,
            )
        except family.UnmetLimits as error:
            found, unmet = error.met, error.unmet
    if as_json:
        networks = [{"limit": str(one.limits), **one.document()} for one in found]
        reasons = {str(one): why for one, why in unmet.items()}
        print_json({"folder": str(out), "networks": networks, "unmet": reasons})
    elif found:
        out_console.print(family_table(found))
        out_console.print(f"written: {out / FAMILY}, {out / PICTURE}", highlight=False)
        if "source" in (formats or ["source"]):
            script = out / found[0].limits.name / "model.py"
            out_console.print(f"run one: python {script}", highlight=False)
    for why in unmet.values():
        err_console.print(f"error: {why}", markup=False, highlight=False)
    if unmet:
        raise typer.Exit(2)


def family_table(found: Sequence[Specialized]) -> Any:
    """The networks of a family as a table."""
    from rich.table import Table

    table = Table()
    table.add_column("limit", no_wrap=True)
    latency = "latency_ms" in found[0].costs
    tuned = found[0].fine_tuned is not None
    for name in (
        *(("ms",) if latency else ()),
        "MACs",
        "parameters",
        "predicted",
        "held out",
        "test",
        *(("fine-tuned", "gain") if tuned else ()),
        "seconds",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        row = [str(one.limits)]
        if latency:
            row.append(f"{one.costs['latency_ms']:.4g}")
        row += [f"{one.costs['macs']:,}", f"{one.costs['parameters']:,}"]
        row += [f"{one.predicted:.2%}", f"{one.accuracy:.2%}", _share(one.test_accuracy)]
        if tuned:
            row += [_share(one.fine_tuned), _gain(one)]
        table.add_row(*row, f"{one.seconds['all']:.1f}")
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _gain(one: Specialized) -> str:
    if one.fine_tuned is None or one.test_accuracy is None:
        return ""
    return f"{100 * (one.fine_tuned - one.test_accuracy):+.2f}"


def _predictor(
    supernet: Path, given: Path | None, score: int | None, inherited: Inherited, seed: int
) -> Any:
    """The accuracy predictor: the one given, the one beside the supernet, or made now."""
    from nas.specialize import load_predictor, predictor_path

    if score is not None:
        if given is not None:
            raise ConfigError("give --predictor FILE, or --score N, which makes one; not both")
        rows, fitted, _ = scored(inherited, supernet, score, None, "ridge", seed)
        for line in summary(rows, fitted):
            err_console.print(line, highlight=False)
        return fitted
    path = given or predictor_path(supernet)
    if given is None and not path.exists():
        raise ConfigError(
            f"there is no accuracy predictor {path}: 'nas supernet score {supernet} --rows 300' "
            "makes it, and so does --score 300 here"
        )
    return load_predictor(path, inherited.shared)
