"""Looking architectures up in a table of trained ones: a tabular benchmark.

What training would have measured and cost is read instead, in some tens of microseconds: the
compact tables of ``nas bench make`` (one of which, ``digits``, comes with the package), and
NAS-Bench-201's published values (Dong & Yang, ICLR 2020; layout in ``nas.tables.nasbench201``).

The seconds of a trial are simulated: what the table says that training so many epochs took. In a
compact table all points of a curve lie on one training, whose learning rate falls over all of its
epochs: a trial of few epochs is its beginning, and a continued one costs what is added.
NAS-Bench-201's 12 and 200 epochs are trainings of their own, so nothing is saved by continuing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from nas.architecture import Architecture
from nas.budget import Cost
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.objective import Metric
from nas.space import SearchSpace, validate
from nas.tables import Quantity, Table, load
from nas.tables.table import Floats
from nas.trial import Fidelity, Infeasible, Measured, Proposal, Trial

DEFAULT_REPORT = {"accuracy": "validation_accuracy", "loss": "validation_loss"}


class TabularEvaluator:
    """Measures by looking up: accuracy, parameters, MACs, latency, and what training had cost.

    Metrics: those of ``report``; ``error`` (1 − accuracy) where it names ``accuracy``;
    ``parameters`` and ``macs`` (minimised, counts); ``latency_ms`` on ``device`` where one is
    given (minimised). Sizes and costs are the table's, whatever network sizes the space was made
    with. A training that failed when the table was made fails here too.

    Args:
        space: one whose choices are the table's; it may have fewer options.
        table: a file, or the name of a table that comes with the package (``digits``).
        dataset: the table's column; needed where it has several.
        epochs: the fidelity where a proposal leaves it open; by default the most for which all
            that is reported is known. ``Fidelity.epochs`` takes any that the table has: each of
            1 … 16, say, or 12 and 200.
        report: the metric's name → the table's quantity (``validation_accuracy``,
            ``test_accuracy``, ``validation_loss``, …). By default the validation accuracy, and
            the validation loss where the table has it.
        device: where the latency was measured. An architecture without one there (of
            NAS-Bench-201 a cell that leads nowhere: its measurements are no network's) is
            infeasible then.
        runs: ``mean`` over those that did not fail; or ``seed``: the proposal's seed picks one.

    Raises:
        ConfigError: there is no such table, column, quantity, device or number of epochs (the
            message names the nearest), or the space is not the table's.
        DataError: the file is damaged; see ``nas.tables.load``.
    """

    def __init__(
        self,
        space: SearchSpace,
        table: str,
        dataset: str | None = None,
        epochs: int | None = None,
        report: dict[str, str] | None = None,
        device: str | None = None,
        runs: Literal["mean", "seed"] = "mean",
    ) -> None:
        if runs not in ("mean", "seed"):
            raise ConfigError(f"runs must be 'mean' or 'seed', got {runs!r}")
        self.space = space
        self.table = str(table)
        self.dataset = dataset
        self.epochs = epochs
        self.report = report
        self.device = device
        self.runs = runs
        found = load(self.table)
        column = _column(found, dataset)
        self._quantities = _reported(found, report)
        self._epochs = _default_epochs(found, self._quantities, epochs)
        self._one_training = found.one_training
        seconds = found.seconds_per_epoch[column]
        self._values = {name: q.values[column] for name, q in self._quantities.items()}
        if runs == "mean":
            seconds = _mean_of_runs(seconds)
            self._values = {name: _mean_of_runs(v) for name, v in self._values.items()}
        self._seconds = seconds
        self._runs = seconds.shape[1]
        self._counts = {name: counts[column] for name, counts in found.counts.items()}
        self._latency = None if device is None else found.latency_ms[found.device(device)]
        self._points = {
            e: {name: q.epochs.index(e) for name, q in self._quantities.items()}
            for e in _common_epochs(self._quantities)
        }
        self._rows = {picks: row for row, picks in found.rows(space)}
        self.metrics = self._declared()

    def _declared(self) -> tuple[Metric, ...]:
        metrics = [
            Metric(name, quantity.metric.unit, quantity.metric.direction)
            for name, quantity in self._quantities.items()
        ]
        if "accuracy" in self._quantities:
            metrics.append(Metric("error", "fraction", "minimize"))
        metrics += [Metric(name, "count", "minimize") for name in self._counts]
        if self.device is not None:
            metrics.append(Metric("latency_ms", "ms", "minimize"))
        return tuple(metrics)

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        """Looks a proposal up.

        Raises:
            InvalidArchitecture: it is not one of the space.
            DataError: the table does not hold it.
            UnsupportedRequest: the fidelity has epochs that the table does not know (the message
                names the nearest), or asks for part of the data, a resolution or a size.
            NotFinite: its training failed when the table was made.
        """
        return self._looked_up(proposal, 0)

    def evaluate_from(self, proposal: Proposal, earlier: Trial) -> Measured | Infeasible:
        """The same, at the cost of the epochs that come on top of an earlier trial's.

        Where that is not the same training (the table's points are trainings of their own, or
        another seed picks another run) it costs all epochs; the note ``restarted`` says why.
        """
        if earlier.arch != proposal.arch:
            raise ConfigError(
                f"{proposal.arch} cannot continue trial {earlier.number}, which is of "
                f"{earlier.arch}"
            )
        done = int(self.planned_epochs(earlier.proposal.fidelity))
        reason = ""
        if not self._one_training:
            reason = "each number of epochs is a training of its own"
        elif self.runs == "seed" and proposal.seed != earlier.proposal.seed:
            reason = f"trial {earlier.number} had another seed"
        elif done >= self.planned_epochs(proposal.fidelity):
            reason = f"trial {earlier.number} was trained for {done} epochs already"
        outcome = self._looked_up(proposal, 0 if reason else done)
        if reason and isinstance(outcome, Measured):
            return replace(outcome, notes={"restarted": reason})
        return outcome

    def _looked_up(self, proposal: Proposal, done: int) -> Measured | Infeasible:
        row = self._row(proposal.arch)
        epochs, points = self._filled(proposal.fidelity)
        latency = 0.0 if self._latency is None else self._latency.item(row)
        counts = {name: counts.item(row) for name, counts in self._counts.items()}
        if math.isnan(latency):
            return Infeasible(f"the table has no latency of it on {self.device!r}", counts)
        run = proposal.seed % self._runs
        values: dict[str, float] = {
            name: self._values[name].item(row, run, point) for name, point in points.items()
        }
        if "accuracy" in values:
            values["error"] = 1.0 - values["accuracy"]
        values |= counts
        if self._latency is not None:
            values["latency_ms"] = latency
        measured = Measured(values)  # a failed training's NaN is refused here, its seconds too
        trained = epochs - done
        return replace(measured, cost=Cost(0, self._seconds.item(row, run) * trained, trained))

    def preview(self, arch: Architecture) -> Mapping[str, float]:
        row = self._row(arch)
        known = {name: float(counts.item(row)) for name, counts in self._counts.items()}
        if self._latency is not None and not math.isnan(self._latency.item(row)):
            known["latency_ms"] = self._latency.item(row)
        return known

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return float(self._epochs if fidelity.epochs is None else fidelity.epochs)

    def planned_epochs_from(self, fidelity: Fidelity, earlier: Fidelity) -> float:
        whole = self.planned_epochs(fidelity)
        if not self._one_training:
            return whole
        # Another run of the same trial, or nothing to add, is charged in full: see above.
        return max(0.0, whole - self.planned_epochs(earlier)) or whole

    def _row(self, arch: Architecture) -> int:
        row = self._rows.get(arch.picks)
        if row is None or arch.space != self.space.name:
            validate(self.space, arch)
            raise DataError(f"{self.table} does not hold {arch}")
        return row

    def _filled(self, asked: Fidelity) -> tuple[int, Mapping[str, int]]:
        others = (asked.resolution, asked.channels, asked.cells)
        if others != (None, None, None) or asked.data_fraction not in (None, 1.0):
            raise UnsupportedRequest(
                f"{self.table} knows trainings on all data at one resolution and of one size, "
                f"asked for {asked}"
            )
        epochs = self._epochs if asked.epochs is None else asked.epochs
        points = self._points.get(epochs)
        if points is None:
            raise UnsupportedRequest(_no_epochs(self.table, epochs, list(self._points)))
        return epochs, points


def _column(table: Table, dataset: str | None) -> int:
    if dataset is not None:
        return table.dataset(dataset)
    if len(table.datasets) > 1:
        raise ConfigError(
            f"{table.name} has several data sets: set dataset to one of {', '.join(table.datasets)}"
        )
    return 0


def _reported(table: Table, report: Mapping[str, str] | None) -> dict[str, Quantity]:
    """The quantities by the names of the metrics they are reported as."""
    if report is None:
        report = {k: v for k, v in DEFAULT_REPORT.items() if v in table.quantities}
        epochs = [set(table.quantities[name].epochs) for name in report.values()]
        if not epochs or not set.intersection(*epochs):
            raise ConfigError(
                f"{table.name} has no {' and '.join(DEFAULT_REPORT.values())}: set report to some "
                f"of {', '.join(table.quantities)}"
            )
    if not report:
        raise ConfigError("report names no metric: expected one at least, as in accuracy")
    taken = {"error", "latency_ms", *table.counts}
    for name in report:
        if name in taken:
            raise ConfigError(f"report: a metric cannot be named {name!r}: it has a meaning")
    return {name: table.quantity(quantity) for name, quantity in report.items()}


def _common_epochs(quantities: Mapping[str, Quantity]) -> list[int]:
    return sorted(set.intersection(*(set(q.epochs) for q in quantities.values())))


def _default_epochs(table: Table, quantities: Mapping[str, Quantity], epochs: int | None) -> int:
    common = _common_epochs(quantities)
    if not common:
        known = "; ".join(
            f"{q.metric.name} after {', '.join(map(str, q.epochs))}" for q in quantities.values()
        )
        raise ConfigError(f"{table.name}: what is reported shares no number of epochs: {known}")
    if epochs is not None and epochs not in common:
        raise ConfigError(_no_epochs(table.name, epochs, common))
    return common[-1] if epochs is None else epochs


def _no_epochs(table: str, epochs: int, known: list[int]) -> str:
    closest = min(known, key=lambda one: abs(one - epochs))
    return (
        f"{table} knows nothing after {epochs} epochs; the nearest is {closest} "
        f"(there are: {', '.join(map(str, known))})"
    )


def _mean_of_runs(values: Floats) -> Floats:
    """The mean over axis 1, kept as an axis, of what is not NaN; NaN where nothing else is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nanmean of nothing
        mean: Any = np.nanmean(values, axis=1, keepdims=True)
    return mean  # type: ignore[no-any-return]  # numpy's stubs lose the type
