"""The search loop: a generator that a reader can follow and break out of."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from nas import __version__
from nas.budget import Budget, Cost
from nas.components import describe
from nas.errors import InfeasibleLimit, UnsupportedRequest
from nas.evaluator import (
    Evaluator,
    HasFit,
    HasInheritance,
    OnEpoch,
    WantsHistory,
    informed,
    planned_epochs,
)
from nas.execution import Executor, HasGrowth
from nas.feasibility import check_limits
from nas.history import History
from nas.machine import machine
from nas.objective import check_objectives
from nas.strategy import HasContinuable, Strategy
from nas.trial import Infeasible, Proposal, Trial

MOST_INFEASIBLE = 1000
"""What is infeasible before training costs no trial of the budget; so many in a row are the end."""


def search(
    strategy: Strategy,
    evaluator: Evaluator,
    executor: Executor,
    budget: Budget,
    history: History,
    on_fit: OnEpoch | None = None,
) -> Generator[Trial, None, None]:
    """Runs a search, yielding each trial when it is on disk and the strategy has heard of it.

    Over a history that already has trials it goes on where they end: trials that were in
    flight are run again, finished ones are not. Under ``Serial`` the continued search equals
    the uninterrupted one. Break out whenever you like; what runs then is ended.

    Args:
        on_fit: told of each epoch while an evaluator is prepared (``nas.evaluator.HasFit``).

    Raises:
        ConfigError: the evaluator does not measure an objective.
        InfeasibleLimit: no architecture seems to meet the limits.
        ResumeError: the history is of another search (space, strategy, seed, evaluator).
        JournalError: the disk does not take what was found.
    """
    check_objectives(strategy.objectives, evaluator.metrics)
    if history.header is None:
        check_limits(strategy, evaluator)
    # Asked once: whether it follows a protocol takes longer to find out than to look a trial up.
    inherits = isinstance(evaluator, HasInheritance)
    informs = isinstance(evaluator, WantsHistory)
    growing = executor if isinstance(executor, HasGrowth) else None
    infeasible_in_a_row = 0
    flying: dict[int, Proposal] = {}
    try:
        _ = executor.free  # where there is no cluster, nothing is written
        history.begin(header(strategy, evaluator, executor, budget))
        waiting = deque(history.replay(strategy))
        _drop_checkpoints(strategy, history)
        # Here rather than in a trial: workers get it ready-made, and no time limit strikes.
        fitted = Cost()
        if isinstance(evaluator, HasFit) and (waiting or budget.allows(history.spent)):
            fitted = evaluator.fit(history.folder, on_fit)
        while True:
            ahead = history.spent + executor.committed + _committed(evaluator, waiting, history)
            if not history.trials:
                ahead += fitted
            room = min(executor.free - len(waiting), budget.allows(ahead))
            if room > 0:
                proposals = list(strategy.ask(room))
                if len(proposals) > room:
                    raise UnsupportedRequest(
                        f"{type(strategy).__name__}.ask({room}) returned {len(proposals)} proposals"
                    )
                if proposals:
                    history.asked(room, proposals)
                    waiting.extend(proposals)
            while waiting and executor.free > 0:
                proposal = waiting.popleft()
                flying[proposal.number] = proposal
                told = informed(evaluator, proposal, history.trials) if informs else proposal
                executor.submit(evaluator, told, _start(proposal, history, inherits))
            if executor.idle:
                history.snapshot(strategy, now=True)
                return
            if growing is not None and not growing.wait():
                continue  # no trial has ended, and there is room for more
            trial = executor.next()
            trial = replace(trial, proposal=flying.pop(trial.number))
            if not history.trials:
                trial = replace(trial, cost=trial.cost + fitted)
            trial = history.append(trial)
            strategy.tell(trial)
            history.snapshot(strategy)
            _drop_checkpoints(strategy, history)
            yield trial
            if not isinstance(trial.outcome, Infeasible):
                infeasible_in_a_row = 0
                continue
            infeasible_in_a_row += 1
            if infeasible_in_a_row == MOST_INFEASIBLE:
                raise InfeasibleLimit(
                    f"{MOST_INFEASIBLE} architectures in a row broke a limit, the last because "
                    f"{trial.outcome.reason}: raise the limit, or make the networks smaller"
                )
    finally:
        executor.close()
        history.close()


def _start(proposal: Proposal, history: History, inherits: bool) -> Trial | None:
    """The trial that a proposal's evaluation starts from, where it starts from one."""
    if proposal.continues is None and inherits:
        return history.parent(proposal)
    return history.earlier(proposal)


def _committed(evaluator: Evaluator, waiting: deque[Proposal], history: History) -> Cost:
    epochs = 0.0
    for proposal in waiting:
        earlier = None if proposal.continues is None else history.trial(proposal.continues)
        before = None if earlier is None else earlier.proposal.fidelity
        epochs += planned_epochs(evaluator, proposal.fidelity, before)
    return Cost(trials=len(waiting), epochs=epochs)


def _drop_checkpoints(strategy: Strategy, history: History) -> None:
    if history.checkpoints:
        kept = strategy.continuable() if isinstance(strategy, HasContinuable) else ()
        history.checkpoints.keep(kept)


def header(
    strategy: Strategy, evaluator: Evaluator, executor: Executor, budget: Budget
) -> dict[str, Any]:
    """What a journal's first line says of a run: enough to build it again."""
    return {
        "version": __version__,
        "space": strategy.space.name,
        "strategy": describe(strategy),
        "evaluator": describe(evaluator),
        "executor": describe(executor),
        "budget": {key: v for key, v in describe(budget).items() if key != "name"},
        "machine": machine(),
    }
