"""A surrogate's predictions against measurements, and its calibration, as a PNG."""

from __future__ import annotations

import io

import numpy as np

from nas.predictor.protocol import Floats, Prediction
from nas.predictor.validation import Agreement

_INK = "#30638e"


def agreement_png(
    said: Prediction, values: Floats, found: Agreement, metric: str, title: str
) -> bytes:
    """Predictions with their deviations against what was measured; beside it the coverage.

    Args:
        said, values: in the metric's unit.
        found: of the two.
        title: what the rows are.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.errorbar(
        values, said.mean, yerr=said.std, fmt=".", color=_INK, ecolor="#b9cbdb", elinewidth=0.6
    )
    # The line of agreement; the view is that of the measurements, deviations may leave it.
    ends = np.array([values.min(), values.max()])
    left.plot(ends, ends, color="#888888", linewidth=0.8)
    margin = 0.05 * float(np.ptp(values)) or 1.0
    together = np.concatenate([values, said.mean])
    left.set_ylim(together.min() - margin, together.max() + margin)
    left.set(xlabel=f"{metric}, measured", ylabel=f"{metric}, predicted ± deviation")
    left.set_title(
        f"{found.count} {title}: Kendall τ {found.kendall:.3f} "
        f"({found.kendall_low:.3f} … {found.kendall_high:.3f})",
        fontsize=10,
    )
    levels = [float(level) for level in found.coverage]
    right.plot([0, 1], [0, 1], color="#888888", linewidth=0.8)
    right.plot(levels, list(found.coverage.values()), "o-", color=_INK)
    right.set(
        xlabel="share that an interval should hold",
        ylabel="share it holds",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    right.set_title("calibration", fontsize=10)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
