"""A picture of a family: accuracy over cost."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.specialize.family import Specialized


def family_png(networks: Sequence[Specialized]) -> bytes:
    """Every network's test accuracy over the first one's limited cost, with the limits, as a PNG.

    Held-out accuracy where there is no test set; fine-tuned networks have an arrow from before.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, PercentFormatter

    metric = networks[0].limits.values[0][0]
    tested = networks[0].test_accuracy is not None
    before = [one.accuracy if one.test_accuracy is None else one.test_accuracy for one in networks]
    after = [
        y if one.fine_tuned is None else one.fine_tuned
        for one, y in zip(networks, before, strict=True)
    ]
    x = [one.costs[metric] for one in networks]
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for one in networks:
        limit = dict(one.limits.values).get(metric)
        if limit is not None:
            axes.axvline(limit, color="#30638e", linestyle="--", linewidth=0.8, alpha=0.6)
    order = sorted(range(len(networks)), key=lambda i: x[i])
    if after != before:
        axes.plot(x, before, "o", color="#9aa5b1", label="inherited weights")
        for i in order:
            arrow = {"arrowstyle": "->", "color": "#9aa5b1"}
            axes.annotate("", (x[i], after[i]), (x[i], before[i]), arrowprops=arrow)
    label = "fine-tuned" if after != before else "inherited weights"
    axes.plot([x[i] for i in order], [after[i] for i in order], "o-", color="#d1495b", label=label)
    for i in order:
        axes.annotate(
            f"{after[i]:.1%}",
            (x[i], after[i]),
            textcoords="offset points",
            xytext=(5, -11),
            fontsize=8,
        )
    axes.set(
        xlabel=f"{metric} (dashed: limits)", ylabel=f"{'test' if tested else 'held-out'} accuracy"
    )
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.margins(x=0.1, y=0.15)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
