"""The tables and curves of ``tabular.py``, from what its searches found."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from nas.pareto import hypervolume, non_dominated
from nas.tables import Table

Floats = NDArray[np.float64]
Found = Mapping[str, tuple[Floats, float]]
"""Strategy to its runs, (seeds, queries, 3), and the mean seconds of one."""

MARKS = (50, 100, 200, 300)
REFERENCE = {
    # Measured with other implementations: regret at 100 and 300 queries, median to the optimum.
    ("cifar10", "random"): "0.52, 0.32, –",
    ("cifar10", "evolution P10 S10"): "0.08, 0.00, 89",
    ("cifar10", "evolution P50 S10"): "0.22, 0.01, 147",
    ("cifar10", "local_search"): "0.03, 0.00, 51",
    ("cifar10", "optuna TPE"): "0.07, 0.01, 96",
    ("cifar10", "bananas"): "0.00, 0.00, 33",
    ("cifar100", "random"): "1.89, 1.20, –",
    ("cifar100", "evolution P10 S10"): "0.33, 0.02, 110",
    ("cifar100", "evolution P50 S10"): "0.84, 0.02, 162",
    ("cifar100", "local_search"): "0.07, 0.00, 52",
    ("cifar100", "optuna TPE"): "0.59, 0.03, 140",
    ("cifar100", "bananas"): "0.19, 0.00, 48",
}


def write_report(
    table: Table,
    tasks: Sequence[Any],
    found: Mapping[str, Found],
    queries: int,
    command: str,
    file: Path,
    worst_error: float | None = None,
) -> str:
    """Writes the report, and a picture a task beside it; gives the text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"# Black-box strategies on {Path(table.name).name}\n"]
    for task in tasks:
        runs = found[str(task)]
        if not runs:
            continue
        if task.kind == "front":
            section, curves, axes = fronts(table, task, runs, queries, worst_error)
        elif task.kind == "honest":
            section, curves, axes = honest(table, task, runs)
        else:
            section, curves, axes = regrets(table, task, runs, queries)
        picture = f"{file.stem}_{task}.png"
        draw(file.with_name(picture), curves, axes)
        parts.append(f"{section}\n![{axes[1]} against {axes[0]}]({picture})\n")
    parts.append(
        f"Python {platform.python_version()}, numpy {np.__version__}.\n\n```\n{command}\n```\n"
    )
    text = "\n".join(parts)
    file.write_text(text)
    return text


Curves = dict[str, tuple[Floats, Floats]]
"""Strategy to where (points,) and the values of every seed there (seeds, points)."""


def regrets(
    table: Table, task: Any, runs: Found, queries: int
) -> tuple[str, Curves, tuple[str, str]]:
    values = 100 * last(table, task.column, "test_accuracy")
    optimum = float(np.nanmax(values))
    marks = [mark for mark in MARKS if mark <= queries]
    rows, curves = [], {}
    at_random = None
    for name, (trials, seconds) in runs.items():
        best = optimum - 100 * so_far(trials[:, :, 1])
        curves[name] = (np.arange(1, queries + 1), best)
        if name == "random":
            at_random = best[:, -1]
        against = "–"
        if at_random is not None and name != "random":
            test = stats.mannwhitneyu(best[:, -1], at_random, alternative="less")
            against = f"{test.pvalue:.1g}"
        rows.append(
            [
                name,
                str(len(best)),
                *(interval(best[:, mark - 1]) for mark in marks),
                to_optimum(best),
                REFERENCE.get((task.column, name), ""),
                against,
                f"{1000 * seconds / queries:.2f}",
            ]
        )
    head = [
        "strategy",
        "seeds",
        *(f"regret at {mark}" for mark in marks),
        "queries to the optimum",
        "elsewhere: at 100, at 300, queries",
        f"p against random at {queries}",
        "ms a query",
    ]
    text = f"""## {task.column}: query by query

Searched on the mean test accuracy after the most epochs, whose best is {optimum:.3f} %. Regret in
percentage points, mean with its 95 % interval (Student's t); queries to the exact optimum, median
with its 95 % interval (bootstrap; – where half of the searches end without it); Mann–Whitney's
one-sided p of a smaller regret than random search's.

{markdown(head, rows)}
"""
    return text, curves, ("queries", f"regret on {task.column} (percentage points)")


def honest(table: Table, task: Any, runs: Found) -> tuple[str, Curves, tuple[str, str]]:
    values = 100 * last(table, task.column, "test_accuracy")
    shares = (0.25, 0.5, 1.0)
    # The time that most searches had: beyond it a mean would be of those that trained slowly.
    whole = min(float(np.nansum(trials[:, :, 2], axis=1).min()) for trials, _ in runs.values())
    rows, curves = [], {}
    grid = np.linspace(whole / 100, whole, 100)
    for name, (trials, _) in runs.items():
        seen = np.nan_to_num(trials[:, :, 0], nan=-1.0)
        leader = np.maximum.accumulate(seen, axis=1)
        # The first that reached the best validation accuracy so far.
        place = np.array([[int(np.argmax(run == value)) for value in lead]
                          for run, lead in zip(seen, leader, strict=True)])  # fmt: skip
        reported = 100 * np.take_along_axis(trials[:, :, 1], place, axis=1)
        spent = np.nancumsum(trials[:, :, 2], axis=1)
        at = np.stack(
            [
                run[np.clip(np.searchsorted(time, grid, side="right") - 1, 0, None)]
                for run, time in zip(reported, spent, strict=True)
            ]
        )
        curves[name] = (grid, at)
        cells = [interval(at[:, round(share * 100) - 1]) for share in shares]
        rows.append([name, str(len(at)), *cells])
    head = ["strategy", "seeds", *(f"after {whole * share:,.0f} s" for share in shares)]
    text = f"""## {task.column}: against simulated time

Searched on validation accuracy after few epochs; reported is the test accuracy (%) after the most
epochs of the architecture that looked best so far, mean with its 95 % interval. The best there is
has {np.nanmax(values):.3f} %, the mean of the space is {np.nanmean(values):.2f} %. Seconds are what
training took when the table was made.

{markdown(head, rows)}
"""
    return text, curves, ("simulated seconds", f"test accuracy on {task.column} (%)")


def fronts(
    table: Table, task: Any, runs: Found, queries: int, worst_error: float | None
) -> tuple[str, Curves, tuple[str, str]]:
    points = np.stack([1 - last(table, task.column, "test_accuracy"), second(table, task)], axis=1)
    points = points[np.isfinite(points).all(axis=1)]
    low, high = points.min(axis=0), points.max(axis=0)

    def scaled(costs: Floats) -> Floats:
        return (costs - low) / (high - low)

    worst = high.copy() if worst_error is None else np.array([worst_error, high[1]])
    corner = scaled(worst)
    true_front = scaled(points[non_dominated(points)])
    whole = hypervolume(true_front, corner)
    marks = [mark for mark in MARKS if mark <= queries]
    grid = sorted({*marks, *np.unique(np.geomspace(5, queries, 25).astype(int)).tolist()})
    rows, curves = [], {}
    for name, (trials, seconds) in runs.items():
        gaps = np.array(
            [
                [100 * (1 - covered(scaled(run[:end, :2]), corner) / whole) for end in grid]
                for run in trials
            ]
        )
        curves[name] = (np.array(grid), gaps)
        cells = [median_interval(gaps[:, grid.index(mark)]) for mark in marks]
        rows.append([name, str(len(gaps)), *cells, f"{1000 * seconds / queries:.2f}"])
    what = "MACs" if task.cost == "macs" else f"latency on {task.cost}"
    head = ["strategy", "seeds", *(f"after {mark} queries" for mark in marks), "ms a query"]
    text = f"""## {task.column}: test error and {what}

The part of the true front's hypervolume that is missing, 1 − HV/HV*, in per cent: median over
seeds with its 95 % interval (bootstrap). The true front has {len(np.unique(true_front, axis=0))} of
{len(points):,} architectures; the reference point is an error of {worst[0]:.1%} and the largest
{what} of all.

{markdown(head, rows)}
"""
    return text, curves, ("queries", f"hypervolume missing, {task.column} and {what} (%)")


def second(table: Table, task: Any) -> Floats:
    """The second objective of every architecture of the table; NaN where it has none."""
    if task.cost == "macs":
        return np.asarray(table.counts["macs"][table.dataset(task.column)], dtype=np.float64)
    return table.latency_ms[table.device(task.cost)]


def covered(points: Floats, corner: Floats) -> float:
    inside = points[np.isfinite(points).all(axis=1)]
    return hypervolume(inside, corner) if len(inside) else 0.0


def last(table: Table, column: str, quantity: str) -> Floats:
    """A quantity after the most epochs, the mean over runs, of every architecture."""
    return np.nanmean(table.quantity(quantity).values[table.dataset(column)][:, :, -1], axis=1)


def so_far(values: Floats) -> Floats:
    """The largest of each row up to each column; what is NaN adds nothing."""
    return np.maximum.accumulate(np.nan_to_num(values, nan=-np.inf), axis=1)


def to_optimum(regret: Floats) -> str:
    """The median number of queries until the regret is nought, and its 95 % interval."""
    reached = regret <= 1e-9
    queries = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)
    return median_interval(queries, digits=0)


def median_interval(values: Floats, digits: int = 2) -> str:
    rng = np.random.default_rng(0)
    drawn = np.sort(values[rng.integers(len(values), size=(2000, len(values)))], axis=1)
    # The upper of the two middle ones: a mean with infinity would say nothing.
    medians = np.sort(drawn[:, len(values) // 2])
    middle = float(np.sort(values)[len(values) // 2])
    if math.isinf(middle):
        return f"– ({np.isfinite(values).mean():.0%} found it)"
    low, high = medians[49], medians[1949]
    upper = "–" if math.isinf(high) else f"{high:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f} to {upper})"


def interval(values: Floats) -> str:
    """Mean ± half of its 95 % interval."""
    if len(values) < 2:
        return f"{values.mean():.2f}"
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    half = quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
    return f"{values.mean():.2f} ± {half:.2f}"


def draw(path: Path, curves: Curves, axes: tuple[str, str]) -> None:
    """The mean over seeds of every strategy with its 95 % band."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    plot = figure.add_subplot()
    styles = ("-", "--", ":")
    for index, (name, (where, values)) in enumerate(curves.items()):
        every = max(1, len(where) // 100)  # a hundred points show as much, in a smaller file
        where, values = where[::every], values[:, ::every]
        finite = np.where(np.isfinite(values), values, np.nan)
        mean = np.nanmean(finite, axis=0)
        error = 1.96 * np.nanstd(finite, axis=0) / math.sqrt(len(values))
        colour = f"C{index % 10}"
        plot.plot(where, mean, styles[index // 10], color=colour, label=name)
        plot.fill_between(where, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    plot.set_xlabel(axes[0])
    plot.set_ylabel(axes[1])
    if "accuracy" not in axes[1]:
        plot.set_yscale("symlog", linthresh=0.05)
        plot.set_ylim(bottom=0)
    plot.grid(alpha=0.3)
    plot.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=110)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
