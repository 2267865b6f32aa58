"""What surrogates are fitted on: architectures and one measurement of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.architecture import Architecture
from nas.errors import ConfigError, NasError, nearest
from nas.history import History, objectives_of
from nas.objective import Direction, Metric
from nas.predictor.protocol import Floats
from nas.space import SearchSpace, validate
from nas.tables import Table
from nas.trial import STOPPED, Measured

_ALIASES = {"accuracy": "validation_accuracy", "loss": "validation_loss"}


@dataclass(frozen=True, eq=False)
class Measurements:
    """Architectures of one space, and what one metric was for each.

    Each architecture is there once and in an order that does not depend on how they came.

    Attributes:
        values: in the metric's unit.
        source: where they are from, in words.
    """

    space: SearchSpace
    archs: tuple[Architecture, ...]
    values: Floats
    metric: Metric
    source: str

    def some(self, count: int, seed: int = 0) -> Measurements:
        """So many of them, drawn at random; all where there are no more."""
        if count < 1:
            raise ConfigError(f"rows must be at least 1, got {count}")
        rng = np.random.default_rng(seed)
        kept = np.sort(rng.permutation(len(self.archs))[:count])
        return Measurements(
            self.space,
            tuple(self.archs[row] for row in kept),
            self.values[kept],
            self.metric,
            self.source,
        )


def from_pairs(
    space: SearchSpace,
    pairs: Iterable[tuple[Architecture, float]],
    metric: Metric,
    source: str = "pairs",
) -> Measurements:
    """Architectures with their values; of one that comes several times, the mean.

    Raises:
        InvalidArchitecture: one is not of the space.
        ConfigError: there is none, or a value is not finite.
    """
    found: dict[Architecture, list[float]] = {}
    for arch, value in pairs:
        if arch not in found:
            validate(space, arch)
        if not np.isfinite(value):
            raise ConfigError(f"{source}: {metric.name} of {arch} is {value}, expected a number")
        found.setdefault(arch, []).append(float(value))
    if not found:
        raise ConfigError(f"{source}: no architecture has a measured {metric.name!r}")
    archs = sorted(found, key=Architecture.to_json)
    # Sorted before they are added up: the sum is then the same in whatever order they came.
    values = np.array([np.mean(sorted(found[arch])) for arch in archs])
    return Measurements(space, tuple(archs), values, metric, source)


def from_history(
    history: History, space: SearchSpace, metric: str, epochs: int | None = None
) -> Measurements:
    """The measured trials of a run, but those that were given up before their fidelity.

    Args:
        metric: one of those that its trials measured. Where it is none of the run's objectives,
            costs, losses and errors are minimised by their names, and all else is maximised.
        epochs: only trials that were asked for so many.

    Raises:
        NasError: no trial measured it, or trials of several fidelities did and ``epochs`` does
            not say which: values of short and long trainings are not those of one function.
    """
    source = str(history.folder or "history")
    measured = [
        trial
        for trial in history.trials
        if isinstance(trial.outcome, Measured) and STOPPED not in trial.notes
    ]
    has = [trial for trial in measured if metric in trial.values]
    if not has:
        names = dict.fromkeys(name for trial in measured for name in trial.values)
        raise NasError(f"{source}: no trial measured {metric!r}: {nearest(metric, names)}")
    if epochs is not None:
        known = sorted({trial.proposal.fidelity.epochs or 0 for trial in has} - {0})
        has = [trial for trial in has if trial.proposal.fidelity.epochs == epochs]
        if not has:
            raise NasError(
                f"{source}: no trial was asked for {epochs} epochs; there are: "
                f"{', '.join(map(str, known)) or 'trials that leave it open'}"
            )
    counts: dict[object, int] = {}
    for trial in has:
        counts[trial.proposal.fidelity] = counts.get(trial.proposal.fidelity, 0) + 1
    if len(counts) > 1:
        listed = ", ".join(f"{count} of {fidelity}" for fidelity, count in counts.items())
        raise NasError(
            f"{source}: {metric!r} was measured at several fidelities ({listed}); say which with "
            "epochs: a surrogate is fitted on one"
        )
    direction: Direction = "minimize" if _is_cost(metric) else "maximize"
    for document in objectives_of(history.header or {}):
        if isinstance(document, dict) and metric in document.values():
            direction = "minimize" if document.get("minimize") == metric else "maximize"
    declared = Metric(metric, _unit(metric), direction)
    return from_pairs(space, [(t.arch, t.values[metric]) for t in has], declared, source)


def from_table(
    table: Table,
    space: SearchSpace,
    metric: str,
    dataset: str | None = None,
    epochs: int | None = None,
    device: str | None = None,
) -> Measurements:
    """The rows of a table that are of a space; those without a value are left out.

    Args:
        metric: a quantity of the table (``accuracy`` is its ``validation_accuracy``), a count
            (``parameters``, ``macs``), or ``latency_ms``. Of several runs, the mean.
        dataset: the table's column; needed where it has several.
        epochs: after how many; by default the most that the quantity is known for.
        device: whose latency.

    Raises:
        ConfigError: there is no such quantity, column, device or number of epochs, or the space
            is not the table's.
    """
    if dataset is None and len(table.datasets) > 1:
        raise ConfigError(
            f"{table.name} has several data sets: say which of {', '.join(table.datasets)}"
        )
    column = 0 if dataset is None else table.dataset(dataset)
    quantity = table.quantities.get(metric) or table.quantities.get(_ALIASES.get(metric, ""))
    source = " ".join(filter(None, [Path(table.name).name, dataset]))
    if quantity is not None:
        known = quantity.epochs[-1] if epochs is None else epochs
        each = quantity.values[column, :, :, quantity.point(known, table.name)]
        there = np.isfinite(each)
        sums = np.where(there, each, 0.0).sum(axis=1)
        values = np.where(there.any(axis=1), sums / np.maximum(there.sum(axis=1), 1), np.nan)
        declared = Metric(metric, quantity.metric.unit, quantity.metric.direction)
        source += f" after {known} epochs"
    elif metric == "latency_ms":
        if device is None:
            raise ConfigError(f"latency_ms: say on which device of {', '.join(table.devices)}")
        values = table.latency_ms[table.device(device)]
        declared, source = Metric(metric, "ms", "minimize"), f"{source} on {device}"
    elif metric in table.counts:
        values = table.counts[metric][column].astype(np.float64)
        declared = Metric(metric, "count", "minimize")
    else:
        aliases = [name for name, meant in _ALIASES.items() if meant in table.quantities]
        latency = ["latency_ms"] if table.devices else []
        names = [*aliases, *table.quantities, *table.counts, *latency]
        raise ConfigError(f"{table.name} has no {metric!r}: {nearest(metric, names)}")
    pairs = [
        (Architecture(space.name, picks), float(values[row]))
        for row, picks in table.rows(space)
        if np.isfinite(values[row])
    ]
    return from_pairs(space, pairs, declared, source)


def _is_cost(metric: str) -> bool:
    names = ("macs", "parameters")
    return metric in names or metric.endswith(("loss", "error", "_ms", "_mj", "_bytes"))


def _unit(metric: str) -> str:
    if metric.endswith("_ms"):
        return "ms"
    return "fraction" if metric.endswith(("accuracy", "error")) else ""
