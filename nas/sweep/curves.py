"""The curves of a sweep: how good the searches were after so many trials, and after so much work.

A line is the mean over the seeds, the band its 95 % confidence interval (Student's t). It begins
where every seed has something within the limits; a search that ended early keeps what it had.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.sweep.files import Sweep, compared
from nas.sweep.results import Box, Floats, Found, objectives_of

_POINTS = 400
_COLOURS = (
    "#30638e", "#d1495b", "#edae49", "#00798c", "#7b4b94",
    "#66a182", "#8d5b4c", "#2e4057", "#c06c84", "#9aa5b1",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A line with its band.

    Attributes:
        x: trials, or seconds of work.
        half: half the height of the band; NaN where there is one seed only.
    """

    label: str
    x: Floats
    mean: Floats
    half: Floats


@dataclass(frozen=True)
class Panel:
    """Lines that may be compared: all but one axis are fixed."""

    title: str
    over_trials: tuple[Curve, ...]
    over_seconds: tuple[Curve, ...]


def panels(sweep: Sweep, found: Sequence[Found], box: Box | None) -> list[Panel]:
    """The curves, a panel for each combination of labels of the other axes.

    With one objective they are of its best value so far, with several of the hypervolume
    (``nas.sweep.results.Box``).
    """
    axis = compared(tuple(sweep.axes))
    by_folder = {one.search.folder: one for one in found}
    gathered: dict[str, tuple[list[Curve], list[Curve]]] = {}
    for searches in sweep.cells().values():
        ended = [by_folder[one.folder] for one in searches if one.folder in by_folder]
        label = sweep.name if axis is None else searches[0].labels[axis]
        title = ", ".join(searches[0].group.values())
        trials, seconds = gathered.setdefault(title, ([], []))
        stairs = [(one, _stair(one, sweep, box)) for one in ended]
        if not stairs or not all(len(levels) for _, levels in stairs):
            continue
        # After the trials 1, 2, …: steps are numbered so.
        clocks = [np.arange(1.0, one.trials + 1) for one, _ in stairs]
        trials.append(_curve(label, stairs, clocks))
        seconds.append(_curve(label, stairs, [one.seconds for one, _ in stairs]))
    return [Panel(title, tuple(one), tuple(two)) for title, (one, two) in gathered.items()]


def _stair(one: Found, sweep: Sweep, box: Box | None) -> list[tuple[int, float]]:
    """After which trial (from 1) the search was how good."""
    objectives = objectives_of(sweep.objectives)
    if len(objectives) > 1:
        assert box is not None or not one.steps
        return [
            (trial, box.share(one.search, front)) for trial, front in one.steps if box is not None
        ]
    pick = np.max if objectives[0].direction == "maximize" else np.min
    return [(trial, float(pick(front[:, 0]))) for trial, front in one.steps]


def _curve(
    label: str, stairs: Sequence[tuple[Found, list[tuple[int, float]]]], clocks: Sequence[Floats]
) -> Curve:
    """The mean of stairs over clocks that say when each trial of a search ended."""
    rises = [
        (clock[[trial - 1 for trial, _ in levels]], np.array([level for _, level in levels]))
        for (_, levels), clock in zip(stairs, clocks, strict=True)
    ]
    start = max(float(times[0]) for times, _ in rises)
    end = max(float(clock[-1]) for clock in clocks)
    x = np.unique(np.concatenate([times[times >= start] for times, _ in rises] + [[start, end]]))
    if len(x) > _POINTS:
        x = np.linspace(start, end, _POINTS)
    levels = np.stack(
        [values[np.searchsorted(times, x, side="right") - 1] for times, values in rises]
    )
    return Curve(label, x, levels.mean(axis=0), _half(levels))


def _half(levels: Floats) -> Floats:
    """Half the 95 % confidence interval of the mean over axis 0; NaN for a single row."""
    count = len(levels)
    if count < 2:
        return np.full(levels.shape[1], np.nan)
    from scipy import stats  # type: ignore[import-untyped]  # it ships no types

    quantile = float(stats.t.ppf(0.975, count - 1))
    half: Floats = quantile * levels.std(axis=0, ddof=1) / math.sqrt(count)
    return half


def curves_png(sweep: Sweep, found: Sequence[Found], box: Box | None) -> bytes:
    """The curves as a PNG: a row for each panel, over trials left, over work right."""
    from matplotlib.figure import Figure

    drawn = panels(sweep, found, box)
    rows = max(1, len(drawn))
    figure = Figure(figsize=(10, 0.6 + 3.4 * rows), dpi=110, layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False, sharey="row")
    objectives = objectives_of(sweep.objectives)
    height = "hypervolume" if len(objectives) > 1 else f"best {objectives[0].metric} so far"
    labels = sweep.axes[axis] if (axis := compared(tuple(sweep.axes))) else (sweep.name,)
    colours = {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(labels)}
    for (left, right), panel in zip(grid, drawn, strict=False):
        for axes, curves in ((left, panel.over_trials), (right, panel.over_seconds)):
            for curve in curves:
                _draw(axes, curve, colours[curve.label])
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        left.set(xlabel="trials", ylabel=height)
        right.set(xlabel="seconds of work")
        left.set_title(panel.title, loc="left", fontsize=11)
        _zoom(left, panel)
        if panel.over_trials:
            falls = len(objectives) == 1 and objectives[0].direction == "minimize"
            left.legend(frameon=False, loc="upper right" if falls else "lower right")
        else:
            left.text(0.5, 0.5, "nothing within the limits", ha="center", transform=left.transAxes)
    seeds = sorted({len(searches) for searches in sweep.cells().values()})
    how_many = "–".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
    if seeds[-1] > 1:
        figure.supxlabel(
            f"{sweep.name}: mean over {how_many} seeds, band: its 95 % confidence interval",
            fontsize=9,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Any, curve: Curve, colour: str) -> None:
    axes.step(curve.x, curve.mean, where="post", color=colour, label=curve.label)
    if not np.isnan(curve.half).any():
        axes.fill_between(
            curve.x,
            curve.mean - curve.half,
            curve.mean + curve.half,
            step="post",
            color=colour,
            alpha=0.18,
            linewidth=0,
        )


def _zoom(axes: Any, panel: Panel) -> None:
    """Leaves out how bad the first trials were: the later half is what people compare."""
    means = [curve.mean for curve in panel.over_trials]
    if not means:
        return
    ends = [float(mean[-1]) for mean in means]
    starts = [float(mean[len(mean) // 2]) for mean in means]
    low, high = min(ends + starts), max(ends + starts)
    halves = [curve.half[-1] for curve in panel.over_trials if not math.isnan(curve.half[-1])]
    room = max([0.15 * (high - low), *halves]) or 0.01
    axes.set_ylim(low - room, high + room)
