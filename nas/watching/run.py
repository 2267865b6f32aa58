"""A run as one watches it: how it stands, whether it goes on, and what is drawn of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.config import space_from_header
from nas.errors import NasError
from nas.history import JOURNAL
from nas.report import number
from nas.space import SearchSpace, format_architecture
from nas.trial import Trial
from nas.watching.following import Following
from nas.watching.liveness import holder
from nas.watching.rate import Rate, duration
from nas.watching.textplot import progress_plot

_FRONT = 8
_PLOT_LINES = 8


class WatchedRun:
    """A run folder that another process writes.

    Args:
        folder: it may still be without a journal.
        patience_s: a run of which no process is seen counts as ended when nothing was written for
            so long.
    """

    def __init__(self, folder: Path, patience_s: float = 600.0) -> None:
        self.folder = folder
        self.patience_s = patience_s
        self.now = Following(folder)
        self.process: int | None = None
        self._rate = Rate()
        self._ran_here = False
        self._quiet = 0
        self._space: SearchSpace | None = None

    def look(self) -> None:
        """Takes in what happened since; raises ``JournalError`` for a damaged journal."""
        # Asked first: what a process writes before it ends is then in what is read below.
        self.process = holder(self.folder / JOURNAL)
        self._ran_here = self._ran_here or self.process is not None
        news = self.now.look()
        self._quiet = 0 if news else self._quiet + 1
        self._rate.saw(time.monotonic(), self.now.done, self.now.used)

    @property
    def silent_s(self) -> float | None:
        """For how long nothing was written, by the file's date; ``None`` before there is one."""
        try:
            return max(0.0, time.time() - (self.folder / JOURNAL).stat().st_mtime)
        except OSError:
            return None

    def ended(self) -> str | None:
        """Why this run has ended, in words; ``None`` while it goes on, as far as one can tell.

        Its process is seen where it runs on this machine; elsewhere, a run has ended when its
        budget is spent and nothing of it runs, or when nothing was written for too long.
        """
        if self.process is not None or self.now.header is None:
            return None
        if self.now.exhausted and (self._ran_here or self._quiet > 0):
            return "the budget is spent"
        if self._ran_here:
            return "its process has stopped"
        silent = self.silent_s
        if silent is not None and silent > self.patience_s:
            return f"no process of it is seen, and nothing was written for {duration(silent)}"
        return None

    # ------------------------------------------------------------------------ in words

    def line(self) -> str:
        """How it stands, in one line."""
        now = self.now
        if now.header is None:
            return "waiting for the run to begin"
        parts = [f"{now.done}{self._of()} done"]
        if now.flying:
            parts.append(f"{len(now.flying)} running")
        parts.append(f"{now.failed} failed")
        if now.infeasible:
            parts.append(f"{now.infeasible} infeasible")
        parts.append(self.best())
        if now.front is not None:
            parts.append(f"front {len(now.front)}")
        return " · ".join(parts)

    def _of(self) -> str:
        budget = self.now.budget
        # The journal does not say that a resumed run was given more.
        if budget is None or budget.trials is None or self.now.spent.trials > budget.trials:
            return ""
        return f" of {budget.trials}"

    def best(self) -> str:
        """The best of the first objective, in words."""
        if not self.now.objectives:
            return "no objectives"
        name = self.now.objectives[0].metric
        members = [] if self.now.front is None else self.now.front.trials()
        if not members:
            return f"best {name} –"
        return f"best {name} {number(members[0].values[name])} (#{members[0].number})"

    def pace(self) -> str:
        """How fast it goes, how long it takes yet, and when it last was heard of."""
        clock = time.monotonic()
        parts = []
        rate, left = self._rate.trials(clock), self._rate.left(clock)
        if rate:
            per = f"{rate:.1f} trials/s" if rate >= 1 else f"{60 * rate:.1f} trials/min"
            parts.append(per)
        elif self.now.done:
            parts.append(f"{self.now.spent.seconds / self.now.done:.3g} s of work a trial")
        if left is not None:
            parts.append(f"{duration(left)} left")
        silent = self.silent_s
        if silent is not None:
            parts.append(f"last written {duration(silent)} ago")
        if self.process is not None:
            parts.append(f"process {self.process} of this machine runs it")
        elif not self.now.exhausted:
            parts.append("no process of this machine runs it")
        return " · ".join(parts)

    def document(self) -> dict[str, Any]:
        """How it stands, as JSON values."""
        now = self.now
        front = [] if now.front is None else now.front.trials()
        return {
            "folder": str(self.folder),
            "space": None if now.header is None else now.header["space"],
            "objectives": [str(objective) for objective in now.objectives],
            "trials": now.done,
            "failed": now.failed,
            "infeasible": now.infeasible,
            "running": list(now.flying),
            "used": now.used,
            "spent": {
                "trials": now.spent.trials,
                "seconds": round(now.spent.seconds, 3),
                "epochs": now.spent.epochs,
            },
            "best": None if not now.best else now.best[-1],
            "front": [
                {"number": t.number, "arch": self._text(t), "values": dict(t.values)} for t in front
            ],
            "failures": {
                cause: {"times": times, "latest": now.messages[cause][1]}
                for cause, times in now.causes.most_common()
            },
            "process": self.process,
            "silent_s": self.silent_s,
            "ended": self.ended(),
        }

    # ------------------------------------------------------------------------ drawn

    def view(self, width: int, height: int = 1000) -> RenderableType:
        """All of it, for a terminal of so many columns and lines."""
        now = self.now
        if now.header is None:
            return Text(f"{self.folder}: waiting for the run to begin", style="dim")
        strategy = _name(now.header["strategy"])
        head = Text(str(self.folder), style="bold")
        head.append(f"   {strategy} on {now.header['space']}", style="dim")
        bar = ProgressBar(total=1.0, completed=now.used, width=max(10, min(40, width - 50)))
        used = Table.grid(padding=(0, 1))
        used.add_row(bar, f"{100 * now.used:.0f} % of the budget")
        parts: list[RenderableType] = [head, used, Text(self.line()), Text(self.pace(), "dim")]
        if height >= 20:
            parts += self._plot(width)
        if now.front is not None and len(now.front):
            parts.append(self._front(width))
        for cause, times in now.causes.most_common():
            trial, message = now.messages[cause]
            text = Text(f"failed, {cause}: {times} (trial {trial}: {message})", style="red")
            text.truncate(2 * width, overflow="ellipsis")
            parts.append(text)
        if now.reason is not None:
            parts.append(Text(f"infeasible: {now.infeasible} (such as: {now.reason})"))
        if now.latest:
            parts.append(_cut(Text(f"latest: {now.latest[-1]}", style="dim"), width))
        return Group(*parts)

    def _plot(self, width: int) -> list[RenderableType]:
        plot = progress_plot(self.now.values, self.now.best, max(10, width - 14), _PLOT_LINES)
        if plot is None:
            return []
        table = Table.grid(padding=(0, 1))
        table.add_column(justify="right", width=10, style="dim")
        table.add_column(no_wrap=True, style="cyan")
        labels = [number(plot.high), *[""] * (len(plot.lines) - 2), number(plot.low)]
        for label, line in zip(labels, plot.lines, strict=True):
            table.add_row(label, line)
        name = self.now.objectives[0].metric
        table.add_row("", Text(f"{name} by trial, 1 to {self.now.done}", style="dim"))
        return [table]

    def _front(self, width: int) -> Table:
        assert self.now.front is not None
        members = self.now.front.trials()
        more = f", the first {_FRONT} of {len(members)}" if len(members) > _FRONT else ""
        title = "Pareto front: " + ", ".join(map(str, self.now.objectives)) + more
        table = Table(title=title, title_style="", title_justify="left", box=None, pad_edge=False)
        heads = ["trial", *(one.metric for one in self.now.objectives)]
        rows = [
            [str(trial.number), *(number(trial.values[one.metric]) for one in self.now.objectives)]
            for trial in members[:_FRONT]
        ]
        for place, head in enumerate(heads):
            # Numbers are shown whole; what is cut is the architecture.
            widest = max(len(text) for text in [head, *(row[place] for row in rows)])
            table.add_column(head, justify="right", no_wrap=True, min_width=widest)
            width -= widest + 2
        table.add_column("architecture", no_wrap=True)
        for row, trial in zip(rows, members, strict=False):
            table.add_row(*row, _cut(Text(self._text(trial)), max(12, width)))
        return table

    def _text(self, trial: Trial) -> str:
        """An architecture as its space writes it, where that can be built here."""
        if self._space is None and self.now.header is not None:
            try:
                self._space = space_from_header(self.now.header)
            except (NasError, ImportError):  # it lives in a script
                return str(trial.arch)
        return (
            str(trial.arch) if self._space is None else format_architecture(self._space, trial.arch)
        )


def _name(description: Any) -> str:
    """A component's name, with that of the one inside it."""
    if not isinstance(description, dict):
        return str(description)
    inner = description.get("strategy")
    name = str(description.get("name", "?"))
    return name if inner is None else f"{name} around {_name(inner)}"


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text
