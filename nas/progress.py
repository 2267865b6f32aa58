"""What a search shows while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from nas.budget import Budget
from nas.evaluator import Evaluator
from nas.execution import Executor
from nas.history import History, ParetoFront
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

    def fitting(epoch: int, loss: float) -> None:
        text = f"preparing the evaluator: epoch {epoch}, loss {loss:.3f}"
        progress.update(task, description=text)
        if not console.is_terminal:
            console.print(text)

    with (
        contextlib.closing(
            search(strategy, evaluator, executor, budget, history, fitting)
        ) as trials,
        Progress(
            TextColumn("{task.description}"),
            _RunningColumn(executor),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ) as progress,
    ):
        task = progress.add_task(state.line(), total=1.0)
        progress.update(task, completed=budget.used(history.spent))
        printed = time.monotonic()
        for trial in trials:
            state.add(trial)
            progress.update(task, description=state.line(), completed=budget.used(history.spent))
            if not console.is_terminal and time.monotonic() - printed > _LINE_EVERY_S:
                console.print(state.line())
                printed = time.monotonic()
            yield trial
    console.print(state.line())
    if history.folder is not None:
        history.write("front.png", front_png(history, strategy.objectives))


class _RunningColumn(ProgressColumn):
    """How many trials run at this moment: asked anew whenever the line is drawn."""

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self.executor = executor

    def render(self, task: Task) -> Text:
        return Text(f"· {self.executor.committed.trials} running")


class _State:
    def __init__(self, history: History, objectives: Sequence[Objective]) -> None:
        self.first = objectives[0]
        self.done = self.failed = self.infeasible = 0
        self.front = ParetoFront(objectives)
        for trial in history.trials:
            self.add(trial)

    def add(self, trial: Trial) -> None:
        self.done += 1
        self.failed += isinstance(trial.outcome, Failed)
        self.infeasible += isinstance(trial.outcome, Infeasible)
        self.front.add(trial)

    def line(self) -> str:
        best = "–"
        if len(self.front):
            trial = self.front.trials()[0]
            best = f"{trial.values[self.first.metric]:.4g} (#{trial.number})"
        infeasible = f" · {self.infeasible} infeasible" if self.infeasible else ""
        return (
            f"{self.done} done · {self.failed} failed{infeasible} · "
            f"best {self.first.metric} {best} · front {len(self.front)}"
        )
