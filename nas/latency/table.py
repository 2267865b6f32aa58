"""Tables of latencies by operation, and the latencies of networks as sums over them.

An operation that is timed alone carries what a call of the runtime costs by itself; a network is
called once. So a network is predicted as that overhead, plus what each operation takes beyond it.
Measured in this way onnxruntime's operations add up well, because what it fuses is inside of one
operation (``nas.latency.units``); eager PyTorch has no overhead but its operations'.

A machine that does other work too is not always equally fast. With every group of operations one
and the same network is timed, and all that is measured is brought to the speed of the first group.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.architecture import Architecture
from nas.components import describe
from nas.cost import architecture_cost
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.latency.correction import Correction, Sum
from nas.latency.fresh import GROUP, measured
from nas.latency.measure import Protocol, Timing
from nas.latency.units import Operation, units
from nas.space import SearchSpace, sample

if TYPE_CHECKING:
    import torch

    from nas.latency.slots import SlotLatencies
    from nas.supernet import Gates

FORMAT = "nasforge latency table"
VERSION = 1

OnTable = Callable[["LatencyTable", int], None]
"""Told the table after each group, and how many operations are still to be measured."""


@dataclass(frozen=True)
class LatencyTable:
    """What each operation of a space takes on one backend of one machine.

    Attributes:
        space: the space's name and version.
        description: of the space, as ``nas.components.describe`` gives it.
        backend: one of ``nas.latency.backends.BACKENDS``, or a device's name.
        protocol: how it was measured.
        machine: what it was measured on.
        overhead_ms: of a call that does next to nothing.
        reference_ms: of the network that has the first option everywhere, which tells the
            machine's speed; 0 where that was not measured.
        entries: by the operations' keys.
        correction: what makes a sum a network's latency; ``None`` leaves it as it is.
        words: the space as the command line was given it, for messages.
    """

    space: str
    description: Mapping[str, Any]
    backend: str
    protocol: Protocol
    machine: Mapping[str, Any]
    overhead_ms: float
    reference_ms: float
    entries: Mapping[str, Timing]
    correction: Correction | None = None
    words: str = ""
    file: str = field(default="the table", compare=False)

    # ------------------------------------------------------------------------- predicting

    def predict(self, space: SearchSpace, arch: Architecture) -> float:
        """Milliseconds of an architecture's network, corrected where the table has a correction.

        Raises:
            ConfigError: the table is of another space.
            UnsupportedRequest: it lacks operations of this network; the message names them.
        """
        if self.correction is None:
            return self._added(space, arch)[0]
        return self.correction(self.sum(space, arch))

    def sum(self, space: SearchSpace, arch: Architecture) -> Sum:
        """The sum over its operations, not corrected, and its size; errors as above."""
        ms, operations = self._added(space, arch)
        return Sum(ms, operations, architecture_cost(space, arch).weight_bytes / 1e6)

    def _added(self, space: SearchSpace, arch: Architecture) -> tuple[float, int]:
        """The sum in milliseconds, and over how many operations."""
        found = self._units(space, arch)
        self._refuse_missing(found, arch)
        beyond = sum(self.entries[one.key].ms - self.overhead_ms for one in found)
        return self.overhead_ms + beyond, len(found)

    def missing(self, space: SearchSpace, archs: Iterable[Architecture]) -> dict[str, Operation]:
        """The operations of these architectures that the table lacks, by their keys."""
        lacking: dict[str, Operation] = {}
        for arch in archs:
            for one in self._units(space, arch):
                if one.key not in self.entries:
                    lacking.setdefault(one.key, one)
        return lacking

    def _units(self, space: SearchSpace, arch: Architecture) -> list[Operation]:
        self.check_space(space)
        return units(space, arch, self.protocol.batch)

    def _refuse_missing(self, found: Sequence[Operation], arch: Architecture) -> None:
        lacking = {one.key: one for one in found if one.key not in self.entries}
        if not lacking:
            return
        titles = "; ".join(one.title for one in list(lacking.values())[:3])
        more = f"; and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise UnsupportedRequest(
            f"{self.file} lacks {len(lacking)} of an architecture's {len({o.key for o in found})} "
            f"operations: {titles}{more}. This adds all that the space has: {self.command()}; and "
            f"these alone: --arch '{arch}'"
        )

    def command(self) -> str:
        """The command that goes on with this table."""
        words = self.words or str(self.description.get("name", self.space))
        return f"nas latency profile {words} --backend {self.backend} --out {self.file}"

    def check_space(self, space: SearchSpace) -> None:
        """Raises ``ConfigError`` where the table is of another space."""
        if space.name != self.space:
            raise ConfigError(f"{self.file} is of the space {self.space!r}, not of {space.name!r}")

    def check_backend(self, backend: str) -> None:
        """Raises ``ConfigError`` where the table is of another backend."""
        if backend != self.backend:
            raise ConfigError(f"{self.file} is of the backend {self.backend!r}, not {backend!r}")

    # ------------------------------------------------------------------ relaxed architectures

    def slots(self, space: SearchSpace) -> SlotLatencies:
        """The table as a sum over the slots of a space; see ``nas.latency.slots``."""
        from nas.latency.slots import slot_latencies

        return slot_latencies(self, space)

    def expected(self, space: SearchSpace, gates: Gates) -> torch.Tensor:
        """The expected milliseconds under gates, with gradients to their weights; ().

        Equal to ``predict`` where they are one-hot. Whoever asks often keeps ``slots(space)``.

        Raises:
            UnsupportedRequest: the latencies of the space are no sum over its slots.
        """
        return self.slots(space).expected(gates)

    # ------------------------------------------------------------------------------- files

    def document(self) -> dict[str, Any]:
        """The table as JSON."""
        kept = ("space", "description", "backend", "machine", "overhead_ms", "reference_ms")
        return {
            "format": FORMAT,
            "version": VERSION,
            **{name: getattr(self, name) for name in kept},
            "words": self.words,
            "protocol": dataclasses.asdict(self.protocol),
            "correction": None if self.correction is None else self.correction.document(),
            "entries": {key: dataclasses.asdict(entry) for key, entry in self.entries.items()},
        }

    def save(self, path: str | Path) -> None:
        """Writes it, whole or not at all."""
        from nas.history import write_file

        text = json.dumps(self.document(), indent=1, ensure_ascii=False, allow_nan=False)
        write_file(Path(path), text.encode())

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Reads what ``save`` wrote.

        Raises:
            DataError: there is no such file, it is no table of latencies, or it is damaged.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise DataError(f"{path} is damaged, or no table of latencies: {error}") from error
        return table_from(document, str(path))


def table_from(document: Any, where: str) -> LatencyTable:
    """A table from its JSON; raises ``DataError`` for what is none."""
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise DataError(f"{where} is no table of latencies: its format is not {FORMAT!r}")
    if document.get("version") != VERSION:
        raise DataError(
            f"{where} is a table of version {document.get('version')!r}, expected {VERSION}"
        )
    try:
        correction = document["correction"]
        table = LatencyTable(
            space=_of(str, document["space"]),
            description=_of(dict, document["description"]),
            backend=_of(str, document["backend"]),
            protocol=Protocol(**document["protocol"]),
            machine=_of(dict, document["machine"]),
            overhead_ms=_milliseconds(document["overhead_ms"]),
            reference_ms=_milliseconds(document["reference_ms"]),
            entries={key: _timing(entry) for key, entry in document["entries"].items()},
            correction=None if correction is None else Correction.from_document(correction),
            words=_of(str, document["words"]),
            file=where,
        )
    except KeyError as error:
        raise DataError(f"{where} is damaged: it has no {error.args[0]!r}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where} is damaged: {error}") from error
    return table


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.80} is no {kind.__name__}")
    return value


def _milliseconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.80} is no number of milliseconds")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{value!r} are no milliseconds")
    return float(value)


def _timing(entry: Mapping[str, Any]) -> Timing:
    for name in ("ms", "p10", "p90", "half_width"):
        _milliseconds(entry[name])
    return Timing(**entry)


# ------------------------------------------------------------------------------------ making


def empty_table(
    space: SearchSpace, backend: str, protocol: Protocol, words: str = "", file: str = "the table"
) -> LatencyTable:
    """A table without entries, to be filled.

    Raises:
        ConfigError: there is no such backend, or what it needs is not installed.
        UnsupportedRequest: the machine has not what it needs.
    """
    from nas.latency import backends

    backends.check(backend, protocol)
    machine = backends.machine(backend)
    description = describe(space)
    return LatencyTable(
        space.name, description, backend, protocol, machine, 0.0, 0.0, {}, None, words, file
    )


def continued(
    table: LatencyTable, space: SearchSpace, backend: str, protocol: Protocol
) -> LatencyTable:
    """A table that more is to be measured for: the same space, backend, machine and protocol.

    Raises:
        ConfigError: it is another; the message names what differs.
    """
    from nas.latency import backends

    table.check_space(space)
    table.check_backend(backend)
    backends.check(backend, protocol)
    here = backends.machine(backend)
    for name, value in here.items():
        if table.machine.get(name) != value:
            raise ConfigError(
                f"{table.file} was measured elsewhere: its {name} is {table.machine.get(name)!r}, "
                f"here it is {value!r}; give another --out"
            )
    for name, mine in dataclasses.asdict(protocol).items():
        held = getattr(table.protocol, name)
        # How long and how exactly may change; what is measured may not.
        if name in ("clock", "threads", "batch") and held != mine:
            raise ConfigError(f"{table.file} was measured with {name} {held!r}, not {mine!r}")
    return table


def profiled(
    table: LatencyTable,
    space: SearchSpace,
    wanted: Mapping[str, Operation],
    on_table: OnTable | None = None,
    group: int = GROUP,
) -> LatencyTable:
    """The table with all these operations measured; those that it has already are left alone.

    Args:
        on_table: called with the table after each group, to keep it.
        group: how many are measured beside one another.
    """
    lacking = [one for key, one in wanted.items() if key not in table.entries]
    waiting = len(lacking)
    for found in measured(space, lacking, table.backend, table.protocol, group):
        reference = table.reference_ms or found.reference.ms
        speed = reference / found.reference.ms
        scaled = {key: at_speed(timing, speed) for key, timing in found.timings.items()}
        waiting -= len(scaled)
        table = dataclasses.replace(
            table,
            overhead_ms=table.overhead_ms or found.overhead.ms * speed,
            reference_ms=reference,
            entries={**table.entries, **scaled},
            correction=None,  # fitted to what was there before
        )
        if on_table is not None:
            on_table(table, waiting)
    return table


def at_speed(timing: Timing, speed: float) -> Timing:
    """What would have been measured at another speed of the machine."""
    return dataclasses.replace(
        timing, ms=timing.ms * speed, p10=timing.p10 * speed, p90=timing.p90 * speed
    )


def load_for(path: str | Path, space: SearchSpace, backend: str | None = None) -> LatencyTable:
    """Reads a table that is to be used for a space, and for a backend where one is named.

    Raises:
        DataError, ConfigError: as ``LatencyTable.load``, or it is of another space, size of the
            input or backend.
        UnsupportedRequest: it lacks operations of an architecture drawn at random: others of the
            space may lack some as well.
    """
    table = LatencyTable.load(path)
    table.check_space(space)
    if backend is not None:
        table.check_backend(backend)
    if not table.entries:
        raise DataError(f"{path} is empty: its first group was not finished. {table.command()}")
    held = table.description.get("input")
    if isinstance(held, list) and tuple(held) != tuple(space.input):
        raise ConfigError(
            f"{path} was measured on inputs of {_shape(held)}, those of the space here are "
            f"{_shape(space.input)}: give nas latency profile --set input={_shape(space.input)} "
            "and another --out"
        )
    table.predict(space, sample(space, np.random.default_rng(0)))
    return table


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
