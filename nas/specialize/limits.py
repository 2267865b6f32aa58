"""Limits that a sub-network must keep, and the costs that they are on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.errors import ConfigError, nearest
from nas.latency.files import read
from nas.latency.table import LatencyTable
from nas.latency.whole import WholeNetworkFit
from nas.objective import Objective, minimize
from nas.space import SearchSpace

COUNTED = ("macs", "parameters", "weight_bytes", "peak_memory_bytes")
"""Costs that a network's description tells (``nas.cost``)."""
METRICS = ("latency_ms", *COUNTED)


@dataclass(frozen=True)
class Limits:
    """Upper limits, all of which one network has to keep.

    Attributes:
        values: pairs of a metric of ``METRICS`` and its greatest value.

    Raises:
        ConfigError: there is none, an unknown metric, one given twice, or a limit that is not
            above 0 and finite.
    """

    values: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError("a limit is empty: expected METRIC=NUMBER, as in latency_ms=3")
        names = [metric for metric, _ in self.values]
        for metric, value in self.values:
            if metric not in METRICS:
                raise ConfigError(f"there is no limit on {metric!r}: {nearest(metric, METRICS)}")
            if names.count(metric) > 1:
                raise ConfigError(f"limit {self}: {metric} is given twice")
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"limit {self}: {metric} must be above 0 and finite")

    @classmethod
    def parse(cls, text: str) -> Limits:
        """Limits from ``latency_ms=3,parameters=2e6``; raises ``ConfigError``."""
        pairs = []
        for part in text.split(","):
            metric, equals, value = part.partition("=")
            try:
                pairs.append((metric.strip(), float(value)))
            except ValueError:
                equals = ""
            if not equals:
                raise ConfigError(
                    f"limit {text!r}: expected METRIC=NUMBER, as in latency_ms=3; several of one "
                    "network are joined by a comma"
                )
        return cls(tuple(pairs))

    @property
    def name(self) -> str:
        """For a folder: ``latency_ms_3``."""
        return "_".join(f"{metric}_{_number(value)}" for metric, value in self.values)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return tuple(minimize(metric, limit=value) for metric, value in self.values)

    def __str__(self) -> str:
        return ",".join(f"{metric}={_number(value)}" for metric, value in self.values)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def family_of(limits: Sequence[Limits | str]) -> list[Limits]:
    """The limits of a family's networks, read and checked; raises ``ConfigError``."""
    found = [one if isinstance(one, Limits) else Limits.parse(one) for one in limits]
    if not found:
        raise ConfigError("there is no limit: give one at least, as in latency_ms=3")
    for one in found:
        if found.count(one) > 1:
            raise ConfigError(f"limit {one} is given twice")
    return found


Table = LatencyTable | WholeNetworkFit


class Costs:
    """The costs of a space's architectures, each found out once.

    Args:
        table: tells ``latency_ms``: a table, a fit to whole networks, or the file of either
            (``nas.latency.files``).

    Raises:
        DataError, ConfigError, UnsupportedRequest: of the file.
    """

    def __init__(self, space: SearchSpace, table: Table | str | Path | None = None) -> None:
        self.space = space
        self.table = read(table, space) if isinstance(table, str | Path) else table
        self._known: dict[Architecture, dict[str, float]] = {}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that can be told."""
        return METRICS if self.table is not None else COUNTED

    def check(self, limits: Limits) -> None:
        """Raises ``ConfigError`` where a limit is on what cannot be told."""
        for metric, _ in limits.values:
            if metric not in self.metrics:
                raise ConfigError(
                    f"limit {limits}: {metric} needs a latency table of {self.space.name!r} "
                    "(--table): 'nas latency profile SPACE --out table.json' makes one for this "
                    "machine"
                )

    def of(self, arch: Architecture, metrics: Sequence[str]) -> Mapping[str, float]:
        """These metrics of an architecture's network.

        Raises:
            UnsupportedRequest: the table lacks operations of it.
        """
        known = self._known.setdefault(arch, {})
        for metric in metrics:
            if metric in known:
                continue
            if metric == "latency_ms":
                assert self.table is not None
                known[metric] = self.table.predict(self.space, arch)
            else:
                cost = architecture_cost(self.space, arch)
                known.update({name: getattr(cost, name) for name in COUNTED})
        return {metric: known[metric] for metric in metrics}
