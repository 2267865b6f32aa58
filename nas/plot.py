"""Pictures of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from nas.history import History
from nas.objective import Objective


def front_png(history: History, objectives: Sequence[Objective]) -> bytes:
    """The measured trials and their Pareto front, as a PNG.

    Two objectives are the axes, cost below quality; of more the first two are drawn, and with
    one its progress over the trials.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    first = objectives[0]
    names = {objective.metric for objective in objectives}
    measured = [trial for trial in history.trials if names <= set(trial.values)]
    front = history.front(objectives)
    if len(objectives) == 1:
        values = [trial.values[first.metric] for trial in measured]
        axes.plot([t.number for t in measured], values, ".", color="#9aa5b1", label="trials")
        best: list[float] = []
        for value in values:
            best.append(value if not best or first.better(value, best[-1]) else best[-1])
        axes.step([t.number for t in measured], best, where="post", color="#d1495b", label="best")
        axes.set(xlabel="trial", ylabel=first.metric)
    else:
        second = objectives[1]
        cost, quality = (first, second) if first.direction == "minimize" else (second, first)
        x, y = cost.metric, quality.metric
        shown = _without_outliers([t.values[y] for t in measured], [t.values[y] for t in front])
        outside = sum(not shown[0] <= t.values[y] <= shown[1] for t in measured)
        axes.plot(
            [t.values[x] for t in measured],
            [t.values[y] for t in measured],
            ".",
            color="#9aa5b1",
            label=f"{len(measured)} trials" + (f" ({outside} outside)" if outside else ""),
        )
        ordered = sorted(front, key=lambda trial: trial.values[x])
        # Steps, because between two of its members the front promises no more than the cheaper.
        axes.step(
            [t.values[x] for t in ordered],
            [t.values[y] for t in ordered],
            "o-",
            where="post",
            color="#d1495b",
            label=f"Pareto front ({len(ordered)})",
        )
        for trial in ordered:
            axes.annotate(
                f"#{trial.number}",
                (trial.values[x], trial.values[y]),
                textcoords="offset points",
                xytext=(5, -11),
                fontsize=8,
            )
        for objective, line in ((cost, axes.axvline), (quality, axes.axhline)):
            if objective.limit is not None:
                line(objective.limit, color="#30638e", linestyle="--", linewidth=1)
        margin = 0.08 * (shown[1] - shown[0]) or 0.01
        axes.set(xlabel=x, ylabel=y, ylim=(shown[0] - margin, shown[1] + margin))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.08)
    if measured:
        axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _without_outliers(values: Sequence[float], needed: Sequence[float]) -> tuple[float, float]:
    """The range worth drawing: three quartile ranges around the middle half, and the front.

    One network that learnt nothing would otherwise squeeze all others into a line.
    """
    if not values:
        return 0.0, 1.0
    low, high = (float(quartile) for quartile in np.percentile(values, (25, 75)))
    reach = 3 * (high - low)
    kept = [value for value in values if low - reach <= value <= high + reach]
    return min([*kept, *needed]), max([*kept, *needed])
