"""The tabular evaluator: the contract, and that it says what the table says."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from made_up_tables import made_up_table

from evaluators.tabular import TabularEvaluator
from nas.budget import Budget, Cost
from nas.errors import ConfigError, DataError, InvalidArchitecture, UnsupportedRequest
from nas.evaluator import planned_epochs
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import maximize, minimize
from nas.search import search
from nas.space import enumerate_architectures, sample
from nas.tables import save
from nas.tables.making import Exhaustive
from nas.testing import EvaluatorContract
from nas.testing.toys import FlatSpace, NestedSpace
from nas.trial import Failed, Fidelity, Infeasible, Measured, NotFinite, Proposal, Trial
from strategies.random_search import RandomSearch

SPACE = FlatSpace()
TABLE = made_up_table(SPACE)
EVERY = list(enumerate_architectures(SPACE))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "made_up.npz"
    save(TABLE, path)
    return str(path)


class TestTabular(EvaluatorContract):
    samples = 20

    @pytest.fixture(autouse=True)
    def _file(self, file):
        self.file = file

    def space(self):
        return SPACE

    def evaluator(self):
        return TabularEvaluator(SPACE, self.file, "one", device="fast_one")


class TestTabularByRun(EvaluatorContract):
    """Choices that open others, one run by the proposal's seed, half precision where it is kept."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path_factory):
        self.file = str(tmp_path_factory.mktemp("tables") / "nested.npz")
        save(made_up_table(NestedSpace(), datasets=("only",)), self.file)

    def space(self):
        return NestedSpace()

    def evaluator(self):
        return TabularEvaluator(NestedSpace(), self.file, epochs=2, runs="seed")


def test_every_value_is_the_tables_mean_over_runs(file):
    evaluator = TabularEvaluator(SPACE, file, "two", device="slow_one")
    for row, arch in enumerate(EVERY):
        for point, epochs in enumerate((1, 2, 3, 5)):
            outcome = evaluator.evaluate(Proposal(0, arch, 7, Fidelity(epochs)))
            found = {name: q.values[1, row] for name, q in TABLE.quantities.items()}
            accuracy = found["validation_accuracy"][:, point].mean()
            assert outcome.values == pytest.approx(
                {
                    "accuracy": accuracy,
                    "error": 1 - accuracy,
                    "loss": found["validation_loss"][:, point].mean(),
                    "parameters": TABLE.counts["parameters"][1, row],
                    "macs": TABLE.counts["macs"][1, row],
                    "latency_ms": TABLE.latency_ms[0, row],
                },
                rel=2e-3,  # half precision of losses and latencies
            )
            assert outcome.values["accuracy"] == pytest.approx(accuracy, abs=1e-7)
            seconds = epochs * TABLE.seconds_per_epoch[1, row].mean()
            assert outcome.cost.epochs == epochs
            assert outcome.cost.seconds == pytest.approx(seconds, rel=1e-3)


def test_the_seed_picks_a_run(file):
    evaluator = TabularEvaluator(SPACE, file, "one", runs="seed")
    for seed in range(7):
        outcome = evaluator.evaluate(Proposal(0, EVERY[5], seed))
        run = TABLE.quantities["validation_accuracy"].values[0, 5, seed % 3, -1]
        assert outcome.values["accuracy"] == pytest.approx(run, abs=1e-7)
        seconds = 5 * TABLE.seconds_per_epoch[0, 5, seed % 3]
        assert outcome.cost.seconds == pytest.approx(seconds, rel=1e-3)


def test_what_is_reported_as_what_can_be_said(file):
    evaluator = TabularEvaluator(SPACE, file, "one", report={"accuracy": "test_accuracy"})
    assert [metric.name for metric in evaluator.metrics] == [
        "accuracy",
        "error",
        "parameters",
        "macs",
    ]
    assert evaluator.planned_epochs(Fidelity()) == 5
    outcome = evaluator.evaluate(Proposal(0, EVERY[9]))
    test = TABLE.quantities["test_accuracy"].values[0, 9, :, -1].mean()
    assert outcome.values["accuracy"] == pytest.approx(test, abs=1e-7)
    regret = TabularEvaluator(SPACE, file, "one", report={"worth": "validation_loss"}, epochs=2)
    assert regret.metrics[0].name == "worth"
    assert regret.metrics[0].direction == "minimize"
    assert "error" not in regret.evaluate(Proposal(0, EVERY[9])).values


def test_a_continued_trial_costs_the_epochs_added(file):
    evaluator = TabularEvaluator(SPACE, file, "one")
    first = Proposal(0, EVERY[3], 4, Fidelity(epochs=2))
    second = Proposal(1, EVERY[3], 4, Fidelity(epochs=5), continues=0)
    trial = Trial(first, evaluator.evaluate(first), Cost(1))
    outcome, whole = evaluator.evaluate_from(second, trial), evaluator.evaluate(second)
    assert outcome.values == whole.values
    assert outcome.cost.epochs == 3 == planned_epochs(evaluator, second.fidelity, first.fidelity)
    assert outcome.cost.seconds == pytest.approx(0.6 * whole.cost.seconds)
    with pytest.raises(ConfigError, match="cannot continue trial 0"):
        evaluator.evaluate_from(replace(second, arch=EVERY[4]), trial)


def test_what_is_no_continuation_costs_all_and_says_why(file, tmp_path):
    by_run = TabularEvaluator(SPACE, file, "one", runs="seed")
    first = Proposal(0, EVERY[3], 4, Fidelity(epochs=2))
    trial = Trial(first, by_run.evaluate(first), Cost(1))
    other_seed = Proposal(1, EVERY[3], 5, Fidelity(epochs=5), continues=0)
    outcome = by_run.evaluate_from(other_seed, trial)
    assert outcome.cost.epochs == 5
    assert "another seed" in outcome.notes["restarted"]
    no_longer = Proposal(1, EVERY[3], 4, Fidelity(epochs=2), continues=0)
    outcome = by_run.evaluate_from(no_longer, trial)
    assert outcome.cost.epochs == 2
    assert "2 epochs already" in outcome.notes["restarted"]
    assert planned_epochs(by_run, Fidelity(2), Fidelity(2)) == 2
    save(replace(TABLE, one_training=False), tmp_path / "apart.npz")
    apart = TabularEvaluator(SPACE, str(tmp_path / "apart.npz"), "one")
    outcome = apart.evaluate_from(replace(other_seed, seed=4), trial)
    assert outcome.cost.epochs == 5 == planned_epochs(apart, Fidelity(5), Fidelity(2))
    assert "training of its own" in outcome.notes["restarted"]


def test_a_failed_training_fails_and_the_mean_is_of_the_others(tmp_path):
    values = {name: q.values.copy() for name, q in TABLE.quantities.items()}
    seconds = TABLE.seconds_per_epoch.copy()
    for array in (*values.values(), seconds):
        array[0, 0, 1] = np.nan
        array[0, 1] = np.nan
    quantities = {n: replace(q, values=values[n]) for n, q in TABLE.quantities.items()}
    save(replace(TABLE, quantities=quantities, seconds_per_epoch=seconds), tmp_path / "t.npz")
    mean = TabularEvaluator(SPACE, str(tmp_path / "t.npz"), "one")
    outcome = mean.evaluate(Proposal(0, EVERY[0]))
    others = TABLE.quantities["validation_accuracy"].values[0, 0, [0, 2], -1].mean()
    assert outcome.values["accuracy"] == pytest.approx(others, abs=1e-7)
    with pytest.raises(NotFinite):
        mean.evaluate(Proposal(0, EVERY[1]))
    by_run = TabularEvaluator(SPACE, str(tmp_path / "t.npz"), "one", runs="seed")
    with pytest.raises(NotFinite):
        by_run.evaluate(Proposal(0, EVERY[0], seed=1))
    assert isinstance(by_run.evaluate(Proposal(0, EVERY[0], seed=2)), Measured)
    strategy = Exhaustive(SPACE, [maximize("accuracy")])
    trials = list(search(strategy, mean, Serial(), Budget(trials=100), History()))
    assert [t.number for t in trials if isinstance(t.outcome, Failed)] == [1]


def test_without_a_latency_it_is_infeasible(tmp_path):
    latency = TABLE.latency_ms.copy()
    latency[1, 4] = np.nan
    save(replace(TABLE, latency_ms=latency), tmp_path / "t.npz")
    evaluator = TabularEvaluator(SPACE, str(tmp_path / "t.npz"), "one", device="fast_one")
    outcome = evaluator.evaluate(Proposal(0, EVERY[4]))
    assert isinstance(outcome, Infeasible)
    assert "'fast_one'" in outcome.reason
    assert outcome.cost == Cost()
    assert set(evaluator.preview(EVERY[4])) == {"parameters", "macs"}
    other = TabularEvaluator(SPACE, str(tmp_path / "t.npz"), "one", device="slow_one")
    assert isinstance(other.evaluate(Proposal(0, EVERY[4])), Measured)


def test_a_search_on_it_finds_the_tables_best_and_is_charged_its_seconds(file):
    evaluator = TabularEvaluator(SPACE, file, "one", device="fast_one")
    strategy = RandomSearch(SPACE, [maximize("accuracy"), minimize("latency_ms")])
    history = History()
    trials = list(search(strategy, evaluator, Serial(), Budget(trials=1000), history))
    forms = {SPACE.canonical(arch) for arch in EVERY}
    assert len(trials) == len(forms)
    rows = {arch: row for row, arch in enumerate(EVERY)}
    seconds = sum(5 * TABLE.seconds_per_epoch[0, rows[trial.arch]].mean() for trial in trials)
    assert history.spent.seconds == pytest.approx(seconds, rel=1e-3)


def test_the_space_may_have_fewer_options():
    from search_spaces.nasbench201 import NasBench201

    whole = NasBench201(operations=("none", "skip_connect", "nor_conv_1x1"))
    part = NasBench201(operations=("none", "nor_conv_1x1"))
    table = made_up_table(whole)
    rows = dict(table.rows(part))
    assert len(rows) == 64
    assert set(rows.values()) == {arch.picks for arch in enumerate_architectures(part)}
    with pytest.raises(ConfigError, match="does not know the option 'nor_conv_3x3'"):
        dict(table.rows(NasBench201()))
    with pytest.raises(ConfigError, match=r"table of the choices 0->1.*has width"):
        dict(table.rows(SPACE))


def test_it_is_small_and_measures_the_same_when_it_has_travelled(file):
    evaluator = TabularEvaluator(SPACE, file, "one", device="fast_one")
    content = pickle.dumps(evaluator)
    assert len(content) < 100_000
    copy = pickle.loads(content)
    rng = np.random.default_rng(0)
    for number in range(50):
        proposal = Proposal(number, sample(SPACE, rng), number)
        assert copy.evaluate(proposal) == evaluator.evaluate(proposal)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dataset": "too"}, "no data set 'too'.*'two'"),
        ({}, "several data sets: set dataset to one of one, two"),
        ({"dataset": "one", "device": "fastone"}, "no device 'fastone'.*'fast_one'"),
        ({"dataset": "one", "epochs": 4}, r"after 4 epochs; the nearest is 3 \(there are: 1, 2"),
        ({"dataset": "one", "report": {"accuracy": "test_acuracy"}}, "'test_accuracy'"),
        ({"dataset": "one", "report": {}}, "report names no metric"),
        ({"dataset": "one", "report": {"macs": "validation_loss"}}, "named 'macs'"),
        ({"dataset": "one", "runs": "all"}, "'mean' or 'seed', got 'all'"),
    ],
)
def test_refuses_arguments(file, arguments, says):
    with pytest.raises(ConfigError, match=says):
        TabularEvaluator(SPACE, file, **arguments)


def test_refuses_a_table_that_is_nowhere():
    with pytest.raises(ConfigError, match="no table 'digts'"):
        TabularEvaluator(SPACE, "digts")


def test_refuses_proposals_that_the_table_cannot_answer(file):
    evaluator = TabularEvaluator(SPACE, file, "one")
    with pytest.raises(UnsupportedRequest, match="after 20 epochs; the nearest is 5"):
        evaluator.evaluate(Proposal(0, EVERY[0], fidelity=Fidelity(20)))
    with pytest.raises(UnsupportedRequest, match="one resolution"):
        evaluator.evaluate(Proposal(0, EVERY[0], fidelity=Fidelity(resolution=4)))
    with pytest.raises(UnsupportedRequest, match="all data"):
        evaluator.evaluate(Proposal(0, EVERY[0], fidelity=Fidelity(data_fraction=0.5)))
    arch = replace(EVERY[0], picks=EVERY[0].picks[:-1])
    with pytest.raises(InvalidArchitecture, match="bias"):
        evaluator.evaluate(Proposal(0, arch))


def test_an_architecture_that_the_table_lacks_is_named(tmp_path):
    table = made_up_table(SPACE, datasets=("one",))
    part = replace(
        table,
        picks=table.picks[1:],
        quantities={n: replace(q, values=q.values[:, 1:]) for n, q in table.quantities.items()},
        seconds_per_epoch=table.seconds_per_epoch[:, 1:],
        counts={n: c[:, 1:] for n, c in table.counts.items()},
        latency_ms=table.latency_ms[:, 1:],
    )
    save(part, tmp_path / "part.npz")
    evaluator = TabularEvaluator(SPACE, str(tmp_path / "part.npz"))
    evaluator.evaluate(Proposal(0, EVERY[1]))
    with pytest.raises(DataError, match=r"part\.npz does not hold"):
        evaluator.evaluate(Proposal(0, EVERY[0]))
