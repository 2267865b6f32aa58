"""NASH climbs by morphisms of the best, which is trained on beside its children."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from growing import FOUND_ONCE, SPACE, Blocks, grown_by_hand, layer_picks, of_layers

from nas.budget import Cost
from nas.errors import ConfigError
from nas.objective import maximize, minimize
from nas.plain import plainest
from nas.space import neighbours
from nas.testing import StrategyContract
from nas.testing.toys import FlatSpace
from nas.trial import Failed, Infeasible, Measured, Trial
from strategies import nash
from strategies.nash import KINDS, Nash

SCORE = (maximize("score"),)


class TestNash(StrategyContract):
    trials = 12

    @pytest.fixture(autouse=True)
    def _known(self, monkeypatch):
        monkeypatch.setattr(nash, "morphisms", FOUND_ONCE)

    def spaces(self):
        return (SPACE,)

    def strategy(self, space, objectives, seed):
        return Nash(space, objectives, seed, neighbours=4, changes=2, epochs=None)


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setattr(nash, "morphisms", functools.cache(grown_by_hand))
    return Blocks()


def told(strategy, proposal, outcome):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


def measured(strategy, proposal, score):
    told(strategy, proposal, Measured({"score": score}))


def within(space, arch, changes):
    """What so many morphisms, or fewer, make of an architecture."""
    found = edge = {arch}
    for _ in range(changes):
        edge = {
            m.child for one in edge for m in grown_by_hand(space, one) if m.kind in KINDS
        } - found
        found = found | edge
    return found


START = of_layers([(3, 8, 1), (3, 16, 2), (1, 8, 1), (5, 32, 1)])


@pytest.mark.parametrize("failing", [0.0, 0.3])
def test_every_step_is_around_the_best_of_the_one_before(blocks, failing):
    rng = np.random.default_rng(3)
    strategy = Nash(blocks, SCORE, 1, neighbours=5, changes=2, steps=3)
    (first,) = strategy.ask(8)
    assert (first.arch, first.parent, first.fidelity.epochs) == (plainest(blocks), None, 20)
    assert strategy.ask(2) == []
    measured(strategy, first, 0.0)
    best = first
    for _ in range(3):
        step = [*strategy.ask(2), *strategy.ask(9)]
        assert len(step) == 5
        assert {proposal.parent for proposal in step} == {best.number}
        assert {proposal.fidelity.epochs for proposal in step} == {17}
        assert step[-1].arch == best.arch, "the best is trained on as long as its children"
        assert len({proposal.arch for proposal in step}) == 5
        assert {proposal.arch for proposal in step} <= within(blocks, best.arch, 2)
        assert strategy.ask(1) == [], "the next step waits for this one"
        scores = rng.random(5)
        fails = rng.random(5) < failing
        for place in rng.permutation(5):
            if fails[place]:
                bad = Failed("not finite", "nan") if place % 2 else Infeasible("9 is above 5")
                told(strategy, step[place], bad)
            else:
                measured(strategy, step[place], float(scores[place]))
        if not fails.all():
            best = step[int(np.argmax(np.where(fails, -1, scores)))]
    assert strategy.ask(8) == [], "three steps were asked for"


def test_an_earlier_measurement_of_the_best_is_no_candidate(blocks):
    strategy = Nash(blocks, SCORE, 0, neighbours=3, changes=1)
    measured(strategy, strategy.ask(1)[0], 9.0)
    step = strategy.ask(3)
    for proposal, score in zip(step, (0.2, 0.3, 0.1), strict=True):
        measured(strategy, proposal, score)
    assert {proposal.parent for proposal in strategy.ask(3)} == {step[1].number}


def test_where_all_fail_the_step_is_taken_again_from_the_same_network(blocks):
    strategy = Nash(blocks, SCORE, 0, neighbours=3, changes=1)
    for _ in range(3):
        (first,) = strategy.ask(4)
        assert first.arch == plainest(blocks)
        told(strategy, first, Failed("timeout", "too long"))
    (first,) = strategy.ask(4)
    measured(strategy, first, 0.5)
    seen = set()
    for _ in range(2):
        step = strategy.ask(3)
        assert {proposal.parent for proposal in step} == {first.number}
        seen |= {proposal.arch for proposal in step}
        for proposal in step:
            told(strategy, proposal, Failed("memory", "too much"))
    assert len(seen) > 3


def test_a_first_network_that_breaks_a_limit_gives_way(blocks):
    strategy = Nash(blocks, (maximize("score"), minimize("cost", limit=3.0)))
    (first,) = strategy.ask(1)
    told(strategy, first, Infeasible("cost is 9, must be at most 3"))
    (second,) = strategy.ask(1)
    assert second.parent is None
    assert second.arch != first.arch


def test_kinds_are_each_as_likely_whatever_their_number(blocks):
    kinds = [m.kind for m in grown_by_hand(blocks, START)]
    share = kinds.count("deeper") / len(kinds)
    assert share != 0.5, "or the test is blind"
    found = []
    for seed in range(200):
        strategy = Nash(blocks, SCORE, seed, neighbours=2, changes=1, initial=[START.to_json()])
        measured(strategy, strategy.ask(1)[0], 0.5)
        found.append(strategy.ask(1)[0].arch["depth"] == 5)
    assert 0.4 < np.mean(found) < 0.6


def test_it_ends_where_nothing_can_be_grown(blocks):
    start = of_layers([(1, 128, 1)] * 9)
    strategy = Nash(blocks, SCORE, 0, neighbours=3, changes=1, initial=[start.to_json()])
    for score in (0.0, 1.0):
        batch = strategy.ask(8)
        for proposal in batch:
            measured(strategy, proposal, score + proposal.arch["depth"])
    assert {proposal.arch["depth"] for proposal in batch} == {9, 10}
    assert strategy.ask(8) == []


def test_where_nothing_can_be_grown_at_all_it_climbs_by_mutations(monkeypatch):
    monkeypatch.setattr(nash, "morphisms", lambda space, arch: [])
    strategy = Nash(FlatSpace(), SCORE, 0, neighbours=5, changes=1, steps=2)
    (first,) = strategy.ask(1)
    measured(strategy, first, 0.5)
    step = strategy.ask(5)
    assert {proposal.arch for proposal in step[:4]} <= set(neighbours(FlatSpace(), first.arch))
    assert step[4].arch == first.arch


def worth(arch):
    """Rises with the kernels of wide layers and falls with those of others."""
    return float(sum(k * (1 if w > 16 else -1) for k, w, _ in layer_picks(arch)))


def test_climbs_further_than_a_blind_walk(blocks):
    def best(seed, blind):
        strategy = Nash(blocks, SCORE, seed, neighbours=6, changes=1, steps=5)
        rng = np.random.default_rng(seed)
        found = []
        while batch := strategy.ask(8):
            for proposal in batch:
                found.append(worth(proposal.arch))
                measured(strategy, proposal, float(rng.random()) if blind else found[-1])
        return max(found)

    gains = [best(seed, blind=False) - best(seed, blind=True) for seed in range(8)]
    assert np.mean(gains) > 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"neighbours": 1}, "neighbours must be at least 2, got 1"),
        ({"changes": 0}, "changes.*got 0"),
        ({"steps": 0}, "steps.*got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"kinds": ()}, "kinds"),
        ({"kinds": "wider"}, "kinds"),
        ({"kinds": ("wider", "deepr")}, "no morphism 'deepr': did you mean 'deeper'"),
        ({"initial": ["width=2", "width=3"]}, "one architecture, got 2"),
    ],
)
def test_nonsense_is_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Nash(FlatSpace(), SCORE, **arguments)
