"""Hyperband: the strategy contract, and the paper's brackets."""

from __future__ import annotations

import math

import pytest

from nas.budget import Cost
from nas.components import create, describe
from nas.objective import maximize
from nas.testing import StrategyContract
from nas.testing.toys import FlatSpace, Uniform
from nas.trial import Measured, Trial
from strategies.hyperband import Hyperband
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution

SCORE = (maximize("score"),)


@pytest.mark.slow
class TestHyperbandOfRandomSearch(StrategyContract):
    def strategy(self, space, objectives, seed):
        return Hyperband(RandomSearch(space, objectives, seed), max_epochs=4, eta=2)


class TestHyperbandOfEvolution(StrategyContract):
    def strategy(self, space, objectives, seed):
        inner = RegularizedEvolution(space, objectives, seed, population_size=6, sample_size=3)
        return Hyperband(inner, max_epochs=3)


def test_the_brackets_of_the_paper():
    # Li et al. 2018, Table 1: R 81, η 3.
    hyperband = Hyperband(Uniform(FlatSpace(), SCORE), max_epochs=81, eta=3)
    table = [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    assert [hyperband.bracket(number) for number in range(5)] == table
    assert [hyperband.bracket(number) for number in range(5, 10)] == table


@pytest.mark.parametrize(("top", "eta"), [(27, 3), (16, 2), (256, 4), (243, 3), (1, 3)])
def test_brackets_by_the_formula(top, eta):
    hyperband = Hyperband(Uniform(FlatSpace(), SCORE), max_epochs=top, eta=eta)
    s_max = round(math.log(top, eta))
    for number, s in enumerate(range(s_max, -1, -1)):
        n = math.ceil((s_max + 1) * eta**s / (s + 1))
        assert hyperband.bracket(number) == [
            (math.floor(n / eta**i), top // eta ** (s - i)) for i in range(s + 1)
        ]


def test_runs_its_brackets_in_turn():
    strategy = Hyperband(Uniform(FlatSpace(), SCORE), max_epochs=9, eta=3)
    expected = [rung for number in range(4) for rung in strategy.bracket(number)]
    assert expected == [(9, 1), (3, 3), (1, 9), (5, 3), (1, 9), (3, 9), (9, 1), (3, 3), (1, 9)]
    found = []
    while len(found) < len(expected):
        asked = strategy.ask(100)
        found.append((len(asked), asked[0].fidelity.epochs))
        assert {p.fidelity.epochs for p in asked} == {found[-1][1]}
        assert strategy.ask(100) == []
        for proposal in asked:
            strategy.tell(Trial(proposal, Measured({"score": proposal.seed}), Cost(trials=1)))
    assert found == expected


def test_a_configuration_nests_them():
    document = {"name": "hyperband", "strategy": "random", "max_epochs": 9}
    given = {"space": FlatSpace(), "objectives": SCORE, "seed": 2}
    strategy = create("strategies", document, "strategy", given)
    assert (strategy.seed, strategy.space, strategy.max_epochs) == (2, FlatSpace(), 9)
    again = create("strategies", describe(strategy), "strategy")
    assert describe(again) == describe(strategy)
