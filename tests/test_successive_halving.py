"""Successive halving: the strategy contract, its rungs, and its waiting."""

from __future__ import annotations

import numpy as np
import pytest

from nas.budget import Cost
from nas.errors import ConfigError
from nas.objective import maximize, minimize
from nas.testing import StrategyContract
from nas.testing.toys import FlatSpace, Uniform
from nas.trial import Failed, Infeasible, Measured, Trial
from strategies.fidelity import rung_epochs
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution
from strategies.successive_halving import SuccessiveHalving

SCORE = (maximize("score"),)


@pytest.mark.slow
class TestSuccessiveHalvingOfRandomSearch(StrategyContract):
    def strategy(self, space, objectives, seed):
        return SuccessiveHalving(RandomSearch(space, objectives, seed), max_epochs=9)


class TestSuccessiveHalvingOfEvolution(StrategyContract):
    def strategy(self, space, objectives, seed):
        inner = RegularizedEvolution(space, objectives, seed, population_size=6, sample_size=3)
        return SuccessiveHalving(inner, configurations=5, max_epochs=4, eta=2)


class Listens(Uniform):
    """Remembers what it was told, and proposes at most ``stock`` before it hears of some."""

    def __init__(self, space, objectives, seed=0, stock=10**9):
        super().__init__(space, objectives, seed)
        self.stock = stock
        self.heard = []

    def ask(self, n):
        return super().ask(min(n, self.stock - (self._number - len(self.heard))))

    def tell(self, trial):
        self.heard.append(trial)


def told(strategy, proposal, outcome):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


def bracket(strategy, value, batch=4, last=None):
    """Runs a bracket; the number asked for and the epochs of each rung, and its proposals."""
    rungs, proposals = {}, []
    while True:
        asked = strategy.ask(batch)
        if not asked:
            return rungs, proposals
        for proposal in asked:
            epochs = proposal.fidelity.epochs
            rungs[epochs] = rungs.get(epochs, 0) + 1
            proposals.append(proposal)
        for proposal in asked:
            told(strategy, proposal, value(proposal))
            if last and proposal.fidelity.epochs == last and not strategy.continuable():
                return rungs, proposals


def test_rungs_are_powers():
    assert rung_epochs(1, 81, 3) == (1, 3, 9, 27, 81)
    assert rung_epochs(1, 243, 3) == (1, 3, 9, 27, 81, 243)
    assert rung_epochs(4, 256, 4) == (4, 16, 64, 256)
    assert rung_epochs(1, 12, 3) == (1, 4, 12)
    assert rung_epochs(1, 100, 3) == (1, 4, 11, 33, 100)
    assert rung_epochs(5, 5, 3) == (5,)
    for eta in (2, 3, 4, 7):
        for top in range(1, 200):
            rungs = rung_epochs(1, top, eta)
            assert list(rungs) == sorted(set(rungs))
            assert rungs[-1] == top
            assert top // eta ** (len(rungs) - 1) >= 1 > top / eta ** len(rungs)


def test_a_bracket_has_the_published_rungs():
    # η 3, R 81, n 81: the most exploring bracket of the Hyperband paper's table.
    strategy = SuccessiveHalving(Listens(FlatSpace(), SCORE), max_epochs=81)
    assert strategy.bracket(0) == [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)]
    assert strategy.bracket(7) == strategy.bracket(0)
    rungs, _ = bracket(strategy, lambda p: Measured({"score": p.seed}), last=81)
    assert rungs == {1: 81, 3: 27, 9: 9, 27: 3, 81: 1}
    more = SuccessiveHalving(Listens(FlatSpace(), SCORE), 40, max_epochs=9)
    assert more.bracket(0) == [(40, 1), (13, 3), (4, 9)]


def test_the_best_of_each_rung_go_on_from_their_own_trials():
    rng = np.random.default_rng(1)
    strategy = SuccessiveHalving(Listens(FlatSpace(), SCORE), 18, max_epochs=9)
    value = {}

    def judge(proposal):
        value[proposal.number] = float(rng.random())
        return Measured({"score": value[proposal.number]})

    _, made = bracket(strategy, judge, last=9)
    by_epochs = {e: [p for p in made if p.fidelity.epochs == e] for e in (1, 3, 9)}
    assert [len(by_epochs[e]) for e in (1, 3, 9)] == [18, 6, 2]
    for low, high in ((1, 3), (3, 9)):
        best = sorted(by_epochs[low], key=lambda p: -value[p.number])[: len(by_epochs[high])]
        assert [p.continues for p in by_epochs[high]] == [p.number for p in best]
        assert [p.arch for p in by_epochs[high]] == [p.arch for p in best]
        assert [p.seed for p in by_epochs[high]] == [p.seed for p in best]
    assert all(p.continues is None for p in by_epochs[1])
    assert [p.number for p in made] == list(range(26))


def test_it_waits_for_the_whole_rung():
    strategy = SuccessiveHalving(Listens(FlatSpace(), SCORE), max_epochs=3)
    first = strategy.ask(10)
    assert len(first) == 3
    for proposal in first[:2]:
        told(strategy, proposal, Measured({"score": float(proposal.number)}))
        assert strategy.ask(10) == []
    told(strategy, first[2], Measured({"score": -1.0}))
    (promoted,) = strategy.ask(10)
    assert (promoted.continues, promoted.fidelity.epochs) == (1, 3)
    assert strategy.ask(10) == []
    told(strategy, promoted, Measured({"score": 0.0}))
    assert [p.number for p in strategy.ask(10)] == [4, 5, 6]  # the next bracket


def test_checkpoints_are_kept_of_the_rung_under_way():
    strategy = SuccessiveHalving(Listens(FlatSpace(), SCORE), max_epochs=9)
    first = strategy.ask(9)
    for proposal in first:
        told(strategy, proposal, Measured({"score": float(proposal.number)}))
        assert strategy.continuable() == (
            set(range(proposal.number + 1)) if proposal.number < 8 else {6, 7, 8}
        )
    second = strategy.ask(2)
    assert strategy.continuable() == {6, 7, 8}
    told(strategy, second[0], Measured({"score": 0.0}))
    assert strategy.continuable() == {second[0].number, 6, 7}
    told(strategy, second[1], Failed("memory", "there is no more"))
    assert strategy.continuable() == {second[0].number, 6}


def test_the_strategy_inside_hears_of_each_once_when_it_leaves():
    strategy = SuccessiveHalving(Listens(FlatSpace(), SCORE), 9, max_epochs=9)
    heard = strategy.strategy.heard
    first = strategy.ask(9)
    for proposal in first:
        assert heard == []
        told(strategy, proposal, Measured({"score": float(proposal.number)}))
    assert [trial.number for trial in heard] == [0, 1, 2, 3, 4, 5]
    for proposal in strategy.ask(3):  # of 8, 7 and 6, the best first
        told(strategy, proposal, Measured({"score": 19.0 - proposal.number}))
    assert [(trial.number, trial.values["score"]) for trial in heard[6:]] == [(6, 8.0), (7, 9.0)]
    (proposal,) = strategy.ask(3)
    told(strategy, proposal, Measured({"score": 30.0}))
    assert (heard[-1].number, heard[-1].values["score"]) == (8, 30.0)
    assert len(heard) == 9


def test_failures_thin_a_rung_out_and_poison_nothing():
    strategy = SuccessiveHalving(Listens(FlatSpace(), SCORE), 9, max_epochs=9)
    heard = strategy.strategy.heard
    first = strategy.ask(9)
    for proposal in first[:7]:
        outcome = Failed("not finite", "nan") if proposal.number % 2 else Infeasible("too big")
        told(strategy, proposal, outcome)
    told(strategy, first[7], Measured({"score": 1.0}))
    told(strategy, first[8], Measured({"score": 2.0}))
    second = strategy.ask(9)
    assert [p.continues for p in second] == [8, 7]  # three could go on, two were measured
    told(strategy, second[0], Failed("worker died", "the machine is gone"))
    told(strategy, second[1], Measured({"score": 5.0}))
    assert heard[-1].number == 8
    assert heard[-1].values == {"score": 2.0}  # a dead worker takes back no measurement
    (third,) = strategy.ask(9)
    assert third.continues == second[1].number
    told(strategy, third, Failed("timeout", "took longer than 1 s"))
    assert len(heard) == 9
    assert heard[-1].values == {"score": 5.0}
    assert len(strategy.ask(9)) == 9


def test_a_bracket_in_which_all_fail_is_followed_by_another():
    strategy = SuccessiveHalving(Listens(FlatSpace(), SCORE), max_epochs=9)
    for _ in range(3):
        asked = strategy.ask(20)
        assert [p.fidelity.epochs for p in asked] == [1] * 9
        for proposal in asked:
            told(strategy, proposal, Failed("exception", "the cable is loose"))
    assert len(strategy.strategy.heard) == 27


def test_a_strategy_inside_that_waits_to_be_told_is_not_waited_for():
    # It gives five and no more until it hears of them: the bracket of nine goes on with five.
    strategy = SuccessiveHalving(Listens(FlatSpace(), SCORE, stock=5), max_epochs=9)
    first = strategy.ask(9)
    assert len(first) == 5
    assert strategy.ask(9) == []
    for proposal in first:
        told(strategy, proposal, Measured({"score": float(proposal.number)}))
    (second,) = strategy.ask(9)
    assert (second.continues, second.fidelity.epochs) == (4, 3)
    told(strategy, second, Measured({"score": 0.0}))
    (third,) = strategy.ask(9)
    told(strategy, third, Measured({"score": 0.0}))
    assert len(strategy.ask(9)) == 5


def test_it_ends_with_a_space_that_is_exhausted():
    space = FlatSpace()
    strategy = SuccessiveHalving(RandomSearch(space, SCORE), max_epochs=9)
    rungs, _ = bracket(strategy, lambda p: Measured({"score": p.seed}))
    # 48 networks: five brackets of nine, and one of three that is cut short and goes on.
    assert rungs == {1: 48, 3: 5 * 3 + 1, 9: 6}
    state = strategy.state_dict()
    assert strategy.ask(3) == []
    assert strategy.state_dict() == state


def test_several_objectives_go_by_front_and_crowding():
    points = [(9, 9), (1, 9), (9, 1), (2, 7), (6, 2.5), (8, 8), (7, 7), (9, 5), (5, 9)]
    objectives = (maximize("score"), minimize("cost"))
    strategy = SuccessiveHalving(Listens(FlatSpace(), objectives), max_epochs=9)
    for proposal, (cost, other) in zip(strategy.ask(9), points, strict=True):
        told(strategy, proposal, Measured({"score": -other, "cost": cost}))
    assert [p.continues for p in strategy.ask(3)] == [1, 2, 4]


def test_refuses_too_few_for_one_to_be_left():
    with pytest.raises(ConfigError, match="at least 9, for one to reach 9 epochs, got 8"):
        SuccessiveHalving(Uniform(FlatSpace(), SCORE), 8, max_epochs=9)
