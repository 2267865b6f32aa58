"""Trials that start from their parent's weights: what they measure, and what can go wrong."""

from __future__ import annotations

import functools
import signal
from dataclasses import replace

import pytest
import torch
from inheriting import FRACTION, TRIALS, DiesOnce, run, space
from morphing import CHAIN, chain
from safetensors.torch import load, save
from workloads import driver, wait_until

from evaluators.cost import CostEvaluator
from evaluators.inherited import InheritedTraining
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas import History, Serial, maximize
from nas.budget import Cost
from nas.data import digits
from nas.delivery import WEIGHTS
from nas.errors import ConfigError, UnsupportedRequest
from nas.evaluator import HasInheritance
from nas.execution.guard import run_trial
from nas.execution.ray import RayExecutor
from nas.history import ARTIFACTS, JOURNAL
from nas.testing import EvaluatorContract
from nas.testing.toys import FlatSpace, Inherits, toy_proposals
from nas.training import Recipe
from nas.trial import Failed, Fidelity, Measured, Proposal, Trial

DIGITS = functools.cache(digits)


class TestInheritedTraining(EvaluatorContract):
    samples = 2

    def space(self):
        return space()

    def evaluator(self):
        return InheritedTraining(
            self.space(), DIGITS(), epochs=1, first_epochs=2, data_fraction=0.1, device="cpu"
        )


class TestStagedWithInheritance(EvaluatorContract):
    samples = 2

    def space(self):
        return space()

    def evaluator(self):
        training = InheritedTraining(self.space(), DIGITS(), data_fraction=0.05, device="cpu")
        return Staged([CostEvaluator(self.space()), training], (maximize("accuracy"),))


# ------------------------------------------------------------------------------- one child

PARENT, CHILD = chain((3, 4, 2), (3, 6, 1)), chain((3, 9, 2), (5, 6, 1))


def evaluator(**others):
    settings = {"epochs": 2, "data_fraction": 0.3, "device": "cpu"} | others
    return InheritedTraining(CHAIN, DIGITS(), **settings)


@pytest.fixture(scope="module")
def parent():
    recipe = Recipe(batch_size=32)
    trained = evaluator(epochs=8, data_fraction=1.0, recipe=recipe)
    return run_trial(trained, Proposal(0, PARENT, seed=1))


def test_without_a_parent_it_is_the_training_evaluator():
    proposal = Proposal(0, PARENT, seed=3)
    mine = evaluator().evaluate(proposal)
    plain = TrainingEvaluator(CHAIN, DIGITS(), epochs=2, data_fraction=0.3, device="cpu")
    theirs = plain.evaluate(proposal)
    assert mine.values == theirs.values
    assert mine.notes == theirs.notes
    assert mine.artifacts == theirs.artifacts


def test_a_child_starts_where_its_parent_ended(parent):
    proposal = Proposal(1, CHILD, seed=2, parent=0)
    # A rate of next to nothing: what is measured is what was inherited.
    still = evaluator(epochs=1, recipe=Recipe(learning_rate=1e-9, weight_decay=0.0))
    found = run_trial(still, proposal, parent)
    note = found.notes["inherited"]
    assert note["preserved"] is True
    assert note["parent"] == 0
    assert 0.3 < note["share"] <= 1
    assert "why" not in note
    fresh = run_trial(still, proposal)
    assert fresh.notes["inherited"] == {
        "parent": 0,
        "share": 0.0,
        "preserved": False,
        "why": "the parent's trial was not measured",
    }
    # Statistics move in training, so that it is not the very same.
    assert abs(found.values["accuracy"] - parent.values["accuracy"]) < 0.15
    assert found.values["accuracy"] > fresh.values["accuracy"] + 0.2
    assert found.notes["curve"][0] < fresh.notes["curve"][0]


def test_epochs_of_those_that_inherit_and_those_that_do_not(parent):
    both = evaluator(epochs=1, first_epochs=3)
    child = Proposal(1, CHILD, parent=0)
    assert run_trial(both, child, parent).cost.epochs == pytest.approx(0.3)
    assert run_trial(both, child).cost.epochs == pytest.approx(0.9)
    asked = replace(child, fidelity=Fidelity(epochs=2))
    assert run_trial(both, asked, parent).cost.epochs == pytest.approx(0.6)
    assert both.planned_epochs(Fidelity()) == pytest.approx(0.9)
    assert both.planned_epochs(Fidelity(epochs=2)) == pytest.approx(0.6)


def test_what_a_child_cannot_preserve_is_said(parent):
    shrunk = Proposal(1, chain((3, 4, 2)), parent=0)
    note = run_trial(evaluator(epochs=1), shrunk, parent).notes["inherited"]
    assert note["preserved"] is False
    assert 0 < note["share"] < 1
    assert note["why"]


@pytest.mark.parametrize("harm", ["missing", "cut", "another", "nan"])
def test_weights_that_cannot_be_used(parent, harm):
    blob = parent.outcome.artifacts[WEIGHTS]
    tensors = load(blob)
    artifacts = {
        "missing": {},
        "cut": {WEIGHTS: blob[:-40]},
        "another": {WEIGHTS: save({"weight": torch.zeros(3)})},
        "nan": {WEIGHTS: save({n: torch.full_like(t, 3) * torch.nan for n, t in tensors.items()
                               if t.is_floating_point()} | {n: t for n, t in tensors.items()
                                                            if not t.is_floating_point()})},
    }[harm]  # fmt: skip
    bare = replace(parent, outcome=replace(parent.outcome, artifacts=artifacts))
    proposal = Proposal(1, CHILD, seed=2, parent=0)
    found = run_trial(evaluator(epochs=1), proposal, bare)
    anew = run_trial(evaluator(epochs=1), replace(proposal, parent=None))
    assert found.values == anew.values
    says = {"missing": "has no model.safetensors", "nan": "not finite"}.get(harm, "not to be used")
    assert says in found.notes["inherited"]["why"]
    assert found.notes["inherited"]["share"] == 0


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="first_epochs must be at least 1, got 0"):
        evaluator(first_epochs=0)
    with pytest.raises(ConfigError, match=r"noise must be at least 0 and below 1, got 1\.5"):
        evaluator(noise=1.5)
    with pytest.raises(ConfigError, match="threads must be at least 1"):
        evaluator(threads=0)
    with pytest.raises(ConfigError, match="epochs must be at least 1"):
        evaluator(epochs=0)
    with pytest.raises(UnsupportedRequest, match="cells=1 asks for networks of other channels"):
        evaluator().evaluate(Proposal(0, CHILD, fidelity=Fidelity(cells=1)))


# ------------------------------------------------------------------------------ the search


def essence(trials):
    return sorted((t.number, t.proposal, dict(t.values), dict(t.notes)) for t in trials)


@pytest.fixture(scope="module")
def uninterrupted():
    return run(Serial(), History())


def test_a_search_hands_down_what_was_learnt(uninterrupted, tmp_path):
    assert len(uninterrupted) == TRIALS
    for trial in uninterrupted:
        note = trial.notes.get("inherited")
        if trial.proposal.parent is None:
            assert note is None
            assert trial.cost.epochs == pytest.approx(2 * FRACTION)
        else:
            assert note["preserved"], note
            assert note["parent"] == trial.number - 2
            assert trial.cost.epochs == pytest.approx(FRACTION)
    assert essence(run(Serial(), History(tmp_path))) == essence(uninterrupted)
    assert len(list(tmp_path.glob(f"{ARTIFACTS}/*/{WEIGHTS}"))) == TRIALS


def test_a_driver_that_was_killed_goes_on(uninterrupted, tmp_path):
    path = tmp_path / JOURNAL
    with driver("import inheriting; inheriting.main()", str(tmp_path)) as process:
        begun = wait_until(
            lambda: path.exists() and path.read_bytes().count(b'"event":"trial"') >= 3, 120
        )
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert begun, errors
    history = History(tmp_path)
    assert len(history.trials) < TRIALS
    assert essence(run(Serial(), history)) == essence(uninterrupted)


@pytest.mark.slow
def test_on_ray_with_a_worker_that_is_killed_it_is_the_same(uninterrupted, tmp_path):
    import ray
    from clusters import start

    start(num_cpus=1)
    try:
        history = History(tmp_path / "run")
        found = run(RayExecutor(workers=1), history, DiesOnce(str(tmp_path)))
        assert (tmp_path / "died").exists()
        assert essence(found) == essence(uninterrupted)
    finally:
        ray.shutdown()


def test_weights_lost_on_disk_cost_a_new_start_and_nothing_else(uninterrupted, tmp_path):
    history = History(tmp_path)
    lost = tmp_path / ARTIFACTS / "2" / WEIGHTS

    class Loses(DiesOnce):
        def evaluate(self, proposal):
            return super().evaluate(proposal)

        def evaluate_child(self, proposal, parent):
            if parent.number == 2:
                assert lost.exists()
                outcome = replace(parent.outcome, artifacts={})
                parent = replace(parent, outcome=outcome)
            return super().evaluate_child(proposal, parent)

    found = run(Serial(), history, Loses())
    assert all(isinstance(trial.outcome, Measured) for trial in found)
    assert found[4].notes["inherited"]["why"] == f"trial 2 has no {WEIGHTS}"
    assert [t.values for t in found[:4]] == [t.values for t in uninterrupted[:4]]


def test_a_history_finds_the_parent_or_gives_none(tmp_path):
    for folder in (None, tmp_path):
        history = History(folder)
        history.begin({})
        one, two, three = toy_proposals(FlatSpace(), 3)
        history.asked(3, [one, two, three])
        measured = Measured({"score": 1.0}, artifacts={"a": b"1"})
        history.append(Trial(one, measured, Cost()))
        history.append(Trial(two, Failed("timeout", "too long"), Cost()))
        assert history.parent(three) is None
        assert history.parent(replace(three, parent=0)).outcome.artifacts == {"a": b"1"}
        assert history.parent(replace(three, parent=1)) is None
        assert history.parent(replace(three, parent=2)) is None
        history.close()


def test_what_is_continued_is_not_inherited():
    one, two = toy_proposals(FlatSpace(), 2)
    first = run_trial(Inherits(), one)
    assert isinstance(Inherits(), HasInheritance)
    assert run_trial(Inherits(), replace(two, parent=0), first).values == {"score": 2.0}
    again = replace(two, arch=one.arch, parent=0, continues=0)
    assert run_trial(Inherits(), again, first).values == {"score": 1.0}
