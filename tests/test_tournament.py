"""Tournament evolution: pairs kill and breed, larger groups only breed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nas.architecture import Architecture
from nas.budget import Cost
from nas.draws import Draws
from nas.errors import ConfigError
from nas.objective import maximize
from nas.space import enumerate_architectures
from nas.testing import StrategyContract
from nas.testing.driving import drive, judge
from nas.testing.toys import FlatSpace, NestedSpace, toy_values
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch
from strategies.ranked import Ranked
from strategies.tournament import Tournament

SCORE = (maximize("score"),)


class TestTournament(StrategyContract):
    def strategy(self, space, objectives, seed):
        return Tournament(space, objectives, seed, population_size=6)


class TestHierarchicalTournament(StrategyContract):
    def strategy(self, space, objectives, seed):
        return Tournament(space, objectives, seed, 6, entrants=0.5, dies="nobody")


def told(strategy, proposal, outcome):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


def members(strategy):
    return {number: fitness for number, _, fitness in strategy.state_dict()["population"]}


@pytest.mark.parametrize("entrants", [2, 3])
def test_the_worst_of_a_tournament_dies_and_the_best_breeds(entrants):
    rng = np.random.default_rng(0)
    strategy = Tournament(FlatSpace(), SCORE, 3, population_size=7, entrants=entrants)
    ranks = Counter()
    for step in range(400):
        before = members(strategy)
        (proposal,) = strategy.ask(1)
        after = members(strategy)
        if step < 7:
            assert proposal.parent is None
            assert after == before
        else:
            (dead,) = before.keys() - after.keys()
            assert before[proposal.parent] > before[dead]
            ordered = sorted(before, key=before.__getitem__, reverse=True)
            ranks[ordered.index(proposal.parent)] += 1
            assert ordered.index(proposal.parent) <= 7 - entrants
        told(strategy, proposal, Measured({"score": float(rng.random())}))
        assert len(members(strategy)) == min(step + 1, 7)
    # Among seven, the best of a pair is the first with probability 2/7, of three with 3/7.
    assert abs(ranks[0] - 393 * entrants / 7) < 4.5 * 10


def test_with_equals_another_one_dies():
    strategy = Tournament(FlatSpace(), SCORE, 0, population_size=4)
    for _ in range(200):
        before = members(strategy)
        (proposal,) = strategy.ask(1)
        dead = before.keys() - members(strategy).keys()
        assert proposal.parent not in dead
        assert proposal.number < 4 or len(dead) == 1
        told(strategy, proposal, Measured({"score": 1.0}))


def test_where_nobody_dies_the_population_grows():
    strategy = Tournament(FlatSpace(), SCORE, 0, 20, entrants=0.05, dies="nobody")
    parents = Counter()
    for _ in range(300):
        (proposal,) = strategy.ask(1)
        told(strategy, proposal, Measured({"score": -float(proposal.number)}))
        parents[proposal.parent] += 1
    assert len(members(strategy)) == 300
    # A twentieth of 20 to 300 members: two to fifteen, and so rarely one of the worst half.
    assert sum(n for parent, n in parents.items() if parent is not None and parent > 150) < 20


def test_failures_do_not_wear_the_population_away():
    strategy = Tournament(FlatSpace(), SCORE, 0, population_size=10)
    rng = np.random.default_rng(1)
    flying, good, sizes = [], set(), []
    for step in range(600):
        for proposal in strategy.ask(3 if step % 2 else 1):
            assert proposal.parent is None or proposal.parent in good
            flying.append(proposal)
        while len(flying) > 4:
            proposal = flying.pop(int(rng.integers(len(flying))))
            if rng.random() < 0.15:
                told(strategy, proposal, Failed("not finite", "score is nan"))
            elif rng.random() < 0.2:
                told(strategy, proposal, Infeasible("cost is 9"))
            else:
                good.add(proposal.number)
                told(strategy, proposal, Measured({"score": float(rng.random())}))
        sizes.append(len(members(strategy)))
        assert members(strategy).keys() <= good
    # Four are in flight; a third of all trials came to nothing.
    assert np.mean(sizes[100:]) > 4.5
    assert min(sizes[100:]) >= 1
    assert max(sizes) <= 14
    for proposal in [*flying, *strategy.ask(12)]:
        told(strategy, proposal, Measured({"score": 1.0}))
    assert len(members(strategy)) >= 10


def test_tournaments_learn_what_the_toys_reward():
    space = NasBench201()

    def best(strategy, seed):
        found = []
        for document in drive(strategy, 120, judge(strategy), seed=seed):
            arch = Architecture(space.name, tuple(map(tuple, document["arch"]["picks"])))
            found.append(toy_values(space, arch)["score"])
        return np.mean(found[60:])

    gains = [
        best(Tournament(space, SCORE, seed, 20), seed)
        - best(RandomSearch(space, SCORE, seed), seed)
        for seed in range(5)
    ]
    assert np.mean(gains) > 1.5


def test_a_ranking_keeps_order_and_takes_out_the_one_that_is_meant():
    ranked = Ranked()
    archs = list(enumerate_architectures(NestedSpace()))
    rng = np.random.default_rng(0)
    there = {}
    for number in range(300):
        there[number] = (number, archs[number % len(archs)], float(rng.integers(4)))
        ranked.add(*there[number])
        if len(there) > 12:
            gone = there.pop(list(there)[int(rng.integers(12))])
            ranked.remove(gone)
        assert sorted(number for number, _, _ in ranked) == sorted(there)
        fitness = [fitness for _, _, fitness in ranked]
        assert fitness == sorted(fitness, reverse=True)
        assert ranked.pick(0, Draws(number))[2] == fitness[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"population_size": 1}, "at least 2, got 1"),
        ({"population_size": 5, "entrants": 6}, r"population_size \(5\).*got 6"),
        ({"entrants": 1}, "got 1"),
        ({"entrants": 0.0}, "got 0.0"),
        ({"entrants": 2.5}, "got 2.5"),
        ({"dies": "everybody"}, "'everybody'"),
    ],
)
def test_nonsense_is_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Tournament(FlatSpace(), SCORE, **arguments)
