"""Surrogate models on tables of trained architectures, and what screening by one saves a search.

Two parts:

- ``models``: each model is fitted on so many random rows of a table, cross-validated on them, and
  compared with 1,000 other rows: Kendall τ, the share of measurements inside intervals that
  should hold 50, 80 and 95 % of them, the seconds of fitting and validating, and of predicting.
- ``screened``: regularized evolution bare, and with a surrogate that screens ten candidates for
  every one that is measured. Beside them evolution that takes the first of up to ten candidates
  that is new: the rest is the model's.

What is finished is kept below ``--out`` and not run again. Writes a report with a picture beside
it.

    python experiments/surrogates.py --tables nb201.npz:cifar10 digits --out runs/surrogates
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from evaluators.tabular import TabularEvaluator
from nas.budget import Cost
from nas.components import create
from nas.history import write_file
from nas.objective import maximize
from nas.predictor import Measurements, fit_surrogate, from_table
from nas.predictor.models import MODELS
from nas.space import SearchSpace
from nas.strategy import Strategy
from nas.tables import load
from nas.trial import Infeasible, Measured, Trial
from strategies.regularized_evolution import RegularizedEvolution
from strategies.screened import Screened

ROWS = (50, 100, 200, 500)
HELD_OUT = 1000
SLOW = {"mlp": 100, "graph": 100}  # one draw, and so many rows at most: they take minutes
ARMS = ("bare", "no repeats", "screened: ridge", "screened: forest")
CANDIDATES = 10  # for each that is measured
POPULATIONS = ((100, 25), (10, 10))  # the paper's, and what suits a short search


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tables",
        nargs="+",
        default=["digits"],
        metavar="TABLE[:COLUMN]",
        help="of NAS-Bench-201's space, as digits is (%(default)s)",
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=5, help="draws of rows (%(default)s)")
    parser.add_argument("--seeds", type=int, default=20, help="of searches (%(default)s)")
    parser.add_argument("--queries", type=int, default=200, help="of a search (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/surrogates"))
    parser.add_argument("--report", type=Path, help="file (report.md in --out)")
    options = parser.parse_args(arguments)

    report = options.report or options.out / "report.md"
    command = shlex.join(["python", "experiments/surrogates.py", *(arguments or sys.argv[1:])])
    sections = [f"    {command}\n"]
    for name in options.tables:
        measured = measurements(name)
        title = Path(name.partition(":")[0]).stem + name[len(name.partition(":")[0]) :]
        title = title.replace(":", ", ")
        found = models(name, measured, options)
        sections.append(models_table(title, measured, found))
        picture = report.with_name(f"{report.stem}_{title.replace(', ', '_')}.png")
        write_file(picture, models_png(found, title))
        sections.append(f"![Kendall τ by rows fitted]({picture.name})\n")
        sections.append(searches_table(title, searches(name, measured, options), options))
    text = "\n".join(sections)
    write_file(report, text.encode())
    print(text)


def measurements(name: str) -> Measurements:
    """All of a table: the test accuracy after the most epochs."""
    file, _, column = name.partition(":")
    table = load(file)
    space: SearchSpace = create("spaces", dict(table.space), "space")
    return from_table(table, space, "test_accuracy", dataset=column or None)


# ----------------------------------------------------------------------------------- models


def models(name: str, measured: Measurements, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One record for each model, number of rows and repeat."""
    jobs = [
        (model, rows, repeat)
        for model in options.models
        for rows in options.rows
        for repeat in range(options.repeats)
        if model not in SLOW or (repeat == 0 and rows <= SLOW[model])
    ]
    found = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=len(jobs))
        for model, rows, repeat in jobs:
            file = options.out / _plain(name) / f"{model}_{rows}_{repeat}.json"
            if not file.exists():
                record = one_model(measured, model, rows, repeat)
                write_file(file, json.dumps(record).encode())
            found.append(json.loads(file.read_text()))
            progress.update(task, advance=1, description=f"{name}: {model}, {rows} rows")
    return found


def one_model(measured: Measurements, model: str, rows: int, repeat: int) -> dict[str, Any]:
    order = np.random.default_rng([repeat, rows]).permutation(len(measured.archs))
    known, others = (
        replace(
            measured,
            archs=tuple(measured.archs[row] for row in part),
            values=measured.values[part],
        )
        for part in (np.sort(order[:rows]), np.sort(order[rows : rows + HELD_OUT]))
    )
    started = time.perf_counter()
    surrogate = fit_surrogate(known, model, seed=repeat)
    fitted = time.perf_counter()
    surrogate.predict(others.archs)
    predicted = time.perf_counter()
    return {
        "model": model,
        "rows": rows,
        "fit_s": fitted - started,
        "predict_s": (predicted - fitted) * 1000 / len(others.archs),
        "cross_validated": surrogate.validation.agreement.to_document(),
        "held_out": surrogate.agreement(others).to_document(),
    }


def models_table(title: str, measured: Measurements, found: list[dict[str, Any]]) -> str:
    lines = [
        f"## {title}: models\n",
        f"{len(measured.archs):,} architectures, {measured.metric.name} "
        f"({measured.source}). Held out: {HELD_OUT:,} others, or all there are. Means over draws "
        "of rows, ± half of the 95 % interval of Student's t.\n",
        "| model | rows | draws | τ cross-validated | τ held out | coverage of 50, 80, 95 % | "
        "fit and validate, s | predict 1,000, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (model, rows), records in _grouped(found).items():
        covered = [
            np.mean([100 * r["held_out"]["coverage"][level] for r in records])
            for level in ("0.5", "0.8", "0.95")
        ]
        lines.append(
            f"| {model} | {rows} | {len(records)} | "
            f"{_with_error([r['cross_validated']['kendall'] for r in records])} | "
            f"{_with_error([r['held_out']['kendall'] for r in records])} | "
            f"{', '.join(f'{share:.0f}' for share in covered)} | "
            f"{np.mean([r['fit_s'] for r in records]):.1f} | "
            f"{np.mean([r['predict_s'] for r in records]):.2f} |"
        )
    return "\n".join(lines) + "\n"


def models_png(found: list[dict[str, Any]], title: str) -> bytes:
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    curves: dict[str, list[tuple[int, float]]] = {}
    for (model, rows), records in _grouped(found).items():
        tau = float(np.mean([r["held_out"]["kendall"] for r in records]))
        curves.setdefault(model, []).append((rows, tau))
    for model, points in curves.items():
        axes.plot(*zip(*points, strict=True), "o-", label=model, markersize=4)
    axes.set(xscale="log", xlabel="rows fitted", ylabel="Kendall τ, held out", title=title)
    axes.set_xticks(sorted({r["rows"] for r in found}), sorted({r["rows"] for r in found}))
    axes.minorticks_off()
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _grouped(found: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in found:
        groups.setdefault((record["model"], record["rows"]), []).append(record)
    return groups


def _with_error(values: list[float]) -> str:
    from scipy import stats

    if len(values) < 2:
        return f"{np.mean(values):.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{np.mean(values):.3f} ± {half:.3f}"


# --------------------------------------------------------------------------------- searches


def searches(
    name: str, measured: Measurements, options: argparse.Namespace
) -> dict[str, np.ndarray]:
    """For each arm the regret after each query, (seeds, queries)."""
    file, _, column = name.partition(":")
    evaluator = TabularEvaluator(
        measured.space, file, column or None, report={"accuracy": "test_accuracy"}
    )
    best = measured.values.max()
    found = {}
    with Progress(console=Console(stderr=True)) as progress:
        total = len(POPULATIONS) * len(ARMS) * options.seeds
        task = progress.add_task("searches", total=total)
        for population, arm in itertools.product(POPULATIONS, ARMS):
            shown = "P{} S{}, {}".format(*population, arm)
            kept = options.out / _plain(name) / f"search_{_plain(shown)}_{options.queries}.json"
            known = json.loads(kept.read_text()) if kept.exists() else []
            for seed in range(len(known), options.seeds):
                known.append(regret(arm, population, evaluator, best, seed, options.queries))
                write_file(kept, json.dumps(known).encode())
                progress.update(task, advance=1, description=f"{name}: {shown}")
            found[shown] = np.array(known[: options.seeds])
    return found


def regret(
    arm: str,
    population: tuple[int, int],
    evaluator: TabularEvaluator,
    best: float,
    seed: int,
    queries: int,
) -> list[float]:
    """The best test accuracy there is less the best found, after each query, in points."""
    objectives = (maximize("accuracy"),)
    inner = RegularizedEvolution(evaluator.space, objectives, 1000 * seed + 17, *population)
    strategy: Strategy = inner
    if arm.startswith("screened"):
        strategy = Screened(inner, arm.partition(": ")[2], factor=CANDIDATES)
    seen: set[Any] = set()
    so_far, passed_over, curve = -np.inf, 0, []
    while len(curve) < queries:
        (proposal,) = strategy.ask(1)
        if arm == "no repeats" and proposal.arch in seen and passed_over < CANDIDATES - 1:
            # As the layer does it, without its model.
            strategy.tell(Trial(proposal, Infeasible("measured before"), Cost()))
            passed_over += 1
            continue
        passed_over = 0
        seen.add(proposal.arch)
        outcome = evaluator.evaluate(proposal)
        strategy.tell(Trial(proposal, outcome, Cost(trials=1)))
        if isinstance(outcome, Measured):
            so_far = max(so_far, outcome.values["accuracy"])
        curve.append(float(100 * (best - so_far)))
    return curve


def searches_table(title: str, found: dict[str, np.ndarray], options: argparse.Namespace) -> str:
    first = min(100, options.queries)
    lines = [
        f"## {title}: screening\n",
        f"Regularized evolution of population P and tournament S, {options.seeds} seeds, "
        f"{options.queries} queries. Regret in points of test accuracy; queries until it is at "
        "most 0.5 and 0: medians (– where half of the searches end without it).\n",
        f"| search | regret at 50 | regret at {first} | regret at {options.queries} | "
        "queries to 0.5 | queries to the optimum |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm, curves in found.items():
        at = [_with_error(curves[:, min(q, options.queries) - 1].tolist()) for q in (50, first)]
        at.append(_with_error(curves[:, -1].tolist()))
        needed = [_median_queries(curves, level) for level in (0.5, 1e-9)]
        lines.append(f"| {arm} | {' | '.join(at)} | {' | '.join(needed)} |")
    return "\n".join(lines) + "\n"


def _median_queries(curves: np.ndarray, level: float) -> str:
    reached = curves <= level
    needed = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)
    median = float(np.median(needed))
    return f"{median:.0f}" if np.isfinite(median) else f"– ({reached.any(axis=1).mean():.0%})"


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in Path(text).name)


if __name__ == "__main__":
    main()
