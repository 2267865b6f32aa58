"""How fast a run goes, by what is seen of it: a journal holds no times of day."""

from __future__ import annotations

from collections import deque

_WINDOW_S = 600.0


class Rate:
    """Trials and the share of the budget a second, over the last ten minutes that were watched."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, float]] = deque()

    def saw(self, now: float, done: int, used: float) -> None:
        """Notes how far it is.

        Args:
            now: seconds of a clock that never goes back.
        """
        if self._seen and (done, used) == self._seen[-1][1:]:
            return
        self._seen.append((now, done, used))
        while now - self._seen[0][0] > _WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()

    def trials(self, now: float) -> float | None:
        """Trials a second; ``None`` before two looks differed."""
        if len(self._seen) < 2:
            return None
        return (self._seen[-1][1] - self._seen[0][1]) / max(1e-9, now - self._seen[0][0])

    def left(self, now: float) -> float | None:
        """Seconds until the budget is spent; ``None`` where that cannot be said."""
        if len(self._seen) < 2:
            return None
        (start, _, first), (_, _, last) = self._seen[0], self._seen[-1]
        gained = last - first
        if gained <= 0 or last >= 1:
            return None
        return max(
            0.0, (1 - last) / gained * (self._seen[-1][0] - start) - (now - self._seen[-1][0])
        )


def duration(seconds: float) -> str:
    """Seconds for people: ``8 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
