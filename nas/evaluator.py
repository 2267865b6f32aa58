"""The contract of an evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from nas.architecture import Architecture
from nas.budget import Cost
from nas.objective import Metric
from nas.trial import Fidelity, Infeasible, Measured, Proposal, Trial

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
class HasContinuation(Protocol):
    """An evaluator that takes up the training of an earlier trial where that ended.

    What it measures is what ``evaluate`` would have measured, for the epochs added alone. One
    without it trains a proposal that continues another from the very start.
    """

    def evaluate_from(self, proposal: Proposal, earlier: Trial) -> Measured | Infeasible:
        """Measures a proposal from where an earlier trial of its architecture ended.

        Args:
            earlier: trial ``proposal.continues`` with such of its artifacts as are still there.
                Where what it needs is not among them, or damaged, it trains from the very start
                and says so in the notes; the cost is always that of the epochs really trained.
        """


@runtime_checkable
class PlansContinuation(Protocol):
    """An evaluator whose continued trials do not train just the difference of both fidelities."""

    def planned_epochs_from(self, fidelity: Fidelity, earlier: Fidelity) -> float:
        """How many epochs a trial of this fidelity trains that continues one of that."""


@runtime_checkable
class WantsHistory(Protocol):
    """An evaluator whose measurement depends on what is known when a trial begins."""

    def informed(self, proposal: Proposal, trials: Sequence[Trial]) -> Proposal:
        """A proposal with what it has to know of the trials finished so far in its notes.

        The trial that is recorded has the proposal as the strategy made it; what of this matters
        to a reader belongs in the measurement's notes.
        """


def informed(evaluator: Evaluator, proposal: Proposal, trials: Sequence[Trial]) -> Proposal:
    """The proposal that an evaluator is given."""
    if isinstance(evaluator, WantsHistory):
        return evaluator.informed(proposal, trials)
    return proposal


def planned_epochs(evaluator: Evaluator, fidelity: Fidelity, earlier: Fidelity | None) -> float:
    """How many epochs a trial trains, which continues an earlier one or does not."""
    whole = evaluator.planned_epochs(fidelity)
    if earlier is None or not isinstance(evaluator, HasContinuation):
        return whole
    if isinstance(evaluator, PlansContinuation):
        return evaluator.planned_epochs_from(fidelity, earlier)
    return max(0.0, whole - evaluator.planned_epochs(earlier))


@runtime_checkable
class HasInheritance(Protocol):
    """An evaluator that starts from what the trial left that a proposal was made from.

    It is asked so where ``proposal.parent`` is a measured trial and nothing is continued; any
    other proposal is evaluated as by an evaluator without it. ``planned_epochs`` is the most that
    either way trains.
    """

    def evaluate_child(self, proposal: Proposal, parent: Trial) -> Measured | Infeasible:
        """Measures a proposal that was made from an earlier trial.

        Args:
            parent: trial ``proposal.parent`` with such of its artifacts as are still there. Where
                what it needs is not among them, or damaged, it measures what ``evaluate`` does
                and says so in the notes.
        """


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
