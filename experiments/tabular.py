"""Every black-box strategy on tables of trained architectures: regret, queries, fronts.

Three tasks for each column (data set) of a table:

- ``regret``: search on the test accuracy itself, the mean over runs after the most epochs, so that
  the best there is can be reached: how far the best so far is from it, and after how many queries
  it is found.
- ``honest``: search on validation accuracy after few epochs, report the test accuracy after the
  most of the architecture that looked best, against the simulated seconds of training.
- ``front``: two objectives, test error and MACs, or test error and the latency of a device: how
  much of the true front's hypervolume is missing.

Every call of the evaluator counts as a query, repeats too. Finished blocks of seeds are kept below
``--out`` and not run again. Writes a report with pictures of the curves beside it.

    python experiments/tabular.py --table nb201.npz --out runs/tabular
    python experiments/tabular.py --table digits --columns digits --strategies random bananas
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from tabular_report import write_report

from evaluators.tabular import TabularEvaluator
from nas import maximize, minimize
from nas.budget import Cost
from nas.components import create
from nas.objective import Objective
from nas.registry import load as load_component
from nas.space import SearchSpace
from nas.strategy import Strategy
from nas.tables import load
from nas.trial import Measured, Trial
from strategies.q_settings import BLOCKQNN

BLOCK = 5  # seeds a file


@dataclass(frozen=True)
class Entry:
    """A strategy of the comparison.

    Attributes:
        name: registered.
        arguments: beside space, objectives and seed.
        scalar: whether it is one for a single objective.
        fronts: whether it is one for several.
        costly: whether it has a model, so that it is run with ``--model-seeds``.
    """

    name: str
    arguments: dict[str, Any]
    scalar: bool = True
    fronts: bool = False
    costly: bool = False


ENTRIES: dict[str, Entry] = {
    "random": Entry("random", {}, fronts=True),
    "evolution P100 S25": Entry("regularized_evolution", {}),
    "evolution P50 S10": Entry(
        "regularized_evolution", {"population_size": 50, "sample_size": 10}, fronts=True
    ),
    "evolution P10 S10": Entry("regularized_evolution", {"population_size": 10, "sample_size": 10}),
    "tournament": Entry("tournament", {}),
    "local_search": Entry("local_search", {}),
    # Its schedule of ε is scaled to the length of the search.
    "q_learning MetaQNN": Entry("q_learning", {"trials": 300}),
    "q_learning BlockQNN": Entry("q_learning", {"trials": 300, "settings": BLOCKQNN}),
    "reinforce": Entry("reinforce", {}, costly=True),
    "ppo": Entry("ppo", {}, costly=True),
    "la_mcts": Entry("la_mcts", {}, costly=True),
    "pnas": Entry("pnas", {"beam": 32}, costly=True),
    "bananas": Entry("bananas", {}, fronts=True, costly=True),
    "optuna TPE": Entry(
        "optuna",
        {"sampler": "tpe", "arguments": {"multivariate": True}},
        fronts=True,
        costly=True,
    ),
    "nsga2": Entry("nsga2", {}, fronts=True),
    "nsga2 P20": Entry("nsga2", {"population_size": 20}, scalar=False, fronts=True),
    "nsga3": Entry("nsga3", {}, scalar=False, fronts=True),
    "optuna NSGA-II": Entry("optuna", {"sampler": "nsga2"}, scalar=False, fronts=True, costly=True),
}


@dataclass(frozen=True)
class Task:
    """What is searched for on which column; ``cost`` is the second objective of a front."""

    kind: str
    column: str
    cost: str = ""

    def __str__(self) -> str:
        return "_".join(part for part in (self.kind, self.column, self.cost) if part)

    def objectives(self) -> tuple[Objective, ...]:
        if self.kind != "front":
            return (maximize("accuracy"),)
        return (minimize("error"), minimize("macs" if self.cost == "macs" else "latency_ms"))

    def evaluator(self, space: SearchSpace, table: str) -> TabularEvaluator:
        device = self.cost if self.kind == "front" and self.cost != "macs" else None
        report = {"accuracy": "validation_accuracy" if self.kind == "honest" else "test_accuracy"}
        return TabularEvaluator(space, table, self.column, report=report, device=device)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", default="digits", help="a file, or a shipped one (%(default)s)")
    parser.add_argument("--columns", help="data sets, with commas between (all of the table)")
    parser.add_argument("--tasks", nargs="+", default=["regret", "honest", "front"])
    parser.add_argument("--costs", nargs="*", default=["macs"], help="of fronts: macs, or devices")
    parser.add_argument(
        "--worst-error", type=float, help="of the fronts' reference point (the table's worst)"
    )
    parser.add_argument("--strategies", nargs="+", default=["all"], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=100, help="of the cheap (%(default)s)")
    parser.add_argument("--model-seeds", type=int, default=20, help="of the others (%(default)s)")
    parser.add_argument("--queries", type=int, default=300, help="of a search (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/tabular"))
    parser.add_argument(
        "--report", type=Path, help="file, its pictures beside it (report.md in --out)"
    )
    options = parser.parse_args(arguments)

    table = load(options.table)
    columns = options.columns.split(",") if options.columns else list(table.datasets)
    for column in columns:
        table.dataset(column)
    for cost in options.costs:
        if cost != "macs":
            table.device(cost)
    entries = chosen(parser, options.strategies)
    tasks = [
        Task(kind, column, cost)
        for kind in options.tasks
        for column in columns
        for cost in (options.costs if kind == "front" else ("",))
    ]
    work = list(missing(tasks, entries, options))
    console = Console(stderr=True)
    with (
        Progress(console=console) as progress,
        ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool,
    ):
        shown = progress.add_task("searching", total=len(work))
        flying = {pool.submit(run_block, *job): job for job in work}
        for done in as_completed(flying):
            done.result()
            task, name, *_ = flying[done]
            progress.update(shown, advance=1, description=f"{task}: {name}")
    command = shlex.join(["python", "experiments/tabular.py", *(arguments or sys.argv[1:])])
    found = {
        str(task): {
            name: gathered(options.out, task, name, seeds_of(entry, options))
            for name, entry in entries.items()
            if suits(task, entry)
        }
        for task in tasks
    }
    text = write_report(
        table,
        tasks,
        found,
        options.queries,
        command,
        options.report or options.out / "report.md",
        options.worst_error,
    )
    print(text)


def chosen(parser: argparse.ArgumentParser, names: list[str]) -> dict[str, Entry]:
    if names == ["all"]:
        return ENTRIES
    for name in names:
        if name not in ENTRIES:
            parser.error(f"there is no strategy {name!r}: expected {', '.join(ENTRIES)}, or all")
    return {name: ENTRIES[name] for name in names}


def suits(task: Task, entry: Entry) -> bool:
    return entry.fronts if task.kind == "front" else entry.scalar


def seeds_of(entry: Entry, options: argparse.Namespace) -> int:
    return int(options.model_seeds if entry.costly else options.seeds)


def missing(
    tasks: list[Task], entries: dict[str, Entry], options: argparse.Namespace
) -> Iterator[tuple[Any, ...]]:
    """The blocks of seeds that are still to be run, those of all strategies in turn."""
    for task in tasks:
        for name, entry in entries.items():
            if suits(task, entry):
                for first in range(0, seeds_of(entry, options), BLOCK):
                    last = min(first + BLOCK, seeds_of(entry, options))
                    file = block(options.out, task, name, first, last)
                    if not file.exists():
                        yield (
                            task,
                            name,
                            entry,
                            options.table,
                            range(first, last),
                            (options.queries),
                            file,
                        )


def block(out: Path, task: Task, name: str, first: int, last: int) -> Path:
    return out / str(task) / name.replace(" ", "_") / f"{first:04d}_{last:04d}.npz"


def run_block(
    task: Task, name: str, entry: Entry, table: str, seeds: range, queries: int, file: Path
) -> None:
    """Searches once for every seed and keeps what was found (``searched``)."""
    loaded = load(table)
    space: SearchSpace = create("spaces", dict(loaded.space) or {"name": "nasbench201"}, "space")
    evaluator = task.evaluator(space, table)
    truth = TabularEvaluator(space, table, task.column, report={"accuracy": "test_accuracy"})
    make = load_component("strategies", entry.name)
    runs, seconds = [], []
    for seed in seeds:
        # Another start for every strategy: else all that begin at random begin alike.
        own = zlib.crc32(name.encode()) % 100_003 + 1000 * seed
        strategy: Strategy = make(space, task.objectives(), seed=own, **entry.arguments)
        started = time.perf_counter()
        runs.append(searched(strategy, evaluator, truth, task, queries))
        seconds.append(time.perf_counter() - started)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part.npz")
    np.savez_compressed(unfinished, runs=np.stack(runs), seconds=np.array(seconds))
    os.replace(unfinished, file)


def searched(
    strategy: Strategy,
    evaluator: TabularEvaluator,
    truth: TabularEvaluator,
    task: Task,
    queries: int,
) -> np.ndarray:
    """Each query of a search: what it saw, the true value, the cost (queries, 3).

    Of a front that is error, cost and nothing; of infeasible trials NaN.
    """
    rows = np.full((queries, 3), np.nan)
    for query in range(queries):
        proposals = strategy.ask(1)
        if not proposals:
            break
        (proposal,) = proposals
        outcome = evaluator.evaluate(proposal)
        strategy.tell(Trial(proposal, outcome, Cost(trials=1)))
        if not isinstance(outcome, Measured):
            continue
        if task.kind == "front":
            error, cost = (outcome.values[o.metric] for o in strategy.objectives)
            rows[query] = error, cost, 0.0
        else:
            best = truth.evaluate(proposal)
            assert isinstance(best, Measured)
            rows[query] = (
                outcome.values["accuracy"],
                best.values["accuracy"],
                outcome.cost.seconds,
            )
    return rows


def gathered(out: Path, task: Task, name: str, seeds: int) -> tuple[np.ndarray, float]:
    """All runs of a strategy, (seeds, queries, 3), and the mean seconds of one."""
    runs, seconds = [], []
    for first in range(0, seeds, BLOCK):
        with np.load(block(out, task, name, first, min(first + BLOCK, seeds))) as arrays:
            runs.append(arrays["runs"])
            seconds.append(arrays["seconds"])
    return np.concatenate(runs), float(np.concatenate(seconds).mean())


if __name__ == "__main__":
    main()
