"""A sweep as one watches it: the totals, and a line a search."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.errors import JournalError
from nas.sweep.files import Sweep, SweepSearch, is_done, read_sweep
from nas.watching.liveness import holder
from nas.watching.rate import Rate, duration
from nas.watching.run import WatchedRun

_LOCK = "sweep.lock"


class WatchedSweep:
    """A sweep's folder that another process writes.

    Args:
        folder: with its ``sweep.json``.
        patience_s: a sweep of which no process is seen counts as ended when none of its searches
            wrote anything for so long.

    Raises:
        DataError: ``sweep.json`` is damaged.
    """

    def __init__(self, folder: Path, patience_s: float = 600.0) -> None:
        self.folder = folder
        self.patience_s = patience_s
        self.sweep: Sweep = read_sweep(folder)
        self.runs = {
            one.folder: WatchedRun(folder / one.folder, patience_s) for one in self.sweep.searches
        }
        self.process: int | None = None
        self._ran_here = False
        self._done: set[str] = set()
        self._broken: dict[str, str] = {}
        self._rate = Rate()

    def look(self) -> None:
        """Takes in what happened since."""
        self.process = holder(self.folder / _LOCK)
        self._ran_here = self._ran_here or self.process is not None
        for one in self.sweep.searches:
            if one.folder in self._done or one.folder in self._broken:
                continue
            done = is_done(self.folder / one.folder, one.config)
            try:
                self.runs[one.folder].look()
            except JournalError as error:  # the others go on
                self._broken[one.folder] = str(error)
            if done:
                self._done.add(one.folder)
        trials = sum(run.now.done for run in self.runs.values())
        self._rate.saw(time.monotonic(), trials, self.used)

    @property
    def used(self) -> float:
        """The share of all searches' budgets that is spent."""
        shares = [
            1.0 if one.folder in self._done else self.runs[one.folder].now.used
            for one in self.sweep.searches
        ]
        return sum(shares) / max(1, len(shares))

    def state(self, one: SweepSearch) -> str:
        """``done``, ``running``, ``waiting``, ``stopped`` or ``damaged``."""
        if one.folder in self._broken:
            return "damaged"
        if one.folder in self._done:
            return "done"
        run = self.runs[one.folder]
        if run.now.header is None:
            return "waiting"
        silent = run.silent_s
        heard = silent is not None and silent <= self.patience_s
        return "running" if run.process is not None or (heard and not run.ended()) else "stopped"

    def ended(self) -> str | None:
        """Why this sweep has ended, in words; ``None`` while it goes on, as far as one can tell."""
        if self.process is not None:
            return None
        states = Counter(self.state(one) for one in self.sweep.searches)
        if states["done"] == len(self.sweep.searches):
            return "all its searches are done"
        if self._ran_here:
            return "its process has stopped"
        silent = [s for run in self.runs.values() if (s := run.silent_s) is not None]
        if silent and not states["running"] and min(silent) > self.patience_s:
            quiet = duration(min(silent))
            return f"no process of it is seen, and nothing was written for {quiet}"
        return None

    def line(self) -> str:
        """The totals."""
        states = Counter(self.state(one) for one in self.sweep.searches)
        parts = [f"{states['done']} of {len(self.sweep.searches)} searches done"]
        parts += [
            f"{states[state]} {state}"
            for state in ("running", "waiting", "stopped", "damaged")
            if states[state]
        ]
        runs = [run.now for run in self.runs.values()]
        parts.append(f"{sum(now.done for now in runs)} trials")
        parts.append(f"{sum(now.failed for now in runs)} failed")
        left = self._rate.left(time.monotonic())
        if left is not None:
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)

    def document(self) -> dict[str, Any]:
        """How it stands, as JSON values."""
        return {
            "folder": str(self.folder),
            "name": self.sweep.name,
            "used": self.used,
            "process": self.process,
            "ended": self.ended(),
            "searches": [
                {
                    "labels": dict(one.labels),
                    "state": self.state(one),
                    **self.runs[one.folder].document(),
                }
                for one in self.sweep.searches
            ],
        }

    def view(self, width: int, height: int = 1000) -> RenderableType:
        """All of it, for a terminal of so many columns and lines; what runs comes first."""
        head = Text(str(self.folder), style="bold")
        head.append(f"   sweep {self.sweep.name}", style="dim")
        used = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=self.used, width=max(10, min(40, width - 50)))
        used.add_row(bar, f"{100 * self.used:.0f} % of the budgets")
        table = Table(box=None, pad_edge=False)
        for column in ("search", "state", "budget", "", ""):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        order = ("running", "damaged", "stopped", "waiting", "done")
        searches = sorted(self.sweep.searches, key=lambda one: order.index(self.state(one)))
        room = max(3, height - 6)
        for one in searches[:room]:
            run, state = self.runs[one.folder], self.state(one)
            share = 1.0 if state == "done" else run.now.used
            failed = f"{run.now.failed} failed" if run.now.failed else ""
            what = self._broken.get(one.folder) or (run.best() if run.now.header else "")
            table.add_row(Text(one.name), state, f"{100 * share:3.0f} %", Text(what), failed)
        parts: list[RenderableType] = [head, used, Text(self.line()), table]
        if len(searches) > room:
            parts.append(Text(f"and {len(searches) - room} more", style="dim"))
        causes: Counter[str] = Counter()
        for run in self.runs.values():
            causes += run.now.causes
        for cause, times in causes.most_common():
            parts.append(Text(f"failed, {cause}: {times}", style="red"))
        return Group(*parts)
