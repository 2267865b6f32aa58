"""The built-in evaluators, and the toy that strategies are tested with, hold their contract."""

from __future__ import annotations

import functools
from dataclasses import replace

from evaluators.cost import CostEvaluator
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas.data import digits
from nas.objective import maximize, minimize
from nas.testing import EvaluatorContract
from nas.testing.toys import FlatSpace, NestedSpace, ToyEvaluator, toy_proposals
from nas.trial import Fidelity, Infeasible, Measured
from search_spaces.chain import Chain
from search_spaces.nasbench201 import NasBench201

DIGITS = functools.cache(digits)
SMALL = Fidelity(epochs=1, data_fraction=0.1)


class TestToyEvaluator(EvaluatorContract):
    def space(self):
        return FlatSpace()

    def evaluator(self):
        return ToyEvaluator(self.space())


class TestCostEvaluator(EvaluatorContract):
    samples = 6

    def space(self):
        return NasBench201(channels=4, cells=1)

    def evaluator(self):
        return CostEvaluator(self.space())


class TestCostEvaluatorOfChains(EvaluatorContract):
    samples = 6

    def space(self):
        return Chain()

    def evaluator(self):
        return CostEvaluator(self.space())


class TestTrainingEvaluator(EvaluatorContract):
    samples = 2

    def space(self):
        return NasBench201(channels=2, cells=1, input=(1, 8, 8))

    def evaluator(self):
        return TrainingEvaluator(self.space(), DIGITS(), epochs=2, data_fraction=0.1)


class TestTrainingEvaluatorAtLowFidelity(EvaluatorContract):
    def space(self):
        return Chain(input=(1, 8, 8), widths=(4,), dense_widths=(8,))

    def evaluator(self):
        return TrainingEvaluator(self.space(), DIGITS(), epochs=3, resolution=6, keep_weights=False)

    def proposals(self):
        asked = (SMALL, Fidelity(1, 0.2, 5), Fidelity(epochs=2, data_fraction=0.05))
        return [
            replace(proposal, fidelity=fidelity)
            for proposal, fidelity in zip(toy_proposals(self.space(), 3), asked, strict=True)
        ]

    def fidelities(self):
        return (*super().fidelities(), SMALL, Fidelity(resolution=4))


class TestStaged(EvaluatorContract):
    samples = 4

    def space(self):
        return FlatSpace(classes=10, input=(1, 8, 8))

    def evaluator(self):
        space = self.space()
        training = TrainingEvaluator(space, DIGITS(), epochs=1, data_fraction=0.1)
        # Of the four proposals some keep this limit and some break it.
        objectives = (maximize("accuracy"), minimize("macs", limit=1000.0))
        return Staged((CostEvaluator(space), training), objectives)

    def test_the_limit_parts_the_proposals(self):
        kinds = {type(self.evaluator().evaluate(proposal)) for proposal in self.proposals()}
        assert kinds == {Measured, Infeasible}


class TestStagedOfToys(EvaluatorContract):
    samples = 6

    def space(self):
        return NestedSpace()

    def evaluator(self):
        stages = (CostEvaluator(self.space()), ToyEvaluator(self.space()))
        return Staged(stages, (maximize("score", limit=5.0),))

    def test_the_limit_of_the_last_stage_counts(self):
        outcomes = [self.evaluator().evaluate(proposal) for proposal in self.proposals()]
        assert {type(outcome) for outcome in outcomes} == {Measured, Infeasible}
        for outcome in outcomes:
            assert isinstance(outcome, Infeasible) == (outcome.values["score"] < 5.0)
            assert outcome.values["macs"] > 0


def test_a_preview_needs_no_training():
    staged = TestStaged().evaluator()
    for proposal in toy_proposals(TestStaged().space(), 4):
        costs = {"parameters", "macs", "peak_memory_bytes", "weight_bytes"}
        assert set(staged.preview(proposal.arch)) == costs


def test_a_trained_network_is_better_than_chance():
    space = Chain(input=(1, 8, 8), depths=(2,), kernels=(3,), widths=(16,), strides=(1,))
    evaluator = TrainingEvaluator(space, DIGITS(), epochs=10)
    for proposal in toy_proposals(space, 2):
        assert 0.5 < evaluator.evaluate(proposal).values["accuracy"] <= 1.0
