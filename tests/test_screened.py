"""Screening: the strategy contract, what is asked, told and proposed, and that it pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nas.budget import Cost
from nas.errors import ConfigError, UnsupportedRequest
from nas.objective import maximize, minimize
from nas.testing import StrategyContract
from nas.testing.toys import FlatSpace, Uniform, toy_values
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.nasbench201 import NasBench201
from strategies.asha import Asha
from strategies.nsga2 import Nsga2
from strategies.regularized_evolution import RegularizedEvolution
from strategies.screened import Screened
from strategies.successive_halving import SuccessiveHalving

SCORE = (maximize("score"),)


class TestScreenedEvolution(StrategyContract):
    def strategy(self, space, objectives, seed):
        inner = RegularizedEvolution(space, objectives, seed, population_size=6, sample_size=3)
        return Screened(inner, factor=3, initial=5)


@pytest.mark.slow
class TestScreenedGenerations(StrategyContract):
    def strategy(self, space, objectives, seed):
        inner = Nsga2(space, objectives, seed, population_size=8)
        return Screened(inner, "gp_hamming", factor=2, initial=4)


@pytest.mark.slow
class TestAshaOfScreened(StrategyContract):
    def strategy(self, space, objectives, seed):
        inner = RegularizedEvolution(space, objectives, seed, population_size=6, sample_size=3)
        return Asha(Screened(inner, factor=3, initial=5), max_epochs=4, eta=2)


class Listens(Uniform):
    """Remembers what it was asked and told; every proposal cost a second to find."""

    def __init__(self, space, objectives, seed=0, stock=10**9):
        super().__init__(space, objectives, seed)
        self.stock = stock
        self.asked = []
        self.heard = []

    def ask(self, n):
        self.asked.append(n)
        made = super().ask(min(n, self.stock))
        self.stock -= len(made)
        return [
            replace(p, spent=Cost(seconds=1.0), parent=p.number - 1 if p.number else None)
            for p in made
        ]

    def tell(self, trial):
        self.heard.append(trial)


def measured(strategy, proposal, **values):
    found = values or {"score": toy_values(strategy.space, proposal.arch)["score"]}
    strategy.tell(Trial(proposal, Measured(found), Cost(trials=1)))


def warmed(strategy, trials=20):
    for proposal in strategy.ask(trials):
        measured(strategy, proposal)
    return strategy


def test_nothing_is_screened_before_enough_is_known():
    inner = Listens(NasBench201(), SCORE)
    strategy = Screened(inner, factor=10, initial=4)
    first = strategy.ask(6)
    assert inner.asked == [6]
    for proposal in first[:3]:
        measured(strategy, proposal, score=1.0)
    strategy.tell(Trial(first[3], Failed("exception", "the cable is loose"), Cost()))
    assert len(strategy.ask(2)) == 2
    assert inner.asked == [6, 2]  # three were measured, four are to be
    measured(strategy, first[4], score=2.0)
    assert len(strategy.ask(2)) == 2
    assert inner.asked == [6, 2, 20]


def test_the_inner_strategy_hears_of_every_candidate_once_under_its_own_number():
    inner = Listens(NasBench201(), SCORE)
    strategy = warmed(Screened(inner, factor=5, initial=20))
    inner.heard.clear()
    proposals = strategy.ask(2)
    assert [p.number for p in proposals] == [20, 21]
    passed_over = [trial.number for trial in inner.heard]
    assert all(isinstance(trial.outcome, Infeasible) for trial in inner.heard)
    assert len(passed_over) == 8
    for proposal in proposals:
        measured(strategy, proposal)
    heard = [trial.number for trial in inner.heard]
    assert sorted(heard) == list(range(20, 30))
    assert [trial.arch for trial in inner.heard[8:]] == [p.arch for p in proposals]
    # Finding ten cost ten seconds, and all of them are charged.
    assert sum(p.spent.seconds for p in proposals) == 10.0
    # A parent is named by the number of its trial, or not at all where it has none.
    for trial, proposal in zip(inner.heard[8:], proposals, strict=True):
        before = trial.proposal.parent
        known = {19: 19, heard[8]: 20, heard[9]: 21}
        assert proposal.parent == known.get(before)


def test_what_it_proposes_is_better_than_what_it_is_given():
    space = NasBench201()
    worth = {}

    def score(arch):
        return sum(option == "nor_conv_3x3" for _, option in arch.picks) + 0.1 * (
            arch["0->3"] == "skip_connect"
        )

    inner = Listens(space, SCORE)
    strategy = Screened(inner, factor=10, initial=20)
    for proposal in strategy.ask(20):
        measured(strategy, proposal, score=score(proposal.arch))
    for proposal in strategy.ask(10):
        worth[proposal.arch] = score(proposal.arch)
    given = [score(trial.arch) for trial in inner.heard[20:]] + list(worth.values())
    assert len(given) == 100
    best_of_given = sorted(given)[-30:]
    assert np.mean(list(worth.values())) > np.mean(given) + 1.0
    assert sum(value >= best_of_given[0] for value in worth.values()) >= 8


def test_what_was_proposed_before_is_proposed_last():
    space = FlatSpace()  # 48 architectures, and the inner strategy repeats itself
    inner = Listens(space, SCORE)
    strategy = warmed(Screened(inner, factor=10, initial=20))
    known = {trial.arch for trial in inner.heard}
    for _ in range(10):
        (proposal,) = strategy.ask(1)
        assert proposal.arch not in known
        known.add(proposal.arch)
        measured(strategy, proposal)


def test_limits_are_kept_where_the_model_can_tell():
    space = NasBench201()
    objectives = (maximize("score"), minimize("cost", limit=1.5))
    strategy = Screened(Listens(space, objectives), factor=10, initial=30)

    def values(arch):
        convolutions = sum("conv" in option for _, option in arch.picks)
        return {"score": float(convolutions), "cost": float(convolutions)}

    while strategy.state_dict()["measured"] < 30:
        for proposal in strategy.ask(10):
            found = values(proposal.arch)
            outcome = Infeasible("cost", found) if found["cost"] > 1.5 else Measured(found)
            strategy.tell(Trial(proposal, outcome, Cost()))
    kept = [values(p.arch)["cost"] <= 1.5 for p in strategy.ask(10)]
    drawn = [values(trial.arch)["cost"] <= 1.5 for trial in strategy.strategy.heard]
    assert np.mean(kept) > 0.7 > 0.5 > np.mean(drawn)


def test_a_strategy_that_gives_few_is_screened_as_sharply():
    inner = Listens(NasBench201(), SCORE, stock=20 + 12)
    strategy = warmed(Screened(inner, factor=4, initial=20))
    assert len(strategy.ask(8)) == 3
    assert strategy.ask(8) == []


def test_nonsense_is_refused():
    inner = RegularizedEvolution(FlatSpace(), SCORE)
    with pytest.raises(ConfigError, match=r"'forrest'.*'forest'"):
        Screened(inner, "forrest")
    with pytest.raises(UnsupportedRequest, match="not made of cells"):
        Screened(inner, "graph")
    for arguments, word in (
        ({"factor": 1}, "factor"),
        ({"initial": 1}, "initial"),
        ({"optimism": -0.5}, "optimism"),
    ):
        with pytest.raises(ConfigError, match=word):
            Screened(inner, **arguments)
    with pytest.raises(ConfigError, match="one layer is enough"):
        Screened(SuccessiveHalving(inner, max_epochs=9))
