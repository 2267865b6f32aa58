"""The contracts of strategies, evaluators and executors catch what they are there for."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_contracts import refused

from nas.budget import Cost
from nas.execution.serial import Serial
from nas.objective import Metric
from nas.space import sample
from nas.testing import EvaluatorContract, ExecutorContract, StrategyContract
from nas.testing.toys import FlatSpace, ToyEvaluator, Uniform
from nas.trial import Measured

# ----------------------------------------------------------------------------- strategies


class FromOne(Uniform):
    def _propose(self, number):
        return replace(super()._propose(number), number=number + 1)


class Generous(Uniform):
    def ask(self, n):
        return super().ask(n + 1)


class Illegal(Uniform):
    def _propose(self, number):
        proposal = super()._propose(number)
        return replace(proposal, arch=replace(proposal.arch, picks=proposal.arch.picks[:-1]))


class GlobalRandom(Uniform):
    def _propose(self, number):
        rng = np.random.default_rng(int(np.random.randint(2**31)))
        return replace(super()._propose(number), arch=sample(self.space, rng))


class Unseeded(Uniform):
    def _propose(self, number):
        arch = sample(self.space, np.random.default_rng([number]))
        return replace(super()._propose(number), arch=arch)


class HashOrdered(Uniform):
    def _propose(self, number):
        shift = hash("option 3") % 2**32  # the order of a set comes from it: another a process
        rng = np.random.default_rng([self.seed, number, shift])
        return replace(super()._propose(number), arch=sample(self.space, rng))


class Counting(Uniform):
    """Proposals depend on how often it was asked; subclasses lose the count in some way."""

    def __init__(self, space, objectives, seed=0):
        super().__init__(space, objectives, seed)
        self.asked = [0]

    def ask(self, n):
        self.asked[0] += 1
        return super().ask(n)

    def _propose(self, number):
        rng = np.random.default_rng([self.seed, number, self.asked[0]])
        return replace(super()._propose(number), arch=sample(self.space, rng))


class LiveState(Counting):
    def state_dict(self):
        return {**super().state_dict(), "asked": self.asked}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.asked = state["asked"]


class SetState(Uniform):
    def state_dict(self):
        return {**super().state_dict(), "seen": {1, 2}}


class Learner(Uniform):
    """Draws from all it was told."""

    def __init__(self, space, objectives, seed=0):
        super().__init__(space, objectives, seed)
        self.told = 0.0

    def gain(self, trial):
        return sum(v for k, v in trial.values.items() if k in {o.metric for o in self.objectives})

    def tell(self, trial):
        self.told += self.gain(trial)

    def _propose(self, number):
        rng = np.random.default_rng([self.seed, number, int(self.told * 1000)])
        return replace(super()._propose(number), arch=sample(self.space, rng))


class ForgetfulLearner(Learner):
    pass


class Nosy(Learner):
    def gain(self, trial):
        return abs(sum(trial.values.values()))


class Demanding(Uniform):
    def tell(self, trial):
        assert trial.values["accuracy"] >= 0


class Fragile(Uniform):
    def tell(self, trial):
        assert isinstance(trial.outcome, Measured)


class Careless(Uniform):
    def __init__(self, space, objectives, seed=0):
        self.space, self.objectives, self.seed, self._number = space, objectives, abs(seed), 0


class Renamed(Uniform):
    def __init__(self, space, objectives, seed=0, temperature=1.0):
        super().__init__(space, objectives, seed)
        self._temperature = temperature


@pytest.mark.parametrize(
    ("strategy", "law"),
    [
        (FromOne, "test_proposals_are_numbered_and_legal"),
        (Generous, "test_proposals_are_numbered_and_legal"),
        (Illegal, "test_proposals_are_numbered_and_legal"),
        (Generous, "test_asking_for_none_gives_none_and_changes_nothing"),
        (LiveState, "test_asking_for_none_gives_none_and_changes_nothing"),
        (GlobalRandom, "test_global_random_state_is_neither_used_nor_moved"),
        (GlobalRandom, "test_same_seed_same_proposals"),
        (Unseeded, "test_another_seed_other_proposals"),
        (HashOrdered, "test_same_proposals_in_another_process"),
        (LiveState, "test_state_is_a_copy"),
        (SetState, "test_state_is_plain"),
        (Counting, "test_loaded_state_continues_identically"),
        (ForgetfulLearner, "test_loaded_state_continues_identically"),
        (Nosy, "test_asks_for_no_metric_but_its_objectives"),
        (Demanding, "test_asks_for_no_metric_but_its_objectives"),
        (Fragile, "test_goes_on_when_everything_fails"),
        (Careless, "test_nonsense_is_refused"),
        (Renamed, "test_description_makes_the_same_strategy"),
    ],
)
def test_a_broken_strategy_is_caught(strategy, law):
    class Contract(StrategyContract):
        def strategy(self, space, objectives, seed):
            return strategy(space, objectives, seed)

    refused(Contract(), law)


def test_a_strategy_that_forgets_does_not_resume(tmp_path):
    class Contract(StrategyContract):
        def strategy(self, space, objectives, seed):
            return ForgetfulLearner(space, objectives, seed)

    refused(Contract(), "test_resumed_search_equals_the_uninterrupted_one", tmp_path, "snapshot")


# ----------------------------------------------------------------------------- evaluators


class Undeclared(ToyEvaluator):
    metrics = (Metric("score", "1", "maximize"),)


class Twice(ToyEvaluator):
    metrics = (Metric("score", "1", "maximize"), Metric("score", "1", "minimize"))


class Noisy(ToyEvaluator):
    noise = staticmethod(lambda proposal: np.random.default_rng().random())

    def evaluate(self, proposal):
        outcome = super().evaluate(proposal)
        return replace(outcome, values={**outcome.values, "score": self.noise(proposal)})


class GlobalNoise(Noisy):
    noise = staticmethod(lambda proposal: np.random.random())


class SeedsTorch(Noisy):
    @staticmethod
    def noise(proposal):
        torch.manual_seed(proposal.seed)
        return float(torch.rand(()))


class Remembers(Noisy):
    def noise(self, proposal):
        object.__setattr__(self, "last", getattr(self, "last", 0) + 1)
        return self.last


class Understates(ToyEvaluator):
    def evaluate(self, proposal):
        return replace(super().evaluate(proposal), cost=Cost(epochs=3.0))


class Trusting(ToyEvaluator):
    def evaluate(self, proposal):
        return Measured({"score": 1.0, "cost": 1.0})


class Previews(ToyEvaluator):
    def preview(self, arch):
        return {"cost": -1.0}


class HoldsAModule(ToyEvaluator):
    def evaluate(self, proposal):
        object.__setattr__(self, "used", os)
        return super().evaluate(proposal)


class Precise(ToyEvaluator):
    def evaluate(self, proposal):
        torch.set_default_dtype(torch.float64)
        return super().evaluate(proposal)


@pytest.mark.parametrize(
    ("evaluator", "law"),
    [
        (Undeclared, "test_measures_what_it_declares"),
        (Twice, "test_metrics_are_declared"),
        (Noisy, "test_same_seed_same_values"),
        (GlobalNoise, "test_same_seed_same_values"),
        (GlobalNoise, "test_leaves_the_global_random_state_alone"),
        (SeedsTorch, "test_leaves_the_global_random_state_alone"),
        (Remembers, "test_same_seed_same_values"),
        (Remembers, "test_is_picklable_also_after_use"),
        (Understates, "test_epochs_are_what_a_trial_trains_at_most"),
        (Trusting, "test_refuses_an_architecture_of_another_space"),
        (Previews, "test_preview_equals_the_measurement"),
        (HoldsAModule, "test_is_picklable_also_after_use"),
        (Precise, "test_leaves_torch_as_it_was"),
    ],
)
def test_a_broken_evaluator_is_caught(evaluator, law):
    class Contract(EvaluatorContract):
        def space(self):
            return FlatSpace()

        def evaluator(self):
            return evaluator(FlatSpace())

    try:
        refused(Contract(), law)
    finally:
        torch.set_default_dtype(torch.float32)


# ------------------------------------------------------------------------------ executors


class Uncommitted(Serial):
    @property
    def committed(self):
        return Cost()


class Swaps(Serial):
    def next(self):
        trial = super().next()
        return replace(trial, proposal=replace(trial.proposal, number=trial.number + 1))


class Raises(Serial):
    def next(self):
        (evaluator, proposal, _), self._waiting = self._waiting, None
        outcome = evaluator.evaluate(proposal)
        return super().next() if outcome is None else outcome


class NeverCloses(Serial):
    def close(self):
        pass


class Endless(Serial):
    @property
    def free(self):
        return 1

    def submit(self, evaluator, proposal, earlier=None):
        self._waiting = (evaluator, proposal, earlier)


@pytest.mark.parametrize(
    ("executor", "law", "arguments"),
    [
        (Uncommitted, "test_accounts_for_what_is_in_flight", ()),
        (Uncommitted, "test_commits_the_epochs_a_proposal_asks_for", ()),
        (Swaps, "test_every_proposal_comes_back_once", ()),
        (Raises, "test_failures_are_values", ("raises", "exception")),
        (Raises, "test_a_failure_says_what_happened", ()),
        (NeverCloses, "test_close_drops_what_is_in_flight_and_can_be_used_again", ()),
        (Endless, "test_more_than_is_free_is_refused", ()),
        (Endless, "test_accounts_for_what_is_in_flight", ()),
    ],
)
def test_a_broken_executor_is_caught(executor, law, arguments):
    class Contract(ExecutorContract):
        def make(self):
            return executor()

    refused(Contract(), law, executor(), *arguments)
