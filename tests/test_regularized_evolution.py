"""Regularised evolution is Algorithm 1 of its paper, and learns."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
import pytest

from nas.architecture import Architecture
from nas.budget import Cost
from nas.draws import Draws
from nas.errors import ConfigError, InvalidArchitecture
from nas.objective import maximize, minimize
from nas.space import enumerate_architectures, validate
from nas.testing import StrategyContract
from nas.testing.driving import drive, judge
from nas.testing.toys import FlatSpace, NestedSpace, toy_values
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.chain import Chain
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution
from strategies.tournament import Tournament

SCORE = (maximize("score"),)


class TestRegularizedEvolution(StrategyContract):
    def strategy(self, space, objectives, seed):
        initial = [str(arch) for arch in enumerate_architectures(space)][5:8]
        return RegularizedEvolution(space, objectives, seed, 6, 3, initial if seed == 7 else ())


@pytest.mark.slow
class TestRegularizedEvolutionOnTheBuiltInSpaces(StrategyContract):
    def spaces(self):
        return (NasBench201(channels=2, cells=1), Chain())

    def strategy(self, space, objectives, seed):
        return RegularizedEvolution(space, objectives, seed, population_size=6, sample_size=3)


def told(strategy, proposal, outcome):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


# ------------------------------------------------------------------ regularised evolution


def reference_evolution(sizes, fitness, failing, seed, population_size, sample_size, trials):
    """Real et al. 2019, Algorithm 1, on points of a grid; proposal i draws from (seed, i)."""
    population = deque()
    history = []
    for number in range(trials):
        rng = Draws(seed, number)
        if len(population) < population_size:
            point, parent = tuple(rng.integers(size) for size in sizes), None
        else:
            # The best of a sample is the member of least rank in it, and no two are as fit here.
            ranked = sorted(population, key=lambda member: -member[2])
            parent, best, _ = ranked[rng.least(population_size, sample_size)]
            place = rng.integers(len(sizes))
            others = [value for value in range(sizes[place]) if value != best[place]]
            child = list(best)
            child[place] = others[rng.integers(len(others))]
            point = tuple(child)
        history.append((number, point, parent))
        if not failing(number):
            population.append((number, point, fitness(number, point)))
            if len(population) > population_size:
                population.popleft()
    return history


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("population_size", "sample_size"), [(10, 3), (5, 5), (12, 1), (1, 1)])
def test_evolution_equals_algorithm_1(seed, population_size, sample_size):
    space = FlatSpace()
    sizes = [len(choice.options) for choice in space.choices]
    table = np.random.default_rng(9).random(sizes)  # a fitness of its own for every point

    def point(arch):
        return tuple(choice.index(arch[choice.label]) for choice in space.choices)

    def fitness(number, point):
        return table[point] + 1e-9 * number  # no two are equal, also where a point comes again

    def failing(number):
        return number % 7 == 3

    strategy = RegularizedEvolution(space, SCORE, seed, population_size, sample_size)
    ours = []
    for _ in range(80):
        (proposal,) = strategy.ask(1)
        ours.append((proposal.number, point(proposal.arch), proposal.parent))
        if failing(proposal.number):
            told(strategy, proposal, Failed("exception", "the cable is loose"))
        else:
            told(
                strategy,
                proposal,
                Measured({"score": fitness(proposal.number, point(proposal.arch))}),
            )
    assert ours == reference_evolution(
        sizes, fitness, failing, seed, population_size, sample_size, 80
    )


def test_the_parent_is_the_best_of_the_youngest():
    # With a tournament of everybody nothing is left to chance: the best of the last P that came
    # back, in the order in which they came back. Scores only fall, so that a population that
    # did not age would keep its first member for ever.
    space = NestedSpace()
    strategy = RegularizedEvolution(space, SCORE, 0, population_size=8, sample_size=8)
    rng = np.random.default_rng(0)
    flying, came_back, best_by_force = [], [], []
    for step in range(60):
        for proposal in strategy.ask(2):
            validate(space, proposal.arch)
            if len(came_back) < 8:
                assert proposal.parent is None
            else:
                number, arch, _ = max(came_back[-8:], key=lambda member: member[2])
                assert proposal.parent == number
                changed = {
                    label
                    for label in set(arch) & set(proposal.arch)
                    if arch[label] != proposal.arch[label]
                }
                assert len(changed) == 1
                best_by_force.append(number)
            flying.append(proposal)
        for _ in range(2 if step else 1):
            proposal = flying.pop(int(rng.integers(len(flying))))
            if rng.random() < 0.3:
                told(strategy, proposal, Infeasible("too big"))
            else:
                score = 100.0 - len(came_back)
                told(strategy, proposal, Measured({"score": score}))
                came_back.append((proposal.number, proposal.arch, score))
    assert len(set(best_by_force)) > 20


def test_the_tournament_is_a_uniform_sample():
    # The best of S out of P has rank r (0 the best) with probability C(P-1-r, S-1) / C(P, S).
    space = FlatSpace()
    strategy = RegularizedEvolution(space, SCORE, 5, population_size=6, sample_size=3)
    for number, proposal in enumerate(strategy.ask(6)):
        told(strategy, proposal, Measured({"score": -float(number)}))
    seen = Counter(proposal.parent for proposal in strategy.ask(4000))
    assert set(seen) == {0, 1, 2, 3}
    statistic = sum(
        (seen[rank] - 4000 * ways / 20) ** 2 / (4000 * ways / 20)
        for rank, ways in enumerate((10, 6, 3, 1))
    )
    assert statistic < 21.1  # chi-square with 3 degrees of freedom: probability 1e-4


def test_failed_trials_never_enter_the_population():
    space = FlatSpace()
    strategy = RegularizedEvolution(space, SCORE, 0, population_size=4, sample_size=2)
    good = set()
    for _ in range(200):
        (proposal,) = strategy.ask(1)
        assert proposal.parent is None or proposal.parent in good
        if proposal.number % 3:
            told(strategy, proposal, Failed("memory", "none left"))
        else:
            good.add(proposal.number)
            told(strategy, proposal, Measured({"score": 1.0}))
    members = [number for number, _, _ in strategy.state_dict()["population"]]
    assert members == sorted(good)[-4:]


def test_evolution_of_several_objectives_takes_the_weighted_product():
    space = FlatSpace()
    objectives = (maximize("score"), minimize("cost", weight=2.0))
    strategy = RegularizedEvolution(space, objectives, 0, population_size=5, sample_size=5)
    for proposal in strategy.ask(5):
        # Score over squared cost: 0.5, 0.25, 2.0, 0.02, 1.0.
        score, cost = [(8, 4), (1, 2), (2, 1), (2, 10), (9, 3)][proposal.number]
        told(strategy, proposal, Measured({"score": score, "cost": cost}))
    assert {proposal.parent for proposal in strategy.ask(10)} == {2}
    strategy = RegularizedEvolution(space, (minimize("cost"),), 0, population_size=5, sample_size=5)
    for proposal in strategy.ask(5):
        told(strategy, proposal, Measured({"cost": [4, 2, 1, 10, 3][proposal.number]}))
    assert {proposal.parent for proposal in strategy.ask(10)} == {2}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"population_size": 0}, "population_size must be at least 1, got 0"),
        ({"population_size": 10, "sample_size": 11}, r"from 1 to population_size \(10\), got 11"),
        ({"sample_size": 0}, "got 0"),
    ],
)
def test_evolution_refuses_sizes(arguments, says):
    with pytest.raises(ConfigError, match=says):
        RegularizedEvolution(FlatSpace(), SCORE, **arguments)


def test_evolution_learns_what_the_toys_reward():
    space = NasBench201()
    best = []
    for kind in (RegularizedEvolution, RandomSearch):
        extra = {"population_size": 20, "sample_size": 5} if kind is RegularizedEvolution else {}
        scores = []
        for seed in range(5):
            strategy = kind(space, SCORE, seed, **extra)
            for document in drive(strategy, 120, judge(strategy), seed=seed):
                arch = Architecture(space.name, tuple(map(tuple, document["arch"]["picks"])))
                scores.append(toy_values(space, arch)["score"])
        best.append(np.mean(scores))
    assert best[0] > best[1] + 2.0


def test_members_that_are_as_good_are_chosen_alike():
    # Seven members, four of them equally good and best: with a tournament of everybody each of
    # the four is the parent as often, and no other ever is.
    strategy = RegularizedEvolution(FlatSpace(), SCORE, 1, population_size=7, sample_size=7)
    for proposal in strategy.ask(7):
        told(strategy, proposal, Measured({"score": float(proposal.number % 2 == 0)}))
    seen = Counter(proposal.parent for proposal in strategy.ask(2000))
    assert set(seen) == {0, 2, 4, 6}
    assert sum((n - 500) ** 2 / 500 for n in seen.values()) < 21.1


def test_a_search_starts_from_what_is_given():
    space = NasBench201()
    given = list(enumerate_architectures(space))[100:104]
    texts = [str(given[0]), given[1].to_json(), space.format(given[2]), str(given[3])]
    for strategy in (
        RegularizedEvolution(space, SCORE, 0, 4, 2, initial=texts),
        Tournament(space, SCORE, 0, 4, initial=texts),
    ):
        proposals = list(strategy.ask(3)) + list(strategy.ask(1))
        assert [proposal.arch for proposal in proposals] == given
        for proposal in proposals:
            told(strategy, proposal, Measured({"score": 1.0}))
        assert strategy.ask(1)[0].parent is not None, "the population is complete"


@pytest.mark.parametrize(
    ("initial", "error", "says"),
    [
        (
            ["depth=1 width0=2 activation=relu", "depth=9"],
            InvalidArchitecture,
            r"initial\[1\].*'9'",
        ),
        (["depth=1 width0=2 activation=relu"] * 2, ConfigError, r"initial\[1\] is .*initial\[0\]"),
        ("depth=1", ConfigError, "list of architectures"),
        ([3], ConfigError, r"initial\[0\] must be an architecture's text, got 3"),
    ],
)
def test_what_is_given_is_checked_up_front(initial, error, says):
    with pytest.raises(error, match=says):
        RegularizedEvolution(NestedSpace(), SCORE, initial=initial)
