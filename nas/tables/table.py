"""A table of trained architectures in memory: what a tabular benchmark is made of.

Every architecture of a space, on one or more data sets, trained with one or more seeds: how good
it was after which epochs, what an epoch took, its parameters, MACs and latencies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Scalar
from nas.errors import ConfigError, DataError, nearest
from nas.objective import Metric
from nas.space import SearchSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Quantity:
    """One measured quantity of every architecture.

    Attributes:
        metric: its name, unit and direction.
        epochs: after how many epochs each point was measured, rising.
        values: (data sets, architectures, runs, points); NaN where a training failed.
    """

    metric: Metric
    epochs: tuple[int, ...]
    values: Floats

    def point(self, epochs: int, where: str) -> int:
        """The position of a number of epochs; ``ConfigError`` naming the nearest there is."""
        if epochs not in self.epochs:
            closest = min(self.epochs, key=lambda known: abs(known - epochs))
            known = ", ".join(map(str, self.epochs))
            raise ConfigError(
                f"{where}: {self.metric.name} is not known after {epochs} epochs; the nearest is "
                f"after {closest} (there are: {known})"
            )
        return self.epochs.index(epochs)


@dataclass(frozen=True, eq=False)
class Table:
    """Every architecture of a space, trained and measured.

    Attributes:
        name: for messages.
        space: the space's description (``nas.components.describe``); empty where it is not known.
        labels, options: of the space's choices, in order.
        picks: (architectures, choices), positions in ``options``; -1 where a choice is inactive.
        datasets: their names.
        seeds: of the runs; empty where the values are means over runs.
        quantities: by name.
        seconds_per_epoch: of training, (data sets, architectures, runs); NaN where it failed.
        counts: ``parameters`` and ``macs``: (data sets, architectures).
        devices: what latencies were measured on.
        latency_ms: (devices, architectures); NaN where there is none.
        one_training: whether the points of a quantity lie on one training, so that a later one is
            reached from an earlier one; else each is the end of a training of its own.
        facts: how it was made, as JSON values.
    """

    name: str
    space: Mapping[str, Any]
    labels: tuple[str, ...]
    options: tuple[tuple[Scalar, ...], ...]
    picks: NDArray[np.int64]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    quantities: Mapping[str, Quantity]
    seconds_per_epoch: Floats
    counts: Mapping[str, NDArray[np.int64]]
    devices: tuple[str, ...] = ()
    latency_ms: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    one_training: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count, runs = len(self.picks), max(1, len(self.seeds))
        self._expect("picks", self.picks.shape, (count, len(self.labels)))
        if not count or not self.datasets or not self.quantities:
            raise DataError(f"{self.name}: a table needs architectures, data sets and quantities")
        for column, (label, options) in enumerate(zip(self.labels, self.options, strict=True)):
            low, high = int(self.picks[:, column].min()), int(self.picks[:, column].max())
            if low < -1 or high >= len(options):
                raise DataError(
                    f"{self.name}: 'picks' of {label!r} must be from -1 to {len(options) - 1}, "
                    f"got {low if low < -1 else high}"
                )
        if len(np.unique(self.picks, axis=0)) != count:
            raise DataError(f"{self.name}: 'picks' holds an architecture twice")
        for name, quantity in self.quantities.items():
            shape = (len(self.datasets), count, runs, len(quantity.epochs))
            self._expect(f"values of {name}", quantity.values.shape, shape)
            if list(quantity.epochs) != sorted(set(quantity.epochs)) or quantity.epochs[0] < 1:
                raise DataError(f"{self.name}: epochs of {name} must rise: {quantity.epochs}")
        self._expect(
            "seconds_per_epoch", self.seconds_per_epoch.shape, (len(self.datasets), count, runs)
        )
        if np.nanmin(self.seconds_per_epoch, initial=0) < 0:
            raise DataError(f"{self.name}: 'seconds_per_epoch' must not be below zero")
        for name, counts in self.counts.items():
            self._expect(name, counts.shape, (len(self.datasets), count))
        if self.devices:
            self._expect("latency_ms", self.latency_ms.shape, (len(self.devices), count))

    def _expect(self, what: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        if shape != expected:
            raise DataError(f"{self.name}: {what!r} has the shape {shape}, expected {expected}")

    def __len__(self) -> int:
        return len(self.picks)

    def quantity(self, name: str) -> Quantity:
        """A quantity; ``ConfigError`` naming the nearest where there is none of that name."""
        if name not in self.quantities:
            raise ConfigError(f"{self.name} has no {name!r}: {nearest(name, self.quantities)}")
        return self.quantities[name]

    def dataset(self, name: str) -> int:
        """A data set's position; ``ConfigError`` naming the nearest."""
        return self._position(name, self.datasets, "data set")

    def device(self, name: str) -> int:
        """A device's position; ``ConfigError`` naming the nearest."""
        if not self.devices:
            raise ConfigError(f"{self.name} has no latencies, so none of device {name!r}")
        return self._position(name, self.devices, "device")

    def _position(self, name: str, known: Sequence[str], what: str) -> int:
        if name not in known:
            raise ConfigError(f"{self.name} has no {what} {name!r}: {nearest(name, known)}")
        return known.index(name)

    def row_picks(self, row: int) -> tuple[tuple[str, Scalar], ...]:
        """The picks of a row's architecture, as an ``Architecture`` holds them."""
        return tuple(
            (label, options[position])
            for label, options, position in zip(
                self.labels, self.options, self.picks[row].tolist(), strict=True
            )
            if position >= 0
        )

    def rows(self, space: SearchSpace) -> Iterator[tuple[int, tuple[tuple[str, Scalar], ...]]]:
        """Every row that is an architecture of the space, and its picks.

        The space may have fewer options than the table, in any order.

        Raises:
            ConfigError: the space's choices are not the table's, or it has options that the table
                does not know.
        """
        labels = tuple(choice.label for choice in space.choices)
        if labels != self.labels:
            raise ConfigError(
                f"{self.name} is a table of the choices {', '.join(self.labels)}, but "
                f"{space.name!r} has {', '.join(labels)}"
            )
        for choice, options in zip(space.choices, self.options, strict=True):
            for option in choice.options:
                if option not in options:
                    raise ConfigError(
                        f"{self.name} does not know the option {option!r} of {choice.label!r} "
                        f"that {space.name!r} has: {nearest(str(option), map(str, options))}"
                    )
        allowed = [
            np.array([option in choice.options for option in options] + [True])
            for choice, options in zip(space.choices, self.options, strict=True)
        ]
        inside = np.ones(len(self), bool)
        for column, kept in enumerate(allowed):
            inside &= kept[self.picks[:, column]]  # -1 takes the last: inactive is allowed
        for row in np.flatnonzero(inside).tolist():
            yield row, self.row_picks(row)
