"""A run as tables and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.errors import NasError
from nas.history import History
from nas.objective import Objective, violated
from nas.space import SearchSpace, format_architecture
from nas.trial import Failed, Infeasible, Measured, Trial

if TYPE_CHECKING:
    from nas.cost import LayerCost


def trial_document(space: SearchSpace, trial: Trial) -> dict[str, Any]:
    """A measured trial as JSON values."""
    return {
        "number": trial.number,
        "arch": format_architecture(space, trial.arch),
        "values": dict(trial.values),
        "seconds": round(trial.cost.seconds, 3),
        "epochs": trial.cost.epochs,
    }


def run_document(
    history: History, space: SearchSpace, objectives: Sequence[Objective]
) -> dict[str, Any]:
    """What ``nas show --json`` prints."""
    outcomes = Counter(type(trial.outcome).__name__.lower() for trial in history.trials)
    front = history.front(objectives)
    best: dict[str, Any] = {}
    for objective in objectives:
        if front:
            chosen = history.best(objective, among=front)
            best[objective.metric] = trial_document(space, chosen)
    return {
        "folder": history.place,
        "space": space.name,
        "objectives": [str(objective) for objective in objectives],
        "trials": len(history.trials),
        "measured": outcomes["measured"],
        "infeasible": outcomes["infeasible"],
        "failed": outcomes["failed"],
        "spent": {
            "trials": history.spent.trials,
            "seconds": round(history.spent.seconds, 3),
            "epochs": history.spent.epochs,
        },
        "front": [trial_document(space, trial) for trial in front],
        "best": best,
        "failures": [
            {"number": t.number, "cause": t.outcome.cause, "message": t.outcome.message}
            for t in history.trials
            if isinstance(t.outcome, Failed)
        ],
    }


def print_run(
    console: Console, history: History, space: SearchSpace, objectives: Sequence[Objective]
) -> None:
    """The table of the front, the best of each objective, and the failures with their causes."""
    document = run_document(history, space, objectives)
    console.print(
        f"{document['trials']} trials on {space.name}: {document['measured']} measured, "
        f"{document['infeasible']} infeasible, {document['failed']} failed; "
        f"{document['spent']['seconds']:.0f} s, {document['spent']['epochs']:g} epochs"
    )
    if document["front"]:
        table = Table(title="Pareto front: " + ", ".join(document["objectives"]), title_style="")
        table.add_column("trial", justify="right")
        metrics = [objective.metric for objective in objectives]
        metrics += [m for m in document["front"][0]["values"] if m not in metrics]
        for metric in metrics:
            table.add_column(metric, justify="right")
        table.add_column("architecture", overflow="fold")
        for trial in document["front"]:
            values = [number(trial["values"].get(metric)) for metric in metrics]
            # Text, not a string: an architecture's brackets are not markup.
            table.add_row(str(trial["number"]), *values, Text(trial["arch"]))
        console.print(table)
    for metric, trial in document["best"].items():
        console.print(f"best {metric}: {number(trial['values'][metric])} (trial {trial['number']})")
    causes = Counter(failure["cause"] for failure in document["failures"])
    for cause, times in causes.most_common():
        example = next(f for f in document["failures"] if f["cause"] == cause)
        console.print(
            f"failed, {cause}: {times} (trial {example['number']}: {example['message']})",
            markup=False,
        )
    reasons = [t.outcome.reason for t in history.trials if isinstance(t.outcome, Infeasible)]
    if reasons:
        console.print(f"infeasible: {len(reasons)} (such as: {reasons[0]})", markup=False)


def number(value: float | None) -> str:
    """A measurement for a table: whole numbers with separators, others to four digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def print_values(console: Console, values: Mapping[str, Any]) -> None:
    """Names and numbers, one a line."""
    for name, value in values.items():
        text = number(value) if isinstance(value, int | float) else str(value)
        console.print(f"{name:<20} {text:>16}", markup=False)


def choose(
    history: History,
    objectives: Sequence[Objective],
    best: str | None = None,
    trial: int | None = None,
) -> Trial:
    """The measured trial a command is about.

    Args:
        best: a metric; the best trial in it of those that keep every limit. The first objective
            if neither is given.
        trial: a trial's number instead.

    Raises:
        NasError: the trial failed, is infeasible or does not exist; or nothing was measured.
    """
    if trial is not None:
        found = history.trial(trial)
        if isinstance(found.outcome, Failed):
            raise NasError(
                f"trial {trial} failed ({found.outcome.cause}: {found.outcome.message}); only a "
                "measured trial can be used"
            )
        if isinstance(found.outcome, Infeasible):
            raise NasError(
                f"trial {trial} is infeasible ({found.outcome.reason}); only a measured trial "
                "can be used"
            )
        return found
    kept = [
        t
        for t in history.trials
        if isinstance(t.outcome, Measured) and violated(objectives, t.values) is None
    ]
    return history.best(best or objectives[0], among=kept)


def layer_document(row: LayerCost) -> dict[str, Any]:
    """A layer's cost as JSON values."""
    return {
        "path": row.path,
        "type": row.type,
        "output": list(row.output),
        "parameters": row.parameters,
        "macs": row.macs,
    }


def print_layers(console: Console, rows: Sequence[LayerCost]) -> None:
    """The layers as a tree, each with everything inside it."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    table.add_column("type", overflow="ellipsis", max_width=60, no_wrap=True)
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right")
    table.add_column("macs", justify="right")
    for row in rows:
        name = "  " * row.depth + (row.path.rpartition(".")[2] or "network")
        shape = "×".join(map(str, row.output[1:]))
        # Text, not strings: what stands in brackets is not markup.
        table.add_row(Text(name), Text(row.type), shape, number(row.parameters), number(row.macs))
    console.print(table)
