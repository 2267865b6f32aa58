"""Making a table: whole, resumed after a kill, with failures, on Ray."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from made_up_tables import Tiny
from torch.utils.data import TensorDataset

from nas.cost import parameters_and_macs
from nas.data import digits, from_datasets
from nas.encoding import from_ordinal
from nas.errors import ConfigError, DataError, ResumeError
from nas.execution.ray import RayExecutor
from nas.execution.serial import Serial
from nas.history import JOURNAL, History
from nas.objective import maximize
from nas.space import enumerate_architectures
from nas.tables import load, save
from nas.tables.making import (
    Exhaustive,
    Latency,
    LearningCurves,
    Part,
    assemble,
    timing,
    training,
)
from nas.testing import EvaluatorContract, StrategyContract
from nas.testing.toys import FlatSpace
from nas.training import Recipe, evaluate, initialised, train
from nas.trial import Failed, Fidelity, Proposal

TINY = Tiny()
COUNT = 4

CONFIG = """
space: made_up_tables:Tiny
data: digits
training: {epochs: 2, validation_fraction: 0.9, recipe: {batch_size: 128}, device: cpu}
runs: 10
seed: 5
latency: {runs: 1, warmup: 0, rounds: 1}
"""


def curves(space=TINY, epochs=2):
    recipe = Recipe(batch_size=128)
    return LearningCurves(space, digits(), epochs, 0.9, recipe=recipe, device="cpu")


class TestExhaustive(StrategyContract):
    def strategy(self, space, objectives, seed):
        return Exhaustive(space, objectives, seed, repeats=2)

    def test_another_seed_other_proposals(self):
        one, other = (Exhaustive(FlatSpace(), [maximize("score")], seed) for seed in (0, 1))
        seeds = [{p.seed for p in strategy.ask(64)} for strategy in (one, other)]
        assert seeds == [{0}, {1}]  # the architectures are the same: all of them


def test_it_lists_the_space_in_order_with_a_seed_a_pass():
    strategy = Exhaustive(FlatSpace(), [maximize("score")], seed=7, repeats=2)
    every = list(enumerate_architectures(FlatSpace()))
    asked = [*strategy.ask(50), *strategy.ask(1000)]
    assert [p.number for p in asked] == list(range(len(strategy))) == list(range(128))
    assert [p.arch for p in asked] == every * 2
    assert [p.seed for p in asked] == [7] * 64 + [8] * 64
    assert strategy.ask(3) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"seed": -1}, "seed"), ({"repeats": 0}, "repeats must be at least 1, got 0")],
)
def test_it_refuses_what_cannot_be(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Exhaustive(FlatSpace(), [maximize("score")], **arguments)


def test_it_refuses_a_space_that_is_too_large():
    class Large(FlatSpace):
        def size(self):
            return 10**9

    with pytest.raises(ConfigError, match="1,000,000,000 architectures"):
        Exhaustive(Large(), [maximize("score")])


class TestLearningCurves(EvaluatorContract):
    samples = 2

    def space(self):
        return TINY

    def evaluator(self):
        return curves()

    def proposals(self):
        return [
            Proposal(number, arch, number)
            for number, arch in zip((0, 1), enumerate_architectures(TINY), strict=False)
        ]

    def fidelities(self):
        return (Fidelity(),)


class TestLatency(EvaluatorContract):
    samples = 2
    tolerance = math.inf

    def space(self):
        return TINY

    def evaluator(self):
        return Latency(TINY, 3, 1)


def test_curves_are_those_of_an_ordinary_training():
    arch = list(enumerate_architectures(TINY))[-1]
    found = curves(epochs=3).evaluate(Proposal(0, arch, 11))
    from nas.data import split

    data = digits()
    part, held_out = split(data, 0.9)
    network = initialised(TINY, arch, 11)
    losses = train(network, part, Recipe(batch_size=128), 3, 11, crop_padding=data.crop_padding)
    assert found.notes["train_loss"] == losses
    accuracy, loss = evaluate(network, held_out)
    assert found.notes["validation_accuracy"][-1] == accuracy
    assert found.values["validation_loss"] == found.notes["validation_loss"][-1] == loss
    assert len(set(found.notes["validation_loss"])) == 3
    assert (found.values["test_accuracy"], found.values["test_loss"]) == evaluate(
        network, data.test
    )
    assert 0 < found.notes["seconds_per_epoch"] < 60
    assert found.cost.epochs == 3


def made(folder, evaluator, runs=1, executor=None, **arguments):
    for _ in training(folder, evaluator, runs, **arguments).run(executor or Serial()):
        pass
    for _ in timing(folder, Latency(evaluator.space, 2, 0), 2).run(Serial()):
        pass
    return assemble(folder)


def test_the_table_holds_every_architecture(tmp_path):
    table = made(tmp_path / "work", curves(epochs=2), runs=2, seed=3)
    assert table.seeds == (3, 4)
    assert table.datasets == ("digits",)
    assert len(table) == COUNT
    every = list(enumerate_architectures(TINY))
    assert [from_ordinal(TINY, picks) for picks in table.picks] == every
    trials = {trial.number: trial for trial in History(tmp_path / "work" / "training").trials}
    for row, arch in enumerate(every):
        assert (
            table.counts["parameters"][0, row],
            table.counts["macs"][0, row],
        ) == parameters_and_macs(TINY, arch)
        for run in range(2):
            trial = trials[run * COUNT + row]
            assert trial.arch == arch
            assert trial.proposal.seed == 3 + run
            for name, quantity in table.quantities.items():
                expected = trial.notes.get(name, [trial.values[name]])
                assert quantity.values[0, row, run].tolist() == expected
            assert table.seconds_per_epoch[0, row, run] == trial.notes["seconds_per_epoch"]
    assert table.quantities["validation_accuracy"].epochs == (1, 2)
    assert table.quantities["test_accuracy"].epochs == (2,)
    rounds = [trial.values["latency_ms"] for trial in History(tmp_path / "work" / "latency").trials]
    assert table.latency_ms[0].tolist() == np.reshape(rounds, (2, COUNT)).min(axis=0).tolist()
    save(table, tmp_path / "t.npz")
    assert load(tmp_path / "t.npz").facts == table.facts


def test_a_training_that_fails_is_a_gap(tmp_path):
    class FailsOnce(LearningCurves):
        def evaluate(self, proposal):
            if proposal.number == 3:
                raise RuntimeError("the cable is loose")
            return super().evaluate(proposal)

    part = training(tmp_path, curves(epochs=1), 1)
    failing = FailsOnce(TINY, digits(), 1, 0.9, Recipe(batch_size=128), "cpu")
    # The journal's header names the evaluator: it is that of the parent for the table's maker.
    trials = list(Part(part.strategy, failing, part.folder).run(Serial()))
    assert isinstance(trials[3].outcome, Failed)
    table = assemble(tmp_path)
    values = table.quantities["test_accuracy"].values[0, :, 0, 0]
    assert np.flatnonzero(np.isnan(values)).tolist() == [3]
    assert np.flatnonzero(np.isnan(table.seconds_per_epoch[0, :, 0])).tolist() == [3]
    assert table.facts["failed trainings"] == 1
    assert table.devices == ()
    save(table, tmp_path / "t.npz")
    assert np.isnan(load(tmp_path / "t.npz").quantities["train_loss"].values[0, 3]).all()


def test_no_complete_run_makes_no_table(tmp_path):
    with pytest.raises(DataError, match="holds no trainings"):
        assemble(tmp_path)
    running = training(tmp_path, curves(epochs=1), 1).run(Serial())
    next(running)
    running.close()
    with pytest.raises(DataError, match="1 trainings of 4 architectures: no run is complete"):
        assemble(tmp_path)


def test_a_folder_is_not_continued_with_other_settings(tmp_path):
    running = training(tmp_path, curves(epochs=1), 1).run(Serial())
    next(running)
    running.close()
    with pytest.raises(ResumeError, match="epochs is 1 in the journal and 2"):
        next(training(tmp_path, curves(epochs=2), 1).run(Serial()))


def test_data_without_a_test_set_have_no_test_accuracy():
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = from_datasets(TensorDataset(images, torch.arange(20) % 10))
    evaluator = LearningCurves(TINY, data, 1, 0.5, Recipe(batch_size=8), "cpu")
    assert [metric.name for metric in evaluator.metrics] == [
        "validation_accuracy",
        "validation_loss",
        "train_loss",
    ]
    outcome = evaluator.evaluate(Proposal(0, next(enumerate_architectures(TINY))))
    assert set(outcome.values) == {metric.name for metric in evaluator.metrics}


def test_data_of_ones_own_make_a_table_too(tmp_path):
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = from_datasets(TensorDataset(images, torch.arange(20) % 10))
    table = made(tmp_path, LearningCurves(TINY, data, 1, 0.5, Recipe(batch_size=8), "cpu"))
    assert table.datasets == ("custom",)
    assert list(table.quantities) == ["validation_accuracy", "validation_loss", "train_loss"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"epochs": 0}, "epochs"),
        ({"threads": 0}, "threads"),
        ({"validation_fraction": 1.0}, "share"),
    ],
)
def test_learning_curves_refuse(arguments, says):
    with pytest.raises(ConfigError, match=says):
        LearningCurves(TINY, digits(), **arguments)


@pytest.mark.parametrize("arguments", [{"runs": 0}, {"warmup": -1}])
def test_latency_refuses(arguments):
    with pytest.raises(ConfigError, match="runs must be at least 1"):
        Latency(TINY, **arguments)


# --------------------------------------------------------------------- killed, and on Ray


def command(folder, config):
    return [sys.executable, "-m", "nas.cli", "bench", "make", str(config), "--out", str(folder)]


def test_killed_it_goes_on_and_the_table_is_the_same(tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG)
    folder = tmp_path / "killed"
    journal = folder / "training" / JOURNAL
    here = os.path.dirname(__file__)  # a configuration names a module beside it
    process = subprocess.Popen(
        command(folder, config), cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while (journal.read_bytes().count(b"\n") if journal.exists() else 0) < 12:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = journal.read_bytes().rpartition(b"\n")[0]
    assert before.count(b"\n") < 80, "it was over before it was killed"
    done = subprocess.run(
        command(folder, config), cwd=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert journal.read_bytes().startswith(before)
    numbers = [trial.number for trial in History(folder / "training").trials]
    assert numbers == list(range(10 * COUNT))
    killed = load(folder / "table.npz")
    assert killed.seeds == tuple(range(5, 15))
    assert killed.facts["command"] == "nas bench make tiny.yaml"
    whole = made(tmp_path / "whole", curves(epochs=2), runs=10, seed=5)
    for name, quantity in whole.quantities.items():
        assert killed.quantities[name].values == pytest.approx(quantity.values, rel=1e-3)
    accuracy = whole.quantities["validation_accuracy"].values.astype(np.float32)
    assert np.array_equal(killed.quantities["validation_accuracy"].values, accuracy)
    assert (folder / "table.md").read_text().startswith("# made_up_tables:Tiny: 4 trained")


@pytest.mark.slow
def test_workers_on_ray_make_the_same_table(tmp_path):
    one = made(tmp_path / "serial", curves(epochs=1))
    other = made(tmp_path / "ray", curves(epochs=1), executor=RayExecutor(workers=2))
    for name, quantity in one.quantities.items():
        assert np.array_equal(other.quantities[name].values, quantity.values)
