"""Latency of an architecture's network: looked up in a table, or measured end to end.

A lookup takes milliseconds and is known before anything is trained, so a limit on ``latency_ms``
costs no training (``staged``). A measurement takes a fresh process for each architecture; it is
what a table is checked with, for those that a search has found.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas.architecture import Architecture
from nas.errors import ConfigError
from nas.objective import Metric
from nas.space import SearchSpace, validate
from nas.trial import Fidelity, Measured, Proposal

_MOST_KNOWN = 10_000


class LatencyEvaluator:
    """``latency_ms`` (minimised) by a table of ``nas latency profile``; no training.

    A fit of ``nas latency fit`` does as well; the trial's notes then have ``latency_ms_std``, the
    standard deviation of a measurement around what it predicts.

    Args:
        space: the table's.
        table: the file.
        backend: what the table has to be of, where that is to be made sure.

    Raises:
        DataError: there is no such file, or it is no table.
        ConfigError: the table is of another space or backend.
    """

    metrics = (Metric("latency_ms", "ms", "minimize"),)

    def __init__(self, space: SearchSpace, table: str, backend: str | None = None) -> None:
        from nas.latency.files import read

        self.space = space
        self.table = str(table)
        self.backend = backend
        self._table = read(self.table, space, backend)
        self._known: dict[Architecture, float] = {}

    def preview(self, arch: Architecture) -> Mapping[str, float]:
        """The metrics, without a trial.

        Raises:
            InvalidArchitecture: it is not one of the space.
            UnsupportedRequest: the table lacks operations; the message says how to add them.
        """
        found = self._known.get(arch)
        if found is None:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            found = self._known[arch] = self._table.predict(self.space, arch)
        return {"latency_ms": found}

    def evaluate(self, proposal: Proposal) -> Measured:
        from nas.latency.whole import WholeNetworkFit

        values = self.preview(proposal.arch)
        if not isinstance(self._table, WholeNetworkFit):
            return Measured(values)
        deviation = self._table.deviation(self.space, proposal.arch)
        return Measured(values, notes={"latency_ms_std": deviation})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0


class MeasuredLatency:
    """``latency_ms`` (minimised), measured end to end in a fresh process; no training.

    Notes: the 10th and 90th percentile, whether the median is tight, and the machine. Trials that
    run at the same time slow one another down: use it with the serial executor.

    Args:
        backend: one of ``nas.latency.backends.BACKENDS``.
        clock: ``wall`` or ``cpu``.
        threads: that the runtime computes with.
        batch: examples at once.
        half_width: of the median's interval, as a share, that is tight.
        seconds: that a measurement takes at most.

    Raises:
        ConfigError: an argument is out of range, or there is no such backend.
        UnsupportedRequest: the machine has not what the backend needs.
    """

    metrics = LatencyEvaluator.metrics

    def __init__(
        self,
        space: SearchSpace,
        backend: str = "onnxruntime",
        clock: str = "wall",
        threads: int = 1,
        batch: int = 1,
        half_width: float = 0.01,
        seconds: float = 2.0,
    ) -> None:
        from nas.latency.backends import check
        from nas.latency.measure import Protocol

        if clock not in ("wall", "cpu"):
            raise ConfigError(f"clock must be 'wall' or 'cpu', got {clock!r}")
        self.space = space
        self.backend = backend
        self.clock = clock
        self.threads = threads
        self.batch = batch
        self.half_width = half_width
        self.seconds = seconds
        self._protocol = Protocol(
            clock="wall" if clock == "wall" else "cpu",
            threads=threads,
            batch=batch,
            half_width=half_width,
            seconds=seconds,
        )
        check(backend, self._protocol)

    def evaluate(self, proposal: Proposal) -> Measured:
        """Measures a proposal.

        Raises:
            InvalidArchitecture: it is not one of the space.
            ExportError: its network cannot be brought to the backend.
        """
        from nas.latency.fresh import measured

        validate(self.space, proposal.arch)
        (found,) = measured(self.space, [proposal.arch], self.backend, self._protocol)
        timing = found.timings[proposal.arch.digest()]
        notes = {
            "p10": timing.p10,
            "p90": timing.p90,
            "tight": timing.tight,
            "machine": found.machine,
        }
        return Measured({"latency_ms": timing.ms}, notes=notes)

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0
