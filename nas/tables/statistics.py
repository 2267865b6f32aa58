"""What is in a table: the best, the mean, how much seeds and fidelities agree, the fronts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nas.tables.table import Floats, Quantity, Table

_SHOWN_EPOCHS = 8
"""At most so many fidelities are compared with the last."""


def document(table: Table) -> dict[str, Any]:
    """The statistics of a table as JSON values; fractions stay fractions."""
    return {
        "table": table.name,
        "space": dict(table.space),
        "architectures": len(table),
        "choices": len(table.labels),
        "seeds": list(table.seeds),
        "devices": {
            name: _spread(table.latency_ms[index]) for index, name in enumerate(table.devices)
        },
        "datasets": {name: _of_dataset(table, index) for index, name in enumerate(table.datasets)},
        "made": dict(table.facts),
    }


def _of_dataset(table: Table, column: int) -> dict[str, Any]:
    seconds = mean_of_runs(table.seconds_per_epoch[column])
    found: dict[str, Any] = {
        "quantities": {
            name: _of_quantity(table, quantity, column)
            for name, quantity in table.quantities.items()
        },
        "agreement": _between_quantities(table, column),
        "seconds_per_epoch": _spread(seconds),
        "counts": {name: _spread(counts[column]) for name, counts in table.counts.items()},
        "fronts": _fronts(table, column),
    }
    if table.one_training:
        epochs = max(quantity.epochs[-1] for quantity in table.quantities.values())
        hours = float(np.nansum(table.seconds_per_epoch[column])) * epochs / 3600
        found["training_hours"] = hours
    return found


def mean_of_runs(values: Floats) -> Floats:
    """The mean over axis 1 of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _of_quantity(table: Table, quantity: Quantity, column: int) -> dict[str, Any]:
    values = quantity.values[column]
    means = mean_of_runs(values)
    last = means[:, -1]
    sign = 1.0 if quantity.metric.direction == "maximize" else -1.0
    found: dict[str, Any] = {
        "unit": quantity.metric.unit,
        "direction": quantity.metric.direction,
        "epochs": list(quantity.epochs),
        "failed_trainings": int(np.isnan(values[:, :, -1]).sum()),
        **_spread(last),
    }
    if not np.isnan(last).all():
        best = int(np.nanargmax(sign * last))
        found["best"] = {
            "value": float(last[best]),
            "row": best,
            "picks": dict(table.row_picks(best)),
        }
    noise = _noise(values[:, :, -1])
    if noise:
        found["seed_noise"] = noise
    if len(quantity.epochs) > 1:
        found["with_last"] = {
            str(quantity.epochs[point]): _rank_correlations(means[:, point], last)
            for point in shown_points(len(quantity.epochs))
        }
    return found


def _noise(values: Floats) -> dict[str, float | None]:
    """How runs differ, (architectures, runs), among architectures of which none failed."""
    values = values[~np.isnan(values).any(axis=1)]
    if values.shape[1] < 2 or not len(values):
        return {}
    spread = values.std(axis=1, ddof=1)
    pairs = [
        _rank_correlations(values[:, one], values[:, other])
        for one, other in itertools.combinations(range(values.shape[1]), 2)
    ]
    return {
        "mean_std": float(spread.mean()),
        "median_std": float(np.median(spread)),
        "kendall_tau": _mean(pair["kendall_tau"] for pair in pairs),
        "spearman_rho": _mean(pair["spearman_rho"] for pair in pairs),
    }


def shown_points(count: int) -> list[int]:
    """Some points before the last, doubling: of 16 those of epochs 1, 2, 4, 8, and 15."""
    points = [2**power - 1 for power in range(_SHOWN_EPOCHS) if 2**power < count]
    return sorted({*points, count - 2})


def _between_quantities(table: Table, column: int) -> dict[str, Any]:
    """How well the last validation ranks the last test, and what choosing by it loses."""
    names = ("validation_accuracy", "test_accuracy")
    if not all(name in table.quantities for name in names):
        return {}
    validation, test = (
        mean_of_runs(table.quantities[name].values[column])[:, -1] for name in names
    )
    if np.isnan(validation).all() or np.isnan(test).all():
        return {}
    chosen = int(np.nanargmax(validation))
    return {
        **_rank_correlations(validation, test),
        "test_of_best_validation": float(test[chosen]),
        "best_test": float(np.nanmax(test)),
    }


def _fronts(table: Table, column: int) -> dict[str, int]:
    """The number of architectures on each front of two."""
    found: dict[str, int] = {}
    for name, quantity in table.quantities.items():
        if quantity.metric.unit != "fraction":
            continue
        error = 1.0 - mean_of_runs(quantity.values[column])[:, -1]
        others = {count: values[column].astype(float) for count, values in table.counts.items()}
        others |= {
            f"latency_ms on {device}": table.latency_ms[index]
            for index, device in enumerate(table.devices)
        }
        for other, values in others.items():
            found[f"1 - {name}, {other}"] = front_size(error, values)
    return found


def front_size(first: Floats, second: Floats) -> int:
    """How many points no other is better than in one and at least as good in the other.

    Both are minimised; points with a NaN are left out, equal ones count once.
    """
    points = np.unique(np.stack([first, second], axis=1), axis=0)
    size, lowest = 0, math.inf
    for _, value in points[~np.isnan(points).any(axis=1)]:
        if value < lowest:
            size, lowest = size + 1, value
    return size


def _spread(values: Sequence[float] | Floats) -> dict[str, Any]:
    array = np.asarray(values, dtype=float)
    known = array[~np.isnan(array)]
    if not known.size:
        return {"known": 0}
    return {
        "known": int(known.size),
        "lowest": float(known.min()),
        "median": float(np.median(known)),
        "mean": float(known.mean()),
        "highest": float(known.max()),
    }


def _rank_correlations(one: Floats, other: Floats) -> dict[str, float | None]:
    from scipy import stats  # type: ignore[import-untyped]  # it ships no types

    known = ~(np.isnan(one) | np.isnan(other))
    one, other = one[known], other[known]
    if len(one) < 2 or (one == one[0]).all() or (other == other[0]).all():
        return {"kendall_tau": None, "spearman_rho": None}
    return {
        "kendall_tau": float(stats.kendalltau(one, other).statistic),
        "spearman_rho": float(stats.spearmanr(one, other).statistic),
    }


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
