"""The contract of an evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from nas.architecture import Architecture
from nas.objective import Metric
from nas.trial import Fidelity, Infeasible, Measured, Proposal


class Evaluator(Protocol):
    """Measures a proposal. Picklable: it travels to Ray workers.

    It may raise, hang or return NaN: the executor makes a failed trial of that. It never makes
    up a score. ``metrics`` declares what ``Measured.values`` holds. An argument of ``__init__``
    is an attribute of the same name.
    """

    @property
    def metrics(self) -> tuple[Metric, ...]: ...

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible: ...

    def planned_epochs(self, fidelity: Fidelity) -> float:
        """How many epochs a trial of this fidelity trains: what it commits of the budget."""


@runtime_checkable
class HasPreview(Protocol):
    """An evaluator some of whose metrics are had at once, without training."""

    def preview(self, arch: Architecture) -> Mapping[str, float]:
        """Those metrics of an architecture: what limits on them are decided by beforehand."""
