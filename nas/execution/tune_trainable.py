"""Our evaluators as trainables of Ray Tune, with checkpoints that schedulers can pause and clone.

Without ``max_epochs`` a trial is one step: the whole evaluation. With it a trial trains
``step_epochs`` a step, each step going on from the checkpoint of the one before, so that ASHA may
end it, PBT may have it go on from another's, and a trial whose node was lost goes on from its
own. What a checkpoint holds are the trial as JSON and its files (weights, momentum): nothing is
unpickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune

from nas.budget import Cost
from nas.errors import ConfigError, DataError, NasError
from nas.evaluator import Evaluator, HasContinuation, planned_epochs
from nas.execution.guard import run_trial
from nas.execution.tune import EPOCHS, INFEASIBLE, proposal_from
from nas.history import write_file
from nas.journal import (
    outcome_from_document,
    outcome_to_document,
    proposal_from_document,
    proposal_to_document,
)
from nas.trial import Failed, Fidelity, Infeasible, Measured, Proposal, Trial

Configured = Callable[[Evaluator, Mapping[str, Any]], Evaluator]

_TRIAL = "trial.json"
_FILES = "files"
_FORMAT = 1


class TrialFailed(NasError):
    """An evaluation that failed, for Tune to record: the cause, and the traceback."""


def tune_trainable(
    evaluator: Evaluator,
    *,
    max_epochs: int | None = None,
    step_epochs: int = 1,
    configured: Configured | None = None,
) -> type[Any]:
    """A trainable that measures the architectures of a ``TuneSearcher`` or a ``population``.

    It reports the evaluator's metrics by their names and the epochs trained so far (``epochs``);
    what is not known of an infeasible architecture is NaN, and ``infeasible`` says why. It may be
    reused for one trial after the other (``reuse_actors=True``).

    Args:
        max_epochs: a trial's whole training, in steps that a scheduler may end or continue; by
            default there is one step, of what the evaluator trains by itself.
        step_epochs: epochs a step, where there is ``max_epochs``.
        configured: makes the evaluator of a trial out of this one and the trial's configuration,
            where that holds more than the architecture: a learning rate that PBT perturbs, say.

    Raises:
        ConfigError: an argument is out of range, or the evaluator trains every fidelity anew.
    """
    for name, value in (("max_epochs", max_epochs), ("step_epochs", step_epochs)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if max_epochs is not None and step_epochs < max_epochs:
        short, long = Fidelity(epochs=step_epochs), Fidelity(epochs=max_epochs)
        goes_on = isinstance(evaluator, HasContinuation) and (
            planned_epochs(evaluator, long, short) < evaluator.planned_epochs(long)
        )
        if not goes_on:
            raise ConfigError(
                f"{type(evaluator).__name__} trains every fidelity from the very start, so steps "
                f"of {step_epochs} of {max_epochs} epochs would repeat each other: the training "
                "evaluator continues where schedule_epochs is set; or leave max_epochs out"
            )
    made: type[Any] = tune.with_parameters(
        EvaluatorTrainable, plan=_Plan(evaluator, max_epochs, step_epochs, configured)
    )
    return made


@dataclass(frozen=True)
class _Plan:
    """What all trials of a trainable share."""

    evaluator: Evaluator
    max_epochs: int | None
    step_epochs: int
    configured: Configured | None


class EvaluatorTrainable(tune.Trainable):
    """What ``tune_trainable`` makes; Tune alone calls its methods."""

    def setup(self, config: dict[str, Any], plan: _Plan | None = None) -> None:
        if plan is None:
            raise ConfigError("give Tune what tune_trainable(evaluator) returns, not this class")
        self._plan = plan
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._proposal = replace(proposal_from(new_config), spent=Cost())
        self._last: Trial | None = None
        self._evaluator = self._plan.evaluator
        if self._plan.configured is not None:
            self._evaluator = self._plan.configured(self._evaluator, new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._last is None or not self._complete(self._last):
            self._last = self._advance(self._last)
        return self._result(self._last)

    def _advance(self, last: Trial | None) -> Trial:
        proposal = self._proposal
        if self._plan.max_epochs is not None:
            done = 0 if last is None else last.proposal.fidelity.epochs or 0
            epochs = min(done + self._plan.step_epochs, self._epochs(self._plan.max_epochs))
            proposal = replace(proposal, fidelity=replace(proposal.fidelity, epochs=epochs))
        if last is not None:
            # Numbered on from the trial's own: a proposal continues one before it.
            proposal = replace(proposal, number=last.number + 1, continues=last.number, parent=None)
        trial = run_trial(self._evaluator, proposal, last)
        if isinstance(trial.outcome, Failed):
            found = trial.outcome
            raise TrialFailed(f"{found.cause}: {found.message}\n{found.traceback}")
        before = Cost() if last is None else last.cost
        cost = before + trial.cost
        return replace(trial, cost=Cost(1, cost.seconds, cost.epochs))

    def _epochs(self, most: int) -> int:
        asked = self._proposal.fidelity.epochs
        return most if asked is None else min(asked, most)

    def _complete(self, trial: Trial) -> bool:
        if self._plan.max_epochs is None or isinstance(trial.outcome, Infeasible):
            return True
        return (trial.proposal.fidelity.epochs or 0) >= self._epochs(self._plan.max_epochs)

    def _result(self, trial: Trial) -> dict[str, Any]:
        outcome = trial.outcome
        assert isinstance(outcome, Measured | Infeasible)
        values = {metric.name: math.nan for metric in self._evaluator.metrics} | dict(
            outcome.values
        )
        reason = {INFEASIBLE: outcome.reason} if isinstance(outcome, Infeasible) else {}
        # "done" lets Tune end the trial without asking its scheduler.
        return {**values, **reason, EPOCHS: trial.cost.epochs, "done": self._complete(trial)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        folder = Path(checkpoint_dir)
        document: dict[str, Any] = {"format": _FORMAT, "trial": None}
        if self._last is not None:
            document["trial"] = {
                "proposal": proposal_to_document(self._last.proposal),
                "outcome": outcome_to_document(self._last.outcome),
                "seconds": self._last.cost.seconds,
                "epochs": self._last.cost.epochs,
            }
            if isinstance(self._last.outcome, Measured):
                for name, content in self._last.outcome.artifacts.items():
                    write_file(folder / _FILES / name, content)
        write_file(folder / _TRIAL, json.dumps(document).encode("utf-8", "surrogatepass"))

    def load_checkpoint(self, checkpoint: Any) -> None:  # a folder, as save_checkpoint returns none
        self._last = read_checkpoint(checkpoint)


def read_checkpoint(folder: str | Path) -> Trial | None:
    """The trial in a checkpoint that Tune keeps, with its files; ``None`` before the first step.

    ``result.checkpoint.as_directory()`` gives the folder: how trained weights are had.

    Raises:
        DataError: it is not such a checkpoint, or is damaged.
    """
    folder = Path(folder)
    try:
        document = json.loads((folder / _TRIAL).read_bytes())
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is {document['format']!r}, expected {_FORMAT}")
        found = document["trial"]
        if found is None:
            return None
        proposal: Proposal = proposal_from_document(found["proposal"])
        outcome = outcome_from_document(found["outcome"])
        cost = Cost(1, found["seconds"], found["epochs"])
        if isinstance(outcome, Measured):
            files = {path.name: path.read_bytes() for path in (folder / _FILES).glob("*")}
            outcome = replace(outcome, artifacts=files)
    except (OSError, KeyError, TypeError, ValueError) as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise DataError(f"{folder} is not a checkpoint of a trial: {why}") from error
    return Trial(proposal, outcome, cost)
