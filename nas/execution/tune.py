"""Our strategies inside Ray Tune, for those who sweep with it: a searcher, and a population.

    tuner = tune.Tuner(
        tune_trainable(evaluator),  # nas.execution.tune_trainable; or a trainable of one's own
        tune_config=tune.TuneConfig(search_alg=TuneSearcher(strategy), num_samples=100,
                                    max_concurrent_trials=4, reuse_actors=True),
    )

Tune draws the trials from the strategy and tells it what their last results say. ASHA and the
other schedulers that stop trials work beside it; those of population-based training refuse every
searcher, and take ``population`` instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from nas.architecture import Architecture
from nas.budget import Cost
from nas.components import describe
from nas.errors import ConfigError, DataError, ResumeError, UnsupportedRequest, nearest
from nas.execution.tune_state import decoded, encoded
from nas.history import write_file
from nas.journal import proposal_from_document, proposal_to_document
from nas.objective import Objective, violated
from nas.space import format_architecture
from nas.strategy import HasContinuable, Strategy
from nas.trial import Failed, Infeasible, Measured, Outcome, Proposal, Trial

KEY = "nas"
"""Where a trial's configuration holds the proposal."""

INFEASIBLE = "infeasible"
"""A trainable reports this, and why, of an architecture that breaks a limit; its metrics are NaN
where they are not known."""

EPOCHS = "epochs"
"""How many epochs a trial has trained so far, where its trainable reports it."""

_FORMAT = 1


def configuration(strategy: Strategy, proposal: Proposal) -> dict[str, Any]:
    """A proposal as part of a trial's configuration: for people, and for ``proposal_from``."""
    # The text comes last: Tune's tables show the end of what is too long for them.
    return {
        "proposal": json.dumps(proposal_to_document(proposal), separators=(",", ":")),
        "architecture": format_architecture(strategy.space, proposal.arch),
    }


def proposal_from(config: Mapping[str, Any]) -> Proposal:
    """What a trial is to measure: ``.arch``, ``.seed``, ``.fidelity``.

    Args:
        config: of a trial, as Tune hands it to a trainable.

    Raises:
        ConfigError: it is not from ``TuneSearcher`` or ``population``.
    """
    try:
        return proposal_from_document(json.loads(config[KEY]["proposal"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"this configuration holds no proposal under {KEY!r}, but {sorted(map(str, config))}: "
            "its trial must come from a TuneSearcher or a population"
        ) from error


def architecture_from(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a trial's configuration; raises as ``proposal_from``."""
    return proposal_from(config).arch


def population(strategy: Strategy, n: int) -> dict[str, Any]:
    """The first proposals of a strategy as a search space of Tune, where no searcher is allowed.

        tune.Tuner(trainable, param_space={"lr": 0.1, **population(strategy, 8)}, ...)

    Such a population is drawn once; the strategy hears nothing of its trials.

    Raises:
        UnsupportedRequest: the strategy has not so many before it is told more.
    """
    _refuse_layers(strategy)
    proposals = list(strategy.ask(n))
    if len(proposals) < n:
        raise UnsupportedRequest(
            f"{type(strategy).__name__} proposes {len(proposals)} of {n} architectures before it "
            "is told how they did"
        )
    return {KEY: {"grid_search": [configuration(strategy, proposal) for proposal in proposals]}}


class TuneSearcher(Searcher):
    """A strategy as a search algorithm of Ray Tune.

    A trial's configuration holds the architecture (``architecture_from``), its seed and fidelity
    (``proposal_from``). The strategy is told the objectives' values of the trial's last result,
    also where a scheduler stopped it before its time. A result that breaks a limit, or that says
    ``infeasible``, makes an infeasible trial; an error, a missing or a non-finite value a failed
    one.

    When the strategy has nothing to propose until it is told more, Tune waits; when nothing runs
    either, the sweep ends. ``save`` writes JSON, and ``restore`` unpickles nothing.

    Args:
        strategy: not a layer that has trials continued (``asha``, ``hyperband``, …): give the
            strategy inside it, and a scheduler of Tune's.

    Raises:
        UnsupportedRequest: it is such a layer.
    """

    def __init__(self, strategy: Strategy) -> None:
        _refuse_layers(strategy)
        objectives = strategy.objectives
        metrics: Any = [objective.metric for objective in objectives]  # Ray also takes lists
        modes: Any = [objective.direction[:3] for objective in objectives]
        single = len(objectives) == 1
        super().__init__(metrics[0] if single else metrics, modes[0] if single else modes)
        self.strategy = strategy
        self._most: int | None = None
        self._flying: dict[str, Proposal] = {}
        self._again: list[Proposal] = []  # proposed before a restore, and no trial has them
        self._results: dict[str, dict[str, Any]] = {}  # the last that a running trial reported
        self._restored: tuple[dict[str, Proposal], dict[str, dict[str, Any]]] = ({}, {})

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Says that the search space is set already, so that Tune refuses another.

        Raises:
            ConfigError: Tune is to improve an objective of the strategy in the other direction.
        """
        for objective in self.strategy.objectives:
            if metric == objective.metric and mode not in (None, objective.direction[:3]):
                raise ConfigError(
                    f"Tune's mode of {metric!r} is {mode!r}, and the strategy is to "
                    f"{objective.direction} it"
                )
        return False

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Takes the limit over: the strategy is not asked for more than may run."""
        self._most = max_concurrent
        return True

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial; none yet, or ``FINISHED`` when there is no other."""
        if self._most is not None and len(self._flying) >= self._most:
            return None
        proposals = [self._again.pop(0)] if self._again else list(self.strategy.ask(1))
        if not proposals:
            return None if self._flying else str(self.FINISHED)
        (proposal,) = proposals
        self._flying[trial_id] = proposal
        return {KEY: configuration(self.strategy, proposal)}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Keeps what a trial reports: a scheduler that ends a paused one does not say it again."""
        if trial_id in self._flying:
            self._results[trial_id] = self._relevant(result)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells the strategy. Trials that this searcher did not propose are let be."""
        proposal = self._flying.pop(trial_id, None)
        kept = self._results.pop(trial_id, None)
        if proposal is None:
            return
        found = kept if result is None else self._relevant(result)
        outcome: Outcome
        if error:
            why = "ended with an error, which Tune wrote to its error.txt"
            outcome = Failed("exception", f"Tune's trial {trial_id} {why}")
        elif found is None:
            outcome = Failed("exception", f"Tune's trial {trial_id} ended without a result")
        else:
            outcome = outcome_of(self.strategy.objectives, found)
        own = _cost(found or {})
        # As everywhere: what is infeasible before any training does not count as a trial.
        trials = 0 if isinstance(outcome, Infeasible) and own.epochs == 0 else 1
        cost = Cost(trials, own.seconds, own.epochs) + proposal.spent
        self.strategy.tell(Trial(proposal, outcome, cost))

    def _relevant(self, result: Mapping[str, Any]) -> dict[str, Any]:
        names = [objective.metric for objective in self.strategy.objectives]
        kept = (*names, INFEASIBLE, EPOCHS, "time_total_s")
        return {name: _plain(result[name]) for name in kept if name in result}

    def save(self, checkpoint_path: str) -> None:
        """Writes the strategy's state, and what is in flight, as JSON.

        Raises:
            JournalError: the disk does not take it.
        """
        document = {
            "format": _FORMAT,
            "strategy": describe(self.strategy),
            "state": encoded(self.strategy.state_dict()),
            "flying": {name: proposal_to_document(p) for name, p in self._flying.items()},
            "again": [proposal_to_document(proposal) for proposal in self._again],
            "results": self._results,
        }
        write_file(Path(checkpoint_path), json.dumps(document).encode("utf-8", "surrogatepass"))

    def restore(self, checkpoint_path: str) -> None:
        """Goes on from what ``save`` wrote; what was in flight then is proposed again.

        Raises:
            DataError: the file cannot be read, or is damaged or something else.
            ResumeError: it is of another strategy, or of one with other settings.
        """
        try:
            document = json.loads(Path(checkpoint_path).read_bytes())
            if document["format"] != _FORMAT:
                raise ValueError(f"its format is {document['format']!r}, expected {_FORMAT}")
            described = document["strategy"]
            state = decoded(document["state"])
            flying = {
                name: proposal_from_document(proposal)
                for name, proposal in document["flying"].items()
            }
            again = [proposal_from_document(proposal) for proposal in document["again"]]
            results = {name: dict(result) for name, result in document["results"].items()}
        except Exception as error:  # whatever a damaged file makes of it
            why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            raise DataError(
                f"{checkpoint_path} is not what a TuneSearcher saved: {why:.200}"
            ) from error
        mine = json.loads(json.dumps(describe(self.strategy)))
        if described != mine:
            raise ResumeError(
                f"{checkpoint_path} is of another strategy: {json.dumps(described):.300}, and "
                f"this is {json.dumps(mine):.300}"
            )
        self.strategy.load_state_dict(state)
        self._again = [*flying.values(), *again]
        self._flying, self._results = {}, {}
        self._restored = flying, results

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Goes on with a sweep that Tune restores: of its trials, those go on that Tune has still.

        Tune writes its own state, and copies it to where it is stored, beside and not together
        with this one's. Whoever died in between leaves trials here that are none of Tune's, or
        have ended there; waiting for those would never end.

        Raises:
            DataError, ResumeError: as ``restore``.
        """
        super().restore_from_dir(checkpoint_dir)
        flying, results = self._restored
        for name in _unfinished(Path(checkpoint_dir)) & flying.keys():
            self._again.remove(flying[name])
            self._flying[name] = flying[name]
            if name in results:
                self._results[name] = results[name]


def outcome_of(objectives: Sequence[Objective], result: Mapping[str, Any]) -> Outcome:
    """What a trial's last result says of its architecture.

    Args:
        result: the values by metric, ``infeasible`` among them where a limit was broken.
    """
    values: dict[str, float] = {}
    wrong: Failed | None = None
    for objective in objectives:
        name = objective.metric
        if name not in result:
            message = f"the result has no {name!r}: {nearest(name, result)}"
            wrong = wrong or Failed("exception", message)
            continue
        try:
            value = float(result[name])
        except (TypeError, ValueError):
            wrong = wrong or Failed("exception", f"{name} is {result[name]!r}, not a number")
            continue
        if math.isfinite(value):
            values[name] = value
        else:
            wrong = wrong or Failed("not finite", f"{name} is {value}")
    if result.get(INFEASIBLE):
        return Infeasible(str(result[INFEASIBLE]), values, _cost(result))
    broken = violated(objectives, values)
    if broken is not None:
        return Infeasible(broken, values, _cost(result))
    return wrong or Measured(values, _cost(result))


def _unfinished(folder: Path) -> set[str]:
    """The trials that Tune goes on with, by the newest of its own files in a sweep's folder."""
    states = sorted(folder.glob("experiment_state-*.json"))
    try:
        trials = [json.loads(text) for text, _ in json.loads(states[-1].read_bytes())["trial_data"]]
        return {one["trial_id"] for one in trials if one["status"] not in ("TERMINATED", "ERROR")}
    except (IndexError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder} holds no state of a sweep of Tune's that can be read: {error!r:.200}"
        ) from error


def _cost(result: Mapping[str, Any]) -> Cost:
    def amount(name: str) -> float:
        value = result.get(name, 0.0)
        ok = isinstance(value, int | float) and math.isfinite(value) and value > 0
        return float(value) if ok else 0.0

    return Cost(seconds=amount("time_total_s"), epochs=amount(EPOCHS))


def _plain(value: Any) -> Any:
    """A reported value as JSON has it: numbers of numpy and torch too."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return str(value)


def _refuse_layers(strategy: Strategy) -> None:
    if isinstance(strategy, HasContinuable):
        raise UnsupportedRequest(
            f"{type(strategy).__name__} has trials continued itself, which Tune cannot do: give "
            "the strategy inside it, and a scheduler of Tune's (ASHAScheduler, HyperBandScheduler)"
        )
