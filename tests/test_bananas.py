"""BANANAS holds the contract, learns, and never asks twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nas.budget import Cost
from nas.errors import ConfigError
from nas.objective import maximize, minimize
from nas.pareto import hypervolume
from nas.space import enumerate_architectures, validate
from nas.testing import StrategyContract
from nas.testing.driving import drive, judge
from nas.testing.toys import FlatSpace, NestedSpace, toy_values
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.nasbench201 import NasBench201
from strategies.bananas import BANANAS_PAPER, Bananas
from strategies.bananas_candidates import balanced
from strategies.random_search import RandomSearch

SCORE = (maximize("score"),)
BOTH = (maximize("score"), minimize("cost"))


class TestBananas(StrategyContract):
    trials = 24

    def strategy(self, space, objectives, seed):
        return Bananas(space, objectives, seed, initial=3)


@pytest.mark.slow
class TestBananasOfMutations(StrategyContract):
    trials = 18

    def strategy(self, space, objectives, seed):
        return Bananas(
            space, objectives, seed, several="hypervolume", initial=3, whole=0, candidates=20
        )


@pytest.mark.slow
class TestBananasBySamplingOfAGaussianProcess(StrategyContract):
    trials = 14

    def strategy(self, space, objectives, seed):
        return Bananas(
            space, objectives, seed, model="gp", acquisition="thompson", design="random", initial=3
        )


def tell(strategy, proposal, outcome):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


def scores(space):
    return {arch: toy_values(space, arch) for arch in enumerate_architectures(space)}


# ------------------------------------------------------------------------------ proposals


@pytest.mark.parametrize("space", [FlatSpace(), NestedSpace()], ids=lambda space: space.name)
@pytest.mark.parametrize("objectives", [SCORE, BOTH], ids=len)
@pytest.mark.parametrize("batch", [1, 5])
def test_a_small_space_is_exhausted_exactly(space, objectives, batch):
    strategy = Bananas(space, objectives, seed=1, initial=3)
    known, made = scores(space), []
    while proposals := strategy.ask(batch):
        for proposal in proposals:
            made.append(proposal.arch)
            tell(strategy, proposal, Measured(known[proposal.arch]))
    assert len(made) == len(set(made)) == len(known)


def test_a_batch_in_flight_repeats_nothing_and_differs_from_the_best_few():
    space = NasBench201()
    strategy = Bananas(space, SCORE, seed=0)
    for proposal in strategy.ask(12):
        tell(strategy, proposal, Measured(toy_values(space, proposal.arch)))
    worth = []
    choose = strategy._worth

    def spy(*given):
        worth.append(choose(*given))
        return worth[-1]

    strategy._worth = spy
    batch = [proposal.arch for proposal in strategy.ask(8)]
    assert len(set(batch)) == 8
    # Had nothing been thought of what is in flight, these eight would be the best of the first.
    plain = [strategy._shortlist[i] for i in np.argsort(-worth[0])[:8]]
    assert {strategy._pool.archs[i] for i in plain} != set(batch)


def test_the_balanced_design_takes_every_option_equally_often():
    space = NasBench201()
    made = [balanced(space, 3, number) for number in range(10)]
    for choice in space.choices:
        picked = [arch[choice.label] for arch in made]
        assert all(picked.count(option) == 2 for option in choice.options)
    nested = NestedSpace()
    for number in range(20):
        validate(nested, balanced(nested, 5, number))


def test_three_objectives():
    space = FlatSpace()
    objectives = (*BOTH, maximize("other"))
    strategy = Bananas(space, objectives, initial=3)
    known, made = scores(space), []
    for _ in range(12):
        for proposal in strategy.ask(2):
            made.append(proposal.arch)
            other = float(proposal.arch["width"])
            tell(strategy, proposal, Measured({**known[proposal.arch], "other": other}))
    assert len(set(made)) == 24
    # All but the first are chosen: among them is the best in each of the three.
    for best in (
        max(known, key=lambda arch: known[arch]["score"]),
        min(known, key=lambda arch: known[arch]["cost"]),
    ):
        assert best in made


@pytest.mark.parametrize("model", ["gp", "bagged"])
@pytest.mark.parametrize("acquisition", ["ucb", "thompson", "ei"])
def test_every_model_with_every_acquisition(model, acquisition):
    space = NestedSpace()
    strategy = Bananas(space, SCORE, model=model, acquisition=acquisition, initial=4)
    made = drive(strategy, 15, judge(strategy))
    assert len({str(document["arch"]) for document in made}) == 15


def test_the_papers_settings():
    strategy = Bananas(NasBench201(), SCORE, **BANANAS_PAPER)
    assert (strategy.model, strategy.blocks, strategy.acquisition) == (
        "mlp",
        ("paths",),
        "thompson",
    )
    made = drive(strategy, 12, judge(strategy, failing=0.0))
    assert len({str(document["arch"]) for document in made}) == 12
    assert strategy._inputs.names == ("paths",)


# ------------------------------------------------------------------------------- learning


def test_failed_trials_teach_nothing():
    space = FlatSpace()
    known = scores(space)
    one, other = Bananas(space, SCORE, seed=4), Bananas(space, SCORE, seed=4)
    causes = itertools.cycle(["not finite", "timeout", "exception"])
    for strategy in (one, other):
        for number in range(20):
            (proposal,) = strategy.ask(1)
            if number % 3 == 2:
                cause = next(causes)
                outcome = Failed(cause, "nan") if strategy is one else Infeasible("too large")
            else:
                outcome = Measured(known[proposal.arch])
            tell(strategy, proposal, outcome)
    # Neither a failure nor an infeasible one without values is anything to the model.
    assert one.state_dict() == other.state_dict()
    assert len(one._told) == 14
    assert all(values["score"] == known[arch]["score"] for arch, values, _ in one._told)


def test_what_is_known_of_infeasible_ones_is_learnt_and_they_are_avoided():
    space = NasBench201()
    objectives = (maximize("score"), minimize("cost", limit=9.0))

    def broken(limited):
        strategy = Bananas(space, objectives, seed=2)
        found = []
        for _ in range(40):
            (proposal,) = strategy.ask(1)
            values = toy_values(space, proposal.arch)
            found.append(values["cost"] > 9.0)
            shown = {"cost": values["cost"]} if limited else {}
            outcome = Infeasible("cost", shown) if found[-1] else Measured(values)
            tell(strategy, proposal, outcome)
        return sum(found[20:])

    assert broken(True) <= 3


def test_single_measurements_move_the_model_as_a_fit_would():
    space = NasBench201()
    strategy = Bananas(space, SCORE, seed=0)
    for _ in range(70):
        (proposal,) = strategy.ask(1)
        tell(strategy, proposal, Measured(toy_values(space, proposal.arch)))
    assert strategy._fitted < len(strategy._told)
    (proposal,) = strategy.ask(1)
    model = strategy._beliefs[0].model
    fresh = model.predict(strategy._rows_said)
    np.testing.assert_allclose(strategy._said[0].mean, fresh.mean, atol=1e-4)
    np.testing.assert_allclose(strategy._said[0].std, fresh.std, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model": "rdge"}, "rdge.*'ridge'"),
        ({"blocks": ("optons",)}, "optons.*'options'"),
        ({"blocks": ()}, "at least one"),
        ({"acquisition": "usb"}, "usb"),
        ({"beta": -1.0}, "beta.*-1"),
        ({"initial": 0}, "initial.*0"),
    ],
)
def test_nonsense_is_refused(arguments, match):
    with pytest.raises(ConfigError, match=match):
        Bananas(FlatSpace(), SCORE, **arguments)


# --------------------------------------------------------------------------- the real table


def table_of(path, dataset):
    with np.load(path) as table:
        column = table["test_acc_200"][:, list(table["datasets"]).index(dataset)]
        names = [str(name) for name in table["op_names"]]
        operations, macs = table["ops"], table["flops_m"]
    labels = [choice.label for choice in NasBench201.choices]
    macs = macs if macs.ndim == 1 else macs[:, 0]
    return {
        tuple(zip(labels, (names[op] for op in row), strict=True)): (float(acc), float(mac))
        for row, acc, mac in zip(operations, column, macs, strict=True)
    }


def test_finds_the_optimum_long_before_random_search(benchmark_data):
    known = table_of(benchmark_data("nb201.npz"), "cifar100")
    best = max(accuracy for accuracy, _ in known.values())

    def regret(strategy, queries):
        top = 0.0
        for _ in range(queries):
            (proposal,) = strategy.ask(1)
            accuracy = known[proposal.arch.picks][0]
            top = max(top, accuracy)
            tell(strategy, proposal, Measured({"score": accuracy}))
        return best - top

    ours = [regret(Bananas(NasBench201(), SCORE, seed), 60) for seed in range(5)]
    random = [regret(RandomSearch(NasBench201(), SCORE, seed), 300) for seed in range(5)]
    assert np.mean(ours) < 0.5 * np.mean(random)


@pytest.mark.slow
@pytest.mark.parametrize("several", ["tchebycheff", "hypervolume"])
def test_the_front_of_two_objectives_is_nearer_than_by_random_search(several):
    space = NasBench201()
    archs = list(enumerate_architectures(space))
    rng = np.random.default_rng(0)
    gain = {
        (choice.label, option): value + 0.3 * rng.normal()
        for choice in space.choices
        for option, value in zip(choice.options, (0.0, 0.5, 0.9, 1.5, 0.4), strict=True)
    }
    error = {arch: 90 * np.exp(-0.4 * sum(gain[pick] for pick in arch.picks)) for arch in archs}
    macs = {arch: float(space.parameters_and_macs(arch)[1]) for arch in archs}
    everything = np.array([[error[arch], macs[arch]] for arch in archs])
    reference = everything.max(axis=0)
    whole = hypervolume(everything, reference)
    objectives = (minimize("error"), minimize("macs"))

    def gap(strategy):
        made = []
        for _ in range(50):
            (proposal,) = strategy.ask(1)
            found = {"error": error[proposal.arch], "macs": macs[proposal.arch]}
            made.append(list(found.values()))
            tell(strategy, proposal, Measured(found))
        return 1 - hypervolume(np.array(made), reference) / whole

    ours = [gap(Bananas(space, objectives, seed, several=several)) for seed in range(2)]
    random = [gap(RandomSearch(space, objectives, seed)) for seed in range(2)]
    assert np.mean(ours) < 0.3 * np.mean(random)


def test_the_hypervolume_is_of_two_objectives():
    three = (maximize("score"), minimize("cost"), minimize("macs"))
    with pytest.raises(ConfigError, match="takes two objectives, got 3"):
        Bananas(FlatSpace(), three, several="hypervolume")
