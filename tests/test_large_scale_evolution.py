"""Large-scale evolution: linear models, the paper's mutations, and who inherits from whom."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from nas.budget import Cost
from nas.errors import ConfigError
from nas.objective import maximize
from nas.plain import plainest
from nas.space import neighbours
from nas.testing import StrategyContract
from nas.testing.toys import FlatSpace
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.grown_chain import GrownChain
from strategies.large_scale_evolution import OF_TRAINING, LargeScaleEvolution
from strategies.tournament import Tournament

SCORE = (maximize("score"),)
SPACE = GrownChain(6, (1, 3, 5), (4, 8, 16), input=(3, 16, 16))
EDITS = {
    "insert_convolution",
    "remove_convolution",
    "alter_stride",
    "alter_channels",
    "filter_size",
    "insert_one_to_one",
    "add_skip",
    "remove_skip",
}


class TestLargeScaleEvolution(StrategyContract):
    def strategy(self, space, objectives, seed):
        return LargeScaleEvolution(space, objectives, seed, population_size=6)


class TestOnGrownChains(StrategyContract):
    def spaces(self):
        return (SPACE,)

    def strategy(self, space, objectives, seed):
        return LargeScaleEvolution(space, objectives, seed, 5, learning_rate=0.05)


def told(strategy, proposal, outcome):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


def evolve(space, trials, worth, seed=0, failing=0.0, **arguments):
    """All proposals, and for each the state before it was asked for."""
    strategy = LargeScaleEvolution(space, SCORE, seed, **arguments)
    rng = np.random.default_rng([seed, 1])
    made = []
    for _ in range(trials):
        before = strategy.state_dict()
        (proposal,) = strategy.ask(1)
        made.append((proposal, before))
        if rng.random() < failing:
            bad = Failed("not finite", "nan") if rng.random() < 0.5 else Infeasible("9 is above 5")
            told(strategy, proposal, bad)
        else:
            told(strategy, proposal, Measured({"score": worth(proposal)}))
    return made


def test_it_begins_with_linear_models():
    for proposal, _ in evolve(SPACE, 30, lambda proposal: 1.0, population_size=30):
        assert proposal.arch == plainest(SPACE)
        assert proposal.parent is None
        assert proposal.notes == {"learning_rate": 0.1}


@pytest.mark.parametrize("failing", [0.0, 0.3])
def test_children_are_what_their_mutation_says_of_the_better_of_a_pair(failing):
    rng = np.random.default_rng(7)
    made = evolve(SPACE, 700, lambda _: float(rng.random()), failing=failing, population_size=12)
    known = {proposal.number: proposal for proposal, _ in made}
    mutations, factors = Counter(), []
    for (proposal, before), (_, after) in itertools.pairwise(made):
        if not before["complete"]:
            assert proposal.arch == plainest(SPACE)
            continue
        alive = {number: fitness for number, _, fitness in before["population"]}
        mutation, of = proposal.notes["mutation"], known[proposal.notes["of"]]
        dead = alive.keys() - {number for number, _, _ in after["population"]}
        assert len(dead) == 1 or failing
        assert all(alive[of.number] > alive[one] for one in dead)
        mutations[mutation] += 1
        assert proposal.parent == (None if mutation == "reset_weights" else of.number)
        factor = proposal.notes["learning_rate"] / of.notes["learning_rate"]
        if mutation in OF_TRAINING:
            assert proposal.arch == of.arch
        else:
            assert proposal.arch in SPACE.edits(of.arch)[mutation]
        if mutation == "alter_learning_rate":
            factors.append(math.log2(factor))
        else:
            assert factor == 1
    assert set(mutations) == {*OF_TRAINING, *EDITS}
    # Where all eleven apply each has a share of 1/11; never less, never more than 1/5.
    total = sum(mutations.values())
    assert all(0.05 < mutations[name] / total < 0.2 for name in OF_TRAINING)
    assert -1 <= min(factors) < -0.5 < 0.5 < max(factors) <= 1
    assert abs(np.mean(factors)) < 0.3


def test_where_a_space_has_no_edits_one_choice_changes():
    space = FlatSpace()
    rng = np.random.default_rng(1)
    made = evolve(space, 600, lambda _: float(rng.random()), population_size=10)
    known = {proposal.number: proposal for proposal, _ in made}
    changed = 0
    for proposal, before in made:
        if before["complete"] and proposal.notes["mutation"] == "change":
            changed += 1
            assert proposal.arch in set(neighbours(space, known[proposal.parent].arch))
    assert abs(changed / 590 - 8 / 11) < 0.08


def test_the_population_starts_from_what_is_given():
    initial = [
        str(arch) for arch in (plainest(SPACE), SPACE.edits(plainest(SPACE)).popitem()[1][0])
    ]
    made = evolve(SPACE, 6, lambda _: 1.0, population_size=8, initial=initial)
    assert [str(proposal.arch) for proposal, _ in made] == initial * 3


def test_learning_rates_are_selected_too():
    # What is measured here depends on the learning rate alone, and is best at 0.4.
    def worth(proposal):
        return -abs(math.log(proposal.notes["learning_rate"] / 0.4))

    made = evolve(SPACE, 600, worth, population_size=20)
    last = [proposal.notes["learning_rate"] for proposal, _ in made[-60:]]
    assert 0.3 < np.exp(np.mean(np.log(last))) < 0.53


def test_evolves_further_than_without_selection():
    def depth(seed, blind):
        rng = np.random.default_rng(seed)

        def worth(proposal):
            good = -abs(proposal.arch["depth"] - 5) + 0.1 * sum(
                pick == 5 for label, pick in proposal.arch.picks if label.endswith("kernel")
            )
            scores.append(good)
            return float(rng.random()) if blind else good

        scores = []
        evolve(SPACE, 150, worth, seed, population_size=12)
        return np.mean(scores[-40:])

    gains = [depth(seed, blind=False) - depth(seed, blind=True) for seed in range(5)]
    assert np.mean(gains) > 1


def test_the_tournament_is_that_of_pairs():
    # On the same trials both draw the same pairs: what dies and what breeds is alike.
    ours = LargeScaleEvolution(FlatSpace(), SCORE, 3, population_size=7)
    plain = Tournament(FlatSpace(), SCORE, 3, population_size=7)
    rng = np.random.default_rng(0)
    for step in range(60):
        (one,), (other,) = ours.ask(1), plain.ask(1)
        if step >= 7:
            assert one.notes["of"] == other.parent
        score = float(rng.random())
        for strategy, proposal in ((ours, one), (plain, other)):
            told(strategy, proposal, Measured({"score": score}))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"population_size": 1}, "at least 2, got 1"),
        ({"learning_rate": 0.0}, r"learning_rate.*0\.0"),
        ({"learning_rate": float("inf")}, "learning_rate.*inf"),
    ],
)
def test_nonsense_is_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        LargeScaleEvolution(FlatSpace(), SCORE, **arguments)
