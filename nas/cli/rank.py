"""``nas rank``: how well a supernet's scores rank architectures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from nas.cli.common import (
    Json,
    OutFolder,
    app,
    err_console,
    open_history,
    out_console,
    print_json,
)
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.evaluator import Evaluator, HasFit
    from nas.ranking import Agreement, Valuation
    from nas.space import SearchSpace

    class Fitted(Evaluator, HasFit, Protocol):
        """What scores."""


@app.command()
def rank(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|CONFIG.yaml",
            help="A run whose evaluator is a supernet, or a configuration with a checkpoint.",
        ),
    ],
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="True values: a JSON object, or NAS-Bench-201's .npz."),
    ] = None,
    train: Annotated[
        int | None,
        typer.Option(min=1, metavar="EPOCHS", help="Or train each alone for so many epochs."),
    ] = None,
    column: Annotated[str, typer.Option(help="Of the .npz.")] = "test_acc_200",
    dataset: Annotated[str, typer.Option(help="Of the .npz.")] = "cifar10",
    count: Annotated[int, typer.Option(min=3, help="Random architectures.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the architectures.")] = 0,
    out: OutFolder = None,
    as_json: Json = False,
) -> None:
    """Compare inherited weights' scores with true values: Kendall τ, Spearman ρ, top-k recall."""
    import json

    from nas import ranking
    from nas.history import write_file

    if (truth is None) == (train is None):
        raise ConfigError("give --truth FILE, or --train EPOCHS: what the scores are compared with")
    space, evaluator, folder = _fitted(source)
    worth, y = _truth(space, evaluator, truth, train, column, dataset)
    pairs = []
    with err_console.status("ranking") as status:
        status.update("training the supernet, or reading it")
        evaluator.fit(folder if folder.is_dir() else None)
        scored = ranking.paired(space, ranking.by_evaluator(evaluator), worth, count, seed)
        for done, pair in enumerate(scored, start=1):
            pairs.append(pair)
            status.update(f"{done} of {count} architectures scored")
    agreement = ranking.rank_agreement(
        [pair.score for pair in pairs], [pair.truth for pair in pairs], seed=seed
    )
    x = evaluator.metrics[0].name
    facts = {"space": space.name, "score": f"{x} with inherited weights", "truth": y, "seed": seed}
    document = ranking.ranking_document(pairs, agreement, facts)
    target = out or (folder if folder.is_dir() else Path("runs")) / "ranking"
    write_file(target / "ranking.json", json.dumps(document, indent=1).encode())
    picture = ranking.ranking_png(pairs, agreement, f"{x}, inherited weights", y)
    write_file(target / "ranking.png", picture)
    if as_json:
        print_json({key: value for key, value in document.items() if key != "pairs"})
        return
    for line in lines(agreement):
        out_console.print(line, highlight=False)
    out_console.print(f"written: {target / 'ranking.json'}, {target / 'ranking.png'}")


def lines(agreement: Agreement) -> list[str]:
    """An agreement, for people."""
    found = [
        f"{agreement.count} random architectures, intervals of {agreement.confidence:.0%}",
        f"{'Kendall τ':<16} {agreement.kendall}",
        f"{'Spearman ρ':<16} {agreement.spearman}",
    ]
    return found + [f"{f'top-{k} recall':<16} {r}" for k, r in agreement.recall.items()]


def _fitted(source: Path) -> tuple[SearchSpace, Fitted, Path]:
    """The space, the evaluator that is fitted, and where its run is."""
    from nas import config
    from nas.components import describe
    from nas.evaluator import HasFit

    if source.is_dir():
        run = config.from_header(open_history(source).header or {})
    else:
        run = config.build(config.read(source))
    # A staged evaluator is fitted through its stages, and it is one of those that scores.
    stages = getattr(run.evaluator, "stages", (run.evaluator,))
    for stage in stages:
        if isinstance(stage, HasFit):
            return run.space, stage, source  # type: ignore[return-value]  # an evaluator, too
    names = ", ".join(str(describe(stage).get("name")) for stage in stages)
    raise ConfigError(
        f"{source}: its evaluator ({names}) has no shared weights to rank with; use one_shot"
    )


def _truth(
    space: SearchSpace,
    evaluator: Fitted,
    table: Path | None,
    epochs: int | None,
    column: str,
    dataset: str,
) -> tuple[Valuation, str]:
    """What architectures are worth, and its name."""
    from nas import ranking
    from nas.components import create

    if table is not None:
        name = f"{column}, {dataset}" if table.suffix == ".npz" else table.stem
        return ranking.by_table(table, space, column, dataset), name
    given = {"space": space, "data": getattr(evaluator, "data", None)}
    alone = create(
        "evaluators",
        {"name": "training", "epochs": epochs, "keep_weights": False},
        "--train",
        given,
    )
    return ranking.by_evaluator(alone), f"accuracy, trained alone for {epochs} epochs"
