"""What a search shows while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nas.budget import Budget
from nas.evaluator import Evaluator
from nas.execution import Executor
from nas.history import History, ParetoFront, write_file
from nas.objective import Objective
from nas.plot import front_png
from nas.search import search
from nas.strategy import Strategy
from nas.trial import Failed, Infeasible, Trial

_LINE_EVERY_S = 5.0


def watch(
    strategy: Strategy,
    evaluator: Evaluator,
    executor: Executor,
    budget: Budget,
    history: History,
    console: Console | None = None,
) -> Generator[Trial, None, None]:
    """``nas.search.search``, showing how it goes.

    On a terminal: a bar with trials done, running, failed, the best so far, the size of the
    front and the time left. Elsewhere: a line every few seconds. When the search ends, a picture
    of the front lands in the run folder (``front.png``).
    """
    console = console or Console(stderr=True)
    state = _State(history, strategy.objectives)
    with (
        contextlib.closing(search(strategy, evaluator, executor, budget, history)) as trials,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ) as progress,
    ):
        task = progress.add_task(state.line(0), total=1.0)
        progress.update(task, completed=budget.used(history.spent))
        printed = time.monotonic()
        for trial in trials:
            state.add(trial)
            line = state.line(executor.committed.trials)
            progress.update(task, description=line, completed=budget.used(history.spent))
            if not console.is_terminal and time.monotonic() - printed > _LINE_EVERY_S:
                console.print(line)
                printed = time.monotonic()
            yield trial
    console.print(state.line(0))
    if history.folder is not None:
        write_file(history.folder / "front.png", front_png(history, strategy.objectives))


class _State:
    def __init__(self, history: History, objectives: Sequence[Objective]) -> None:
        self.first = objectives[0]
        self.done = self.failed = self.infeasible = 0
        self.best: Trial | None = None
        self.front = ParetoFront(objectives)
        for trial in history.trials:
            self.add(trial)

    def add(self, trial: Trial) -> None:
        self.done += 1
        self.failed += isinstance(trial.outcome, Failed)
        self.infeasible += isinstance(trial.outcome, Infeasible)
        self.front.add(trial)
        value = trial.values.get(self.first.metric)
        if value is not None and (
            self.best is None or self.first.better(value, self.best.values[self.first.metric])
        ):
            self.best = trial

    def line(self, running: int) -> str:
        best = "–"
        if self.best is not None:
            best = f"{self.best.values[self.first.metric]:.4g} (#{self.best.number})"
        infeasible = f" · {self.infeasible} infeasible" if self.infeasible else ""
        return (
            f"{self.done} done · {running} running · {self.failed} failed{infeasible} · "
            f"best {self.first.metric} {best} · front {len(self.front)}"
        )
