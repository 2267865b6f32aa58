"""The contract of an executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from nas.budget import Budget, Cost
from nas.errors import NasError
from nas.execution import Executor, HasGrowth
from nas.history import History
from nas.objective import maximize
from nas.search import search
from nas.testing.compare import first_difference
from nas.testing.toys import (
    Continues,
    FlatSpace,
    Inherits,
    Misbehaves,
    ToyEvaluator,
    Uniform,
    toy_proposals,
)
from nas.trial import Failed, Fidelity, Infeasible, Measured, Proposal, Trial


class ExecutorContract(ABC):
    """What every executor holds. Give ``make`` and, if it limits trials, ``make_limited``.

    Attributes:
        most: how many proposals are submitted at once at most.
    """

    most: ClassVar[int] = 4

    @abstractmethod
    def make(self) -> Executor:
        """A new executor."""

    def make_limited(self, time_limit_s: float) -> Executor | None:
        """One that ends a trial after so many seconds, if it does that."""
        return None

    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        executor = self.make()
        yield executor
        executor.close()

    # ------------------------------------------------------------------------- accounting

    def test_begins_idle(self, executor: Executor) -> None:
        assert executor.free > 0
        assert executor.idle
        assert executor.committed == Cost()

    def test_accounts_for_what_is_in_flight(self, executor: Executor) -> None:
        space = FlatSpace()
        evaluator = ToyEvaluator(space)
        proposals = toy_proposals(space, min(self.most, executor.free))
        free = executor.free
        for done, proposal in enumerate(proposals, start=1):
            executor.submit(evaluator, proposal)
            assert executor.free == free - done
            assert not executor.idle
            assert executor.committed.trials == done
            assert executor.committed.epochs == pytest.approx(2.0 * done)
        for left in reversed(range(len(proposals))):
            executor.next()
            assert executor.committed.trials == left
            assert executor.committed.epochs == pytest.approx(2.0 * left)
            assert executor.idle == (left == 0)
        assert executor.free == free
        assert executor.committed == Cost()

    def test_commits_the_epochs_a_proposal_asks_for(self, executor: Executor) -> None:
        space = FlatSpace()
        arch = toy_proposals(space, 1)[0].arch
        executor.submit(ToyEvaluator(space), Proposal(0, arch, fidelity=Fidelity(epochs=7)))
        assert executor.committed.epochs == 7.0
        assert executor.next().cost.epochs == 7.0

    def test_every_proposal_comes_back_once(self, executor: Executor) -> None:
        space = FlatSpace()
        evaluator = ToyEvaluator(space)
        waiting = toy_proposals(space, 3 * self.most)
        wanted = {proposal.number: proposal for proposal in waiting}
        trials: list[Trial] = []
        while waiting or not executor.idle:
            while waiting and executor.free > 0:
                executor.submit(evaluator, waiting.pop(0))
            trials.append(executor.next())
        assert sorted(trial.number for trial in trials) == sorted(wanted)
        for trial in trials:
            assert trial.proposal == wanted[trial.number]
            assert isinstance(trial.outcome, Measured)
            assert trial.outcome == evaluator.evaluate(trial.proposal)
            assert trial.cost.trials == 1
            assert trial.cost.seconds > 0
            assert trial.cost.epochs == 2.0

    def test_waits_for_one_that_next_then_has(self, executor: Executor) -> None:
        if not isinstance(executor, HasGrowth):
            pytest.skip("what it holds does not grow")
        with pytest.raises(NasError, match="nothing was submitted"):
            executor.wait()
        evaluator = ToyEvaluator(FlatSpace())
        for proposal in toy_proposals(FlatSpace(), min(2, executor.free)):
            executor.submit(evaluator, proposal)
        while not executor.idle:
            while not executor.wait():  # it grew
                pass
            assert isinstance(executor.next().outcome, Measured)

    def test_what_a_proposal_spent_is_part_of_its_trial(self, executor: Executor) -> None:
        space = FlatSpace()
        arch = toy_proposals(space, 1)[0].arch
        executor.submit(ToyEvaluator(space), Proposal(0, arch, spent=Cost(seconds=90, epochs=5)))
        cost = executor.next().cost
        assert cost.trials == 1
        assert cost.seconds > 90
        assert cost.epochs == 7.0

    def test_hands_on_the_trial_that_is_continued(self, executor: Executor) -> None:
        arch = toy_proposals(FlatSpace(), 1)[0].arch
        first = Proposal(0, arch, fidelity=Fidelity(epochs=2))
        executor.submit(Continues(), first)
        trial = executor.next()
        assert trial.values == {"score": 2.0}
        second = Proposal(1, arch, fidelity=Fidelity(epochs=5), continues=0)
        executor.submit(Continues(), second, trial)
        assert executor.committed.epochs == 3.0
        assert (again := executor.next()).proposal == second
        assert again.values == {"score": 5.0}
        assert again.cost.epochs == 3.0
        # One that can continue nothing trains from the start, and is charged for it.
        executor.submit(ToyEvaluator(FlatSpace()), second, trial)
        assert executor.committed.epochs == 5.0
        assert executor.next().cost.epochs == 5.0

    def test_hands_on_the_trial_that_a_proposal_was_made_from(self, executor: Executor) -> None:
        first, second, third = toy_proposals(FlatSpace(), 3)
        executor.submit(Inherits(), first)
        trial = executor.next()
        executor.submit(Inherits(), replace(second, parent=0), trial)
        assert executor.committed.epochs == 1.0
        trial = executor.next()
        assert trial.values == {"score": 2.0}
        executor.submit(Inherits(), replace(third, parent=1), trial)
        assert executor.next().values == {"score": 3.0}
        # One that takes nothing over measures as ever.
        executor.submit(ToyEvaluator(FlatSpace()), replace(third, parent=1), trial)
        assert executor.next().outcome == ToyEvaluator(FlatSpace()).evaluate(third)

    # --------------------------------------------------------------------------- failures

    @pytest.mark.parametrize(
        ("how", "cause"), [("raises", "exception"), ("nan", "not finite"), ("memory", "memory")]
    )
    def test_failures_are_values(self, executor: Executor, how: str, cause: str) -> None:
        trial = self._one(executor, Misbehaves(how))
        assert isinstance(trial.outcome, Failed)
        assert trial.outcome.cause == cause
        assert trial.outcome.message
        assert trial.cost.trials == 1
        assert executor.idle
        # The next one is none the worse for it.
        assert isinstance(self._one(executor, ToyEvaluator(FlatSpace())).outcome, Measured)

    def test_a_failure_says_what_happened(self, executor: Executor) -> None:
        outcome = self._one(executor, Misbehaves("raises")).outcome
        assert isinstance(outcome, Failed)
        assert "the cable is loose" in outcome.message
        assert "\n" not in outcome.message.strip()
        assert "Misbehaves" in outcome.traceback or "evaluate" in outcome.traceback

    def test_infeasible_is_passed_on(self, executor: Executor) -> None:
        outcome = self._one(executor, Misbehaves("infeasible")).outcome
        assert outcome == Infeasible("cost is 9, must be at most 5", {"cost": 9.0})

    def test_an_illegal_architecture_fails_alone(self, executor: Executor) -> None:
        arch = toy_proposals(FlatSpace(), 1)[0].arch
        executor.submit(
            ToyEvaluator(FlatSpace()), Proposal(0, type(arch)("another/v1", arch.picks))
        )
        outcome = executor.next().outcome
        assert isinstance(outcome, Failed)
        assert "another/v1" in outcome.message

    def test_a_trial_that_takes_too_long_is_ended(self) -> None:
        executor = self.make_limited(1.0)
        if executor is None:
            pytest.skip("it does not limit trials")
        try:
            trial = self._one(executor, Misbehaves("sleeps"))
            assert isinstance(trial.outcome, Failed)
            assert trial.outcome.cause == "timeout"
            assert 1.0 <= trial.cost.seconds < 50.0
            assert isinstance(self._one(executor, ToyEvaluator(FlatSpace())).outcome, Measured)
        finally:
            executor.close()

    def test_more_than_is_free_is_refused(self, executor: Executor) -> None:
        free = executor.free
        if free > 32:
            pytest.skip(f"it has {free} places")
        evaluator = ToyEvaluator(FlatSpace())
        *fitting, surplus = toy_proposals(FlatSpace(), free + 1)
        for proposal in fitting:
            executor.submit(evaluator, proposal)
        with pytest.raises(NasError):
            executor.submit(evaluator, surplus)
        assert executor.committed.trials == free
        assert {executor.next().number for _ in fitting} == set(range(free))
        assert executor.idle

    def test_waiting_for_nothing_is_refused(self, executor: Executor) -> None:
        with pytest.raises(NasError):
            executor.next()

    # ---------------------------------------------------------------------------- closing

    def test_close_drops_what_is_in_flight_and_can_be_used_again(self, executor: Executor) -> None:
        free = executor.free
        for proposal in toy_proposals(FlatSpace(), min(self.most, free)):
            executor.submit(Misbehaves("sleeps"), proposal)
        executor.close()
        assert executor.idle
        assert executor.free == free
        assert executor.committed == Cost()
        executor.close()
        for number in (5, 6):
            trial = self._one(executor, ToyEvaluator(FlatSpace()), number)
            assert trial.number == number
            assert isinstance(trial.outcome, Measured)

    def test_a_search_runs_on_it(self) -> None:
        space = FlatSpace()
        strategy = Uniform(space, (maximize("score"),), seed=3)
        history = History()
        budget = Budget(trials=2 * self.most + 1)
        for trial in search(strategy, ToyEvaluator(space), self.make(), budget, history):
            assert isinstance(trial.outcome, Measured)
        expected = Uniform(space, (maximize("score"),), seed=3).ask(2 * self.most + 1)
        proposals = sorted((trial.proposal for trial in history.trials), key=lambda p: p.number)
        assert not first_difference(proposals, expected)
        assert history.spent.trials == 2 * self.most + 1

    # ---------------------------------------------------------------------------- helpers

    def _one(
        self, executor: Executor, evaluator: ToyEvaluator | Misbehaves, number: int = 0
    ) -> Trial:
        proposal = toy_proposals(FlatSpace(), number + 1)[number]
        executor.submit(evaluator, proposal)
        trial = executor.next()
        assert trial.proposal == proposal
        return trial
