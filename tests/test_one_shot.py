"""The one-shot evaluator: inherited weights, one training for all trials, and its checkpoint."""

from __future__ import annotations

import functools
import itertools
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.cost import CostEvaluator
from evaluators.one_shot import CHECKPOINT, OneShot
from evaluators.staged import Staged
from nas.budget import Budget
from nas.components import create, describe
from nas.data import digits, split
from nas.errors import ConfigError, DataError, ResumeError, UnsupportedRequest
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import maximize
from nas.search import search
from nas.space import sample
from nas.supernet.training import PathSettings, PathTraining
from nas.testing import EvaluatorContract
from nas.testing.compare import first_difference
from nas.testing.toys import FlatSpace, toy_proposals
from nas.training import evaluate, fetch
from nas.trial import Fidelity, Measured, Proposal
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution

DIGITS = functools.cache(digits)
SPACE = NasBench201(channels=4, cells=1, input=(1, 8, 8))
QUICK = PathSettings(epochs=2, batch_size=128, learning_rate=0.1)
OBJECTIVES = (maximize("accuracy"),)


def one_shot(checkpoint=None, space=SPACE, **arguments):
    arguments = {"settings": QUICK, "recalibration_batches": 2, "device": "cpu", **arguments}
    return OneShot(space, DIGITS(), checkpoint, **arguments)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A trained evaluator and its checkpoint."""
    path = tmp_path_factory.mktemp("fitted") / CHECKPOINT
    evaluator = one_shot(path)
    evaluator.fit()
    return evaluator


@pytest.fixture
def training_is_counted(monkeypatch):
    """The list grows by one for every epoch of a supernet."""
    epochs = []
    advance = PathTraining.advance

    def counted(self):
        advance(self)
        epochs.append(self.epoch)

    monkeypatch.setattr(PathTraining, "advance", counted)
    return epochs


class TestOneShot(EvaluatorContract):
    samples = 2

    def space(self):
        return SPACE

    def evaluator(self):
        return one_shot()


class TestOneShotOverNumbers(EvaluatorContract):
    samples = 2

    def space(self):
        return FlatSpace(classes=10, input=(1, 8, 8))

    def evaluator(self):
        return one_shot(space=self.space(), recalibration_batches=0)


@pytest.mark.slow
class TestFairOneShot(EvaluatorContract):
    samples = 2

    def space(self):
        return SPACE

    def evaluator(self):
        return one_shot(sampling="fair", settings=PathSettings(epochs=1, batch_size=256))


# --------------------------------------------------------------------------- what is scored


def test_scores_are_those_of_the_extracted_recalibrated_network(fitted):
    supernet, _ = fitted._supernet()
    part, held_out = split(DIGITS(), 0.2)
    batches = [fetch(part, torch.arange(i, i + 128))[0] for i in (0, 128)]
    for proposal in toy_proposals(SPACE, 3, seed=5):
        network = supernet.extract(proposal.arch)
        # The statistics written out: a plain average over the two batches.
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        network.train()
        with torch.no_grad():
            for batch in batches:
                network(batch)
        accuracy, loss = evaluate(network.eval(), held_out)
        assert fitted.evaluate(proposal).values == {"accuracy": accuracy, "loss": loss}


def test_without_recalibration_the_supernets_own_statistics_are_used(fitted):
    plain = one_shot(fitted.checkpoint, recalibration_batches=0)
    supernet, batches = plain._supernet()
    assert not batches
    (proposal,) = toy_proposals(SPACE, 1, seed=9)
    accuracy, loss = evaluate(supernet.extract(proposal.arch), split(DIGITS(), 0.2)[1])
    assert plain.evaluate(proposal).values == {"accuracy": accuracy, "loss": loss}
    assert loss != fitted.evaluate(proposal).values["loss"]
    means = [v for k, v in supernet.state_dict().items() if k.endswith("running_mean")]
    assert sum(bool(mean.any()) for mean in means) > 10  # training has moved them


def test_a_trained_supernet_knows_good_architectures_from_bad():
    settings = PathSettings(epochs=12, batch_size=32, learning_rate=0.3)
    evaluator = one_shot(settings=settings, recalibration_batches=15)
    texts = {
        "convolutions": "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|"
        "+|skip_connect~0|none~1|nor_conv_3x3~2|",
        "nothing": "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    }
    found = {
        name: evaluator.evaluate(Proposal(0, SPACE.parse(text))).values["accuracy"]
        for name, text in texts.items()
    }
    assert found["nothing"] < 0.2
    assert found["convolutions"] > 0.6


def test_inherited_weights_have_no_fidelity(fitted):
    (proposal,) = toy_proposals(SPACE, 1)
    with pytest.raises(UnsupportedRequest, match="epochs=3"):
        fitted.evaluate(Proposal(0, proposal.arch, fidelity=Fidelity(epochs=3)))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"sampling": "unifrom"}, ConfigError, "did you mean 'uniform'"),
        ({"recalibration_batches": -1}, ConfigError, "recalibration_batches must be at least 0"),
        ({"seed": -1}, ConfigError, "seed must be at least 0"),
        ({"validation_fraction": 1.0}, ConfigError, "validation share"),
        ({"space": NasBench201()}, DataError, "1x8x8"),
        (
            {"space": FlatSpace(classes=10, input=(1, 8, 8)), "sampling": "fair"},
            UnsupportedRequest,
            "'width' has 4 options",
        ),
    ],
)
def test_nonsense_is_refused_before_any_training(arguments, error, says):
    with pytest.raises(error, match=says):
        one_shot(**arguments)


# ------------------------------------------------------------------------------ one training


def test_the_supernet_is_trained_once_and_travels_with_the_evaluator(training_is_counted):
    evaluator = one_shot()
    cost = evaluator.fit()
    assert training_is_counted == [1, 2]
    assert (cost.trials, cost.epochs) == (0, 2.0)
    assert cost.seconds > 0
    assert evaluator.fit() == cost
    worker = pickle.loads(pickle.dumps(evaluator))
    (proposal,) = toy_proposals(SPACE, 1)
    assert worker.evaluate(proposal) == evaluator.evaluate(proposal)
    assert worker.fit() == cost
    assert training_is_counted == [1, 2]


def test_fair_sampling_costs_a_pass_for_every_option():
    evaluator = one_shot(sampling="fair", settings=PathSettings(epochs=1, batch_size=256))
    assert evaluator.fit().epochs == 5.0


@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_a_killed_training_goes_on_to_the_same_bits(sampling, tmp_path, training_is_counted):
    class Killed(Exception):
        pass

    def kill(epoch, loss):
        raise Killed

    settings = PathSettings(epochs=3, batch_size=128)
    whole = one_shot(tmp_path / "whole", sampling=sampling, settings=settings)
    whole.fit()
    path = tmp_path / "killed"
    for _ in range(2):
        with pytest.raises(Killed):
            one_shot(path, sampling=sampling, settings=settings).fit(on_epoch=kill)
    resumed = one_shot(path, sampling=sampling, settings=settings)
    resumed.fit()
    assert training_is_counted == [1, 2, 3, 1, 2, 3]
    assert whole._weights.keys() == resumed._weights.keys()
    assert all(torch.equal(whole._weights[key], resumed._weights[key]) for key in whole._weights)
    assert not (tmp_path / "killed.part").exists()


def test_a_checkpoint_of_another_training_is_refused(fitted, tmp_path):
    path = tmp_path / "copy"
    shutil.copy(fitted.checkpoint, path)
    with pytest.raises(ResumeError, match=r"seed is 0 there and 1 here"):
        one_shot(path, seed=1).fit()
    with pytest.raises(ResumeError, match=r"settings is .*'epochs': 2"):
        one_shot(path, settings=PathSettings(epochs=4)).fit()
    with pytest.raises(ResumeError, match="space is"):
        one_shot(path, NasBench201(channels=5, cells=1, input=(1, 8, 8))).fit()


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_refused_by_name(fitted, tmp_path, damage):
    path = tmp_path / "damaged"
    content = Path(fitted.checkpoint).read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(DataError, match="damaged"):
        one_shot(path).fit()


# --------------------------------------------------------------------------------- searches


def found(trials):
    return [(trial.proposal, trial.outcome, trial.cost.epochs) for trial in trials]


@pytest.mark.parametrize("strategy", [RandomSearch, RegularizedEvolution])
def test_a_search_trains_first_and_charges_the_first_trial(strategy, tmp_path, training_is_counted):
    def run(folder, stop=None):
        strategies = {RegularizedEvolution: {"population_size": 3, "sample_size": 2}}
        chosen = strategy(SPACE, OBJECTIVES, 0, **strategies.get(strategy, {}))
        history = History(folder)
        trials = search(chosen, one_shot(), Serial(), Budget(trials=6), history)
        list(itertools.islice(trials, stop))
        trials.close()
        return history

    whole = run(tmp_path / "whole")
    assert [trial.cost.epochs for trial in whole.trials] == [2.0, 0, 0, 0, 0, 0]
    assert all(isinstance(trial.outcome, Measured) for trial in whole.trials)
    assert (tmp_path / "whole" / CHECKPOINT).exists()
    assert training_is_counted == [1, 2]
    run(tmp_path / "broken", stop=2)
    resumed = run(tmp_path / "broken")
    assert training_is_counted == [1, 2, 1, 2]
    assert not first_difference(found(resumed.trials), found(whole.trials))
    assert resumed.spent.epochs == 2.0
    (tmp_path / "broken" / CHECKPOINT).unlink()
    assert len(run(tmp_path / "broken").trials) == 6
    assert training_is_counted == [1, 2, 1, 2]  # nothing was left to measure


def test_a_budget_that_the_training_uses_up_starts_no_trial():
    history = History()
    strategy = RandomSearch(SPACE, OBJECTIVES)
    assert not list(search(strategy, one_shot(), Serial(), Budget(epochs=2.0), history))
    assert list(search(strategy, one_shot(), Serial(), Budget(trials=1, epochs=3.0), history))


def test_a_stage_of_several_is_trained_as_well(tmp_path, training_is_counted):
    objectives = (maximize("accuracy"),)
    staged = Staged((CostEvaluator(SPACE), one_shot()), objectives)
    assert staged.fit(tmp_path).epochs == 2.0
    (proposal,) = toy_proposals(SPACE, 1)
    values = staged.evaluate(proposal).values
    assert {"accuracy", "macs"} <= set(values)
    assert training_is_counted == [1, 2]


def test_a_description_brings_the_settings_back(tmp_path):
    evaluator = one_shot(tmp_path / "file", sampling="fair")
    again = create("evaluators", describe(evaluator), "evaluator")
    assert again.settings == QUICK
    assert again.sampling == "fair"
    assert str(again.checkpoint) == str(evaluator.checkpoint)


def test_a_random_architecture_is_scored_alike_whatever_was_scored_before(fitted):
    archs = [sample(SPACE, np.random.default_rng(seed)) for seed in range(3)]
    first = [fitted.evaluate(Proposal(0, arch)).values for arch in archs]
    again = [fitted.evaluate(Proposal(0, arch)).values for arch in reversed(archs)]
    assert first == again[::-1]
