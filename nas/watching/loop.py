"""Looking again and again, and showing it: live on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

_LINE_EVERY_S = 5.0


class Watched(Protocol):
    """What can be watched: a run, or a sweep."""

    def look(self) -> None: ...

    def ended(self) -> str | None: ...

    def line(self) -> str: ...

    def view(self, width: int, height: int) -> RenderableType: ...


def follow(watched: Watched, console: Console, every_s: float = 1.0) -> str:
    """Shows how it goes until it ends; returns why it did. ``KeyboardInterrupt`` passes through.

    Args:
        every_s: how long to wait between two looks.

    Raises:
        JournalError: a journal is damaged.
    """
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                watched.look()
                live.update(watched.view(console.width, console.height), refresh=True)
                if (why := watched.ended()) is not None:
                    return why
                time.sleep(every_s)
    shown, at = "", -_LINE_EVERY_S
    while True:
        watched.look()
        why, line, now = watched.ended(), watched.line(), time.monotonic()
        if line != shown and (why is not None or now - at >= _LINE_EVERY_S):
            console.print(line, markup=False, highlight=False)
            shown, at = line, now
        if why is not None:
            return why
        time.sleep(every_s)
