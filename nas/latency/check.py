"""How well a table's sums tell what networks take: random ones, measured end to end.

What is measured is kept in a file after each group, so that a check that is killed goes on. Every
group has the table's reference network beside it and is brought to the speed that the machine had
when the table was measured (``nas.latency.table``).

A correction is fitted on the first half of the networks, which are in random order, and judged on
the others; what is stored in a table is fitted to all of them.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.errors import ConfigError, DataError
from nas.latency.correction import LEAST, Correction, Sum, fit
from nas.latency.fresh import GROUP, measured
from nas.latency.measure import Timing
from nas.latency.table import LatencyTable
from nas.predictor import rank_correlation
from nas.space import SearchSpace, sample

FORMAT = "nasforge latency check"
VERSION = 1
FILE = "measured.json"

OnMeasured = Callable[[int, int], None]
"""Told how many of how many networks are measured."""


@dataclass(frozen=True)
class Agreement:
    """How predictions agree with measurements.

    Attributes:
        networks: that were compared.
        mape: mean |predicted - measured| / measured.
        rmse: in milliseconds.
        bias: mean (predicted - measured) / measured.
        spearman: rank correlation; ``None`` where all are equal.
        within_10: share whose prediction is at most 10 % off.
    """

    networks: int
    mape: float
    rmse: float
    bias: float
    spearman: float | None
    within_10: float


def agreement(predicted: Sequence[float], true: Sequence[float]) -> Agreement:
    """How predictions agree with measurements, both in milliseconds."""
    if len(predicted) != len(true) or not len(true):
        raise ConfigError(
            f"expected a prediction for each measurement, and one at least; got {len(predicted)} "
            f"and {len(true)}"
        )
    p, y = np.array(predicted, float), np.array(true, float)
    relative = (p - y) / y
    return Agreement(
        networks=len(y),
        mape=float(np.abs(relative).mean()),
        rmse=float(np.sqrt(((p - y) ** 2).mean())),
        bias=float(relative.mean()),
        spearman=rank_correlation(p, y),
        within_10=float((np.abs(relative) <= 0.1).mean()),
    )


@dataclass(frozen=True)
class Network:
    """A network that was measured.

    Attributes:
        sum: what the table says.
        timing: as measured.
        speed: the factor that brings it to the machine's speed when the table was measured.
    """

    arch: Architecture
    sum: Sum
    timing: Timing
    speed: float

    @property
    def ms(self) -> float:
        """End to end, at the speed of the table."""
        return self.timing.ms * self.speed


@dataclass(frozen=True)
class Check:
    """What came of a check.

    Attributes:
        networks: all that were measured.
        raw: sums, all networks.
        held_out_raw, held_out: sums, and corrected sums, on the half that nothing was fitted to;
            ``None`` where there are too few networks.
        unscaled: sums against measurements as they are, not brought to one speed.
        correction: fitted to all networks; ``None`` where there are too few.
    """

    networks: tuple[Network, ...]
    raw: Agreement
    held_out_raw: Agreement | None
    held_out: Agreement | None
    unscaled: Agreement
    correction: Correction | None

    def document(self) -> dict[str, Any]:
        """The numbers as JSON, without the networks."""

        def plain(found: Any) -> Any:
            return None if found is None else dataclasses.asdict(found)

        speeds = [one.speed for one in self.networks]
        return {
            "raw": plain(self.raw),
            "held_out_raw": plain(self.held_out_raw),
            "held_out_corrected": plain(self.held_out),
            "not_brought_to_one_speed": plain(self.unscaled),
            "correction": None if self.correction is None else self.correction.document(),
            "speed": {"least": min(speeds), "greatest": max(speeds)},
            "tight": sum(one.timing.tight for one in self.networks),
        }


def check(
    table: LatencyTable,
    space: SearchSpace,
    count: int,
    seed: int = 0,
    folder: Path | None = None,
    on_measured: OnMeasured | None = None,
    group: int = GROUP,
) -> Check:
    """Measures random networks and compares them with the table.

    Args:
        count: networks, no two of which have the same architecture.
        seed: of the architectures.
        folder: where measurements are kept, and taken from where they are there.
        group: how many are measured beside one another.

    Raises:
        ConfigError: the table is of another space or machine, or the space has too few networks.
        UnsupportedRequest: the table lacks an operation.
        DataError: the folder's file is damaged, or of another check.
    """
    if count < 2:
        raise ConfigError(f"a check needs 2 networks at least, got {count}")
    archs = drawn(space, count, seed)
    sums = {arch.digest(): table.sum(space, arch) for arch in archs}  # refused before any work
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "space": table.space,
        "backend": table.backend,
        "reference_ms": table.reference_ms,
    }
    path = None if folder is None else folder / FILE
    known = {} if path is None or not path.exists() else _read(path, facts)
    lacking = [arch for arch in archs if arch.digest() not in known]
    for found in measured(space, lacking, table.backend, table.protocol, group):
        if found.machine != table.machine:
            raise ConfigError(
                f"{table.file} was measured on {dict(table.machine)}, this is {found.machine}: "
                "check it where it was measured"
            )
        speed = table.reference_ms / found.reference.ms
        known |= {digest: (timing, speed) for digest, timing in found.timings.items()}
        if path is not None:
            _write(path, facts, known)
        if on_measured is not None:
            on_measured(sum(arch.digest() in known for arch in archs), count)
    networks = tuple(Network(arch, sums[arch.digest()], *known[arch.digest()]) for arch in archs)
    return compared(networks)


def compared(networks: Sequence[Network]) -> Check:
    """What measured networks say of the sums, and of a correction."""

    def judged(some: Sequence[Network], line: Correction | None = None) -> Agreement:
        predicted = [one.sum.ms if line is None else line(one.sum) for one in some]
        return agreement(predicted, [one.ms for one in some])

    def fitted(some: Sequence[Network]) -> Correction:
        return fit([n.sum for n in some], [n.ms for n in some])

    half = len(networks) // 2
    enough = half >= LEAST
    first, rest = networks[:half], networks[half:]
    return Check(
        networks=tuple(networks),
        raw=judged(networks),
        held_out_raw=judged(rest) if enough else None,
        held_out=judged(rest, fitted(first)) if enough else None,
        unscaled=agreement([n.sum.ms for n in networks], [n.timing.ms for n in networks]),
        correction=fitted(networks) if enough else None,
    )


def drawn(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """So many random architectures, no two of which are the same network."""
    rng = np.random.default_rng([seed, 23])
    found: dict[str, Architecture] = {}
    misses = 0
    while len(found) < count:
        arch = sample(space, rng)
        known = len(found)
        found.setdefault(space.canonical(arch).digest(), arch)
        misses = misses + 1 if len(found) == known else 0
        if misses == 1000:
            raise ConfigError(
                f"{space.name!r} has hardly more than {len(found)} networks, asked for {count}"
            )
    return list(found.values())


def check_png(found: Check, title: str) -> bytes:
    """Sums, and corrected sums, against what was measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    true = [one.ms for one in found.networks]
    raw = [one.sum.ms for one in found.networks]
    low, high = min(*true, *raw), max(*true, *raw)
    ends = np.array([low - 0.05 * (high - low), high + 0.05 * (high - low)])
    axes.fill_between(ends, 0.9 * ends, 1.1 * ends, color="#e9ecef", label="±10 %")
    axes.plot(ends, ends, color="#9aa5b1", linewidth=1)
    rho = "none" if found.raw.spearman is None else f"{found.raw.spearman:.3f}"
    axes.plot(true, raw, ".", color="#d1495b", label=f"sum: MAPE {found.raw.mape:.1%}, ρ {rho}")
    if found.correction is not None and found.held_out is not None:
        half = len(found.networks) // 2
        first, rest = found.networks[:half], found.networks[half:]
        line = fit([one.sum for one in first], [one.ms for one in first])
        axes.plot(
            [one.ms for one in rest],
            [line(one.sum) for one in rest],
            "x",
            color="#30638e",
            markersize=4,
            label=f"corrected, held out: MAPE {found.held_out.mape:.1%}",
        )
    axes.set(xlabel="measured, ms", ylabel="predicted, ms", title=title, xlim=ends, ylim=ends)
    axes.title.set_fontsize(10)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


Known = dict[str, tuple[Timing, float]]


def _write(path: Path, facts: Mapping[str, Any], known: Known) -> None:
    from nas.history import write_file

    networks = {
        digest: {"speed": speed, **dataclasses.asdict(timing)}
        for digest, (timing, speed) in known.items()
    }
    write_file(path, json.dumps({**facts, "networks": networks}, indent=1).encode())


def _read(path: Path, facts: Mapping[str, Any]) -> Known:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        held = {name: document[name] for name in facts}
        known: Known = {}
        for digest, entry in document["networks"].items():
            speed = float(entry.pop("speed"))
            known[digest] = Timing(**entry), speed
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged, or no check of latencies: {error}") from error
    for name, value in facts.items():
        if held[name] != value:
            raise DataError(
                f"{path} is a check of another table: its {name} is {held[name]!r}, not {value!r}; "
                "give another --out"
            )
    return known
