"""A plot of progress in text: dots in Braille, four rows and two columns of them a character."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


@dataclass(frozen=True)
class Plot:
    """Lines of text, and the values at the top and the bottom of them."""

    lines: tuple[str, ...]
    high: float
    low: float


def progress_plot(
    values: Sequence[float | None], best: Sequence[float | None], width: int, height: int
) -> Plot | None:
    """Values by trial as single dots, and the best so far as a line; ``None`` if there is none.

    The range is that of the best and of the middle half of the values, widened by its height on
    both sides: what learnt nothing would otherwise squeeze all else into a line.

    Args:
        values, best: one a trial, of equal length; ``None`` where there is none.
        width, height: in characters.
    """
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    quarter = len(known) // 4
    reach = known[-1 - quarter] - known[quarter]
    shown = [v for v in known if known[quarter] - reach <= v <= known[-1 - quarter] + reach]
    shown += [value for value in best if value is not None]
    low, high = min(shown), max(shown)
    trials, columns, rows = len(values), 2 * width, 4 * height
    cells = [[0] * width for _ in range(height)]

    def draw(column: int, value: float | None) -> None:
        if value is None or not low <= value <= high:
            return
        row = round((high - value) / (high - low) * (rows - 1)) if high > low else rows // 2
        cells[row // 4][column // 2] |= _DOTS[column % 2][row % 4]

    for index, value in enumerate(values):
        draw(index * columns // trials, value)
    for column in range(columns):
        # What is best at the end of the trials that share this column, or of the one that fills it.
        draw(column, best[-(-(column + 1) * trials // columns) - 1])
    lines = tuple("".join(chr(0x2800 + cell) for cell in row) for row in cells)
    return Plot(lines, high, low)
