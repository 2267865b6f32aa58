"""Evaluators one after the other, limits being decided after each: costs before any training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.budget import Cost
from nas.errors import ConfigError, UnsupportedRequest
from nas.evaluator import (
    Evaluator,
    HasContinuation,
    HasFit,
    HasInheritance,
    HasPreview,
    OnEpoch,
    informed,
    planned_epochs,
)
from nas.objective import Metric, Objective, check_objectives, violated
from nas.trial import Fidelity, Infeasible, Measured, Proposal, Trial

STAGES = "stages"
"""The note in which every stage that ran says what it gave and what it took."""


class Staged:
    """Runs several evaluators in order and stops at the first limit that is broken.

    It measures what its stages measure together, and trains as long as they do together. Stages
    that can say something without training do so in its ``preview``. The trial's note ``stages``
    has a row for each stage that ran: which ``evaluator`` it is, its ``values``, and the
    ``seconds`` and ``epochs`` it took.

    Args:
        stages: the evaluators; put the cheap ones first.
        objectives: those whose limits are checked.

    Raises:
        ConfigError: there is no stage, or two stages measure the same metric.
    """

    def __init__(self, stages: Sequence[Evaluator], objectives: Sequence[Objective]) -> None:
        if not stages:
            raise ConfigError("a staged evaluator needs one stage at least")
        measured: dict[str, int] = {}
        for position, stage in enumerate(stages):
            for metric in stage.metrics:
                if metric.name in measured:
                    raise ConfigError(
                        f"stages {measured[metric.name]} and {position} both measure "
                        f"{metric.name!r}: leave one of them out"
                    )
                measured[metric.name] = position
        self.stages = tuple(stages)
        self.objectives = check_objectives(objectives)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(metric for stage in self.stages for metric in stage.metrics)

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        return self._evaluate(proposal, None)

    def evaluate_from(self, proposal: Proposal, earlier: Trial) -> Measured | Infeasible:
        """Has the stages that can do so continue an earlier trial; the others start anew."""
        return self._evaluate(proposal, earlier)

    def evaluate_child(self, proposal: Proposal, parent: Trial) -> Measured | Infeasible:
        """Has the stages that can do so take over from the trial it was made from."""
        return self._evaluate(proposal, parent)

    def _evaluate(self, proposal: Proposal, earlier: Trial | None) -> Measured | Infeasible:
        values: dict[str, float] = {}
        cost = Cost()
        rows: list[dict[str, Any]] = []
        notes: dict[str, Any] = {}
        artifacts: dict[str, bytes] = {}
        for stage in self.stages:
            start = time.perf_counter()
            continued = proposal.continues is not None
            if earlier is not None and continued and isinstance(stage, HasContinuation):
                outcome = stage.evaluate_from(proposal, earlier)
            elif earlier is not None and not continued and isinstance(stage, HasInheritance):
                outcome = stage.evaluate_child(proposal, earlier)
            else:
                outcome = stage.evaluate(proposal)
            # A stage's own account of its time (a simulated one, say), else the clock's.
            seconds = outcome.cost.seconds or time.perf_counter() - start
            cost += Cost(outcome.cost.trials, seconds, outcome.cost.epochs)
            values.update(outcome.values)
            rows.append(
                {
                    "evaluator": type(stage).__name__,
                    "values": dict(outcome.values),
                    "seconds": seconds,
                    "epochs": outcome.cost.epochs,
                }
            )
            _merge(notes, outcome.notes, "note", stage)
            if isinstance(outcome, Infeasible):
                return Infeasible(outcome.reason, values, cost, {**notes, STAGES: rows})
            reason = violated(self.objectives, values)
            if reason is not None:
                return Infeasible(reason, values, cost, {**notes, STAGES: rows})
            _merge(artifacts, outcome.artifacts, "artifact", stage)
        return Measured(values, cost, {**notes, STAGES: rows}, artifacts)

    def informed(self, proposal: Proposal, trials: Sequence[Trial]) -> Proposal:
        """The proposal with what its stages have to know of the trials so far."""
        for stage in self.stages:
            proposal = informed(stage, proposal, trials)
        return proposal

    def preview(self, arch: Architecture) -> Mapping[str, float]:
        values: dict[str, float] = {}
        for stage in self.stages:
            if isinstance(stage, HasPreview):
                values.update(stage.preview(arch))
        return values

    def fit(self, folder: Path | None = None, on_epoch: OnEpoch | None = None) -> Cost:
        """Prepares the stages that are to be; what they cost together."""
        stages = [stage for stage in self.stages if isinstance(stage, HasFit)]
        return sum((stage.fit(folder, on_epoch) for stage in stages), start=Cost())

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return sum(stage.planned_epochs(fidelity) for stage in self.stages)

    def planned_epochs_from(self, fidelity: Fidelity, earlier: Fidelity) -> float:
        return sum(planned_epochs(stage, fidelity, earlier) for stage in self.stages)


def _merge(whole: dict[str, Any], part: Mapping[str, Any], kind: str, stage: Evaluator) -> None:
    for name, value in part.items():
        if name in whole:
            raise UnsupportedRequest(
                f"{type(stage).__name__} leaves the {kind} {name!r}, as a stage before it does"
            )
        whole[name] = value
