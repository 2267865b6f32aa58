"""The contract of an evaluator."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from nas.architecture import Architecture
from nas.budget import Cost
from nas.components import create, describe
from nas.errors import NasError
from nas.evaluator import (
    Evaluator,
    HasContinuation,
    HasInheritance,
    HasPreview,
    planned_epochs,
)
from nas.space import SearchSpace
from nas.testing.toys import toy_proposals
from nas.trial import Fidelity, Infeasible, Measured, Proposal, Trial


class EvaluatorContract(ABC):
    """What every evaluator holds. Give ``space`` and ``evaluator``.

    Attributes:
        samples: how many architectures are measured.
        tolerance: how far two measurements of one proposal may lie apart, relative; infinity
            for an evaluator that measures the clock.
    """

    samples: ClassVar[int] = 3
    tolerance: ClassVar[float] = 0.0

    @abstractmethod
    def space(self) -> SearchSpace:
        """The space whose architectures it measures."""

    @abstractmethod
    def evaluator(self) -> Evaluator:
        """A new evaluator with settings that measure in a moment."""

    def proposals(self) -> Sequence[Proposal]:
        """What is measured; override it to ask for fidelities."""
        return toy_proposals(self.space(), self.samples)

    def fidelities(self) -> Sequence[Fidelity]:
        """Fidelities that it takes, each of which is given to ``epochs`` alone."""
        return (Fidelity(), Fidelity(epochs=1), Fidelity(epochs=3))

    # -------------------------------------------------------------------------- metrics

    def test_metrics_are_declared(self) -> None:
        metrics = self.evaluator().metrics
        assert metrics
        assert len({metric.name for metric in metrics}) == len(metrics)
        for metric in metrics:
            assert metric.name
            assert isinstance(metric.unit, str)
            assert metric.direction in ("maximize", "minimize")

    def test_measures_what_it_declares(self) -> None:
        evaluator = self.evaluator()
        declared = {metric.name for metric in evaluator.metrics}
        for proposal in self.proposals():
            outcome = evaluator.evaluate(proposal)
            if isinstance(outcome, Infeasible):
                assert outcome.reason
                assert set(outcome.values) <= declared
                continue
            assert set(outcome.values) == declared
            assert all(map(math.isfinite, outcome.values.values()))
            json.dumps(dict(outcome.notes), allow_nan=False)
            assert all(isinstance(content, bytes) for content in outcome.artifacts.values())

    def test_epochs_are_what_a_trial_trains_at_most(self) -> None:
        evaluator = self.evaluator()
        for fidelity in self.fidelities():
            epochs = evaluator.planned_epochs(fidelity)
            assert math.isfinite(epochs)
            assert epochs >= 0
        assert evaluator.planned_epochs(Fidelity(epochs=1)) <= evaluator.planned_epochs(
            Fidelity(epochs=3)
        )
        for proposal in self.proposals():
            outcome = evaluator.evaluate(proposal)
            assert outcome.cost.epochs <= evaluator.planned_epochs(proposal.fidelity) + 1e-9

    def test_preview_equals_the_measurement(self) -> None:
        evaluator = self.evaluator()
        if not isinstance(evaluator, HasPreview):
            pytest.skip("nothing of it is had at once")
        declared = {metric.name for metric in evaluator.metrics}
        for proposal in self.proposals():
            preview = evaluator.preview(proposal.arch)
            assert set(preview) <= declared
            outcome = evaluator.evaluate(proposal)
            for name, value in preview.items():
                if name in outcome.values:
                    self._assert_close(value, outcome.values[name])

    def test_a_continued_trial_measures_what_one_at_once_does(self) -> None:
        evaluator = self.evaluator()
        if not isinstance(evaluator, HasContinuation):
            pytest.skip("it continues no trial")
        short, long = Fidelity(epochs=1), Fidelity(epochs=3)
        for proposal in self.proposals()[:1]:
            first = replace(proposal, number=0, fidelity=short)
            second = replace(proposal, number=1, fidelity=long, continues=0)
            outcome = evaluator.evaluate(first)
            whole = evaluator.evaluate(replace(second, continues=None))
            continued = evaluator.evaluate_from(second, Trial(first, outcome, Cost(trials=1)))
            self._assert_same(continued, whole)
            planned = planned_epochs(evaluator, long, short)
            assert continued.cost.epochs <= planned + 1e-9
            assert planned <= evaluator.planned_epochs(long)

    def test_a_child_starts_from_its_parent_alone(self) -> None:
        evaluator = self.evaluator()
        if not isinstance(evaluator, HasInheritance):
            pytest.skip("it takes nothing over from another trial")
        first = replace(self.proposals()[0], number=0)
        second = replace(self.proposals()[-1], number=1, parent=0)
        parent = Trial(first, evaluator.evaluate(first), Cost(trials=1))
        child = evaluator.evaluate_child(second, parent)
        assert child.cost.epochs <= evaluator.planned_epochs(second.fidelity) + 1e-9
        again = self.evaluator()
        assert isinstance(again, HasInheritance)
        self._assert_same(again.evaluate_child(second, parent), child)
        if not isinstance(parent.outcome, Measured):
            return
        # Without what the parent left, or with something else in its place, it is as any other.
        anew = evaluator.evaluate(replace(second, parent=None))
        damaged = dict.fromkeys(parent.outcome.artifacts, b"not this")
        for artifacts in ({}, damaged):
            bare = replace(parent, outcome=replace(parent.outcome, artifacts=artifacts))
            self._assert_same(evaluator.evaluate_child(second, bare), anew)

    def test_refuses_an_architecture_of_another_space(self) -> None:
        proposal = self.proposals()[0]
        alien = Architecture("another/v1", proposal.arch.picks)
        with pytest.raises(NasError):
            self.evaluator().evaluate(replace(proposal, arch=alien))

    # --------------------------------------------------------------------- repeatability

    def test_same_seed_same_values(self) -> None:
        proposals = self.proposals()
        one, other = self.evaluator(), self.evaluator()
        first = [one.evaluate(proposal) for proposal in proposals]
        # In another order, and from another global state: neither may play a part.
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        second = [other.evaluate(proposal) for proposal in reversed(proposals)][::-1]
        for mine, theirs in zip(first, second, strict=True):
            self._assert_same(mine, theirs)

    def test_leaves_the_global_random_state_alone(self) -> None:
        evaluator = self.evaluator()
        before = random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state()
        for proposal in self.proposals():
            evaluator.evaluate(proposal)
        assert random.getstate() == before[0]
        assert pickle.dumps(np.random.get_state()) == before[1]
        assert torch.equal(torch.get_rng_state(), before[2])

    def test_leaves_torch_as_it_was(self) -> None:
        before = _torch_settings()
        for proposal in self.proposals():
            self.evaluator().evaluate(proposal)
        assert _torch_settings() == before

    def test_is_picklable_also_after_use(self) -> None:
        proposals = self.proposals()
        evaluator = self.evaluator()
        first = [evaluator.evaluate(proposal) for proposal in proposals]
        copy: Evaluator = pickle.loads(pickle.dumps(evaluator))
        assert copy.metrics == evaluator.metrics
        for proposal, outcome in zip(proposals, first, strict=True):
            self._assert_same(copy.evaluate(proposal), outcome)

    def test_description_makes_the_same_evaluator(self) -> None:
        evaluator = self.evaluator()
        description = json.loads(json.dumps(describe(evaluator)))
        again: Evaluator = create("evaluators", description, "evaluator")
        assert describe(again) == description
        assert again.metrics == evaluator.metrics
        for fidelity in self.fidelities():
            assert again.planned_epochs(fidelity) == evaluator.planned_epochs(fidelity)
        for proposal in itertools.islice(self.proposals(), 1):
            self._assert_same(again.evaluate(proposal), evaluator.evaluate(proposal))

    # ---------------------------------------------------------------------------- helpers

    def _assert_same(self, one: Measured | Infeasible, other: Measured | Infeasible) -> None:
        assert type(one) is type(other)
        assert set(one.values) == set(other.values)
        for name, value in one.values.items():
            self._assert_close(value, other.values[name])

    def _assert_close(self, one: float, other: float) -> None:
        if math.isfinite(self.tolerance):
            assert one == pytest.approx(other, rel=self.tolerance, abs=0.0)


def _torch_settings() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )
