"""The contract of an evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from nas.architecture import Architecture
from nas.budget import Cost
from nas.objective import Metric
from nas.trial import Fidelity, Infeasible, Measured, Proposal

OnEpoch = Callable[[int, float], None]
"""Told the number of an epoch, from 1, and its loss."""


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


@runtime_checkable
class HasFit(Protocol):
    """An evaluator that is prepared once for all trials: shared weights are trained, say."""

    def fit(self, folder: Path | None = None, on_epoch: OnEpoch | None = None) -> Cost:
        """Prepares it, unless it is; a search does so before its first trial.

        Args:
            folder: the run's, if it has one: where it may keep what a killed run goes on from.
            on_epoch: called after each epoch with its number, from 1, and its loss.

        Returns:
            What it cost in all, also where most of it was done before the run was killed. The
            first trial is charged it.
        """
