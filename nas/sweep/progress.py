"""What a sweep shows while it runs: a line for each search that runs, and how many there are."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nas.sweep.files import Sweep, SweepSearch
from nas.sweep.following import Following

_LINE_EVERY_S = 5.0
_LINES = 20


class Show:
    """A ``nas.sweep.running.Watcher`` on a console, to be entered as a context.

    On a terminal a bar for the sweep, and below it one for each search that runs (twenty of them
    at most). Elsewhere a line when a search ends, and the totals every few seconds.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.searches = self.done = self.failed = 0
        self._running: dict[str, tuple[SweepSearch, Following, TaskID]] = {}
        self._printed = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._total = self._progress.add_task("", total=1.0, state="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self.searches:
            self.console.print(self.line(), markup=False)

    def begin(self, sweep: Sweep, done: int) -> None:
        self.searches, self.done = len(sweep.searches), done
        self._progress.update(self._total, description=sweep.name, total=max(1, self.searches))
        self.looked()

    def started(self, one: SweepSearch, following: Following) -> None:
        task = self._progress.add_task(one.name, total=1.0, state="")
        self._running[one.folder] = (one, following, task)
        self.looked()

    def looked(self) -> None:
        for place, (_, following, task) in enumerate(self._running.values()):
            self._progress.update(
                task, completed=following.used, state=_state(following), visible=place < _LINES
            )
        part = sum(following.used for _, following, _ in self._running.values())
        self._progress.update(
            self._total, completed=self.done + self.failed + part, state=self.line()
        )
        if not self.console.is_terminal and time.monotonic() - self._printed > _LINE_EVERY_S:
            self._print(self.line())

    def ended(self, one: SweepSearch, error: str | None) -> None:
        _, following, task = self._running.pop(one.folder)
        following.look()
        self._progress.remove_task(task)
        if error is None:
            self.done += 1
        else:
            self.failed += 1
        if error is not None:
            self._print(f"failed: {one.name}: {error}")
        elif not self.console.is_terminal:
            self._print(f"done: {one.name}: {_state(following)}")
        self.looked()

    def line(self) -> str:
        """The totals."""
        running = len(self._running)
        waiting = self.searches - self.done - self.failed - running
        return (
            f"{self.done} of {self.searches} searches done · {running} running · "
            f"{waiting} waiting · {self.failed} failed"
        )

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._printed = time.monotonic()


def _state(following: Following) -> str:
    best = "–" if following.best is None else f"{following.best:.4g}"
    failed = f" · {following.failed} failed" if following.failed else ""
    return f"{following.trials} trials{failed} · best {following.objectives[0].metric} {best}"
