"""ASHA: the strategy contract, the order of promotions, and what the strategy inside hears."""

from __future__ import annotations

import numpy as np
import pytest

from nas.budget import Cost
from nas.components import create, describe
from nas.config import space_from_header
from nas.errors import ConfigError
from nas.history import objectives_of
from nas.objective import maximize, minimize
from nas.strategy import HasContinuable
from nas.testing import StrategyContract
from nas.testing.toys import FlatSpace, NestedSpace, Uniform
from nas.trial import Failed, Infeasible, Measured, Trial
from strategies.asha import Asha
from strategies.hyperband import Hyperband
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution

SCORE = (maximize("score"),)


@pytest.mark.slow
class TestAshaOfRandomSearch(StrategyContract):
    def strategy(self, space, objectives, seed):
        return Asha(RandomSearch(space, objectives, seed), max_epochs=9)


class TestAshaOfEvolution(StrategyContract):
    def strategy(self, space, objectives, seed):
        inner = RegularizedEvolution(space, objectives, seed, population_size=6, sample_size=3)
        return Asha(inner, max_epochs=8, eta=2)


class Listens(Uniform):
    """Remembers what it was told."""

    def __init__(self, space, objectives, seed=0):
        super().__init__(space, objectives, seed)
        self.heard = []

    def tell(self, trial):
        self.heard.append(trial)

    def numbers(self):
        return [trial.number for trial in self.heard]


def layer(eta=2, max_epochs=4, objectives=SCORE):
    return Asha(Listens(FlatSpace(), objectives), max_epochs=max_epochs, eta=eta)


def told(strategy, proposal, outcome, **cost):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1, **cost)))


def score(strategy, proposal, value):
    told(strategy, proposal, Measured({"score": value}))


def what(proposals):
    """The number, the trial continued, and the epochs of each."""
    return [(p.number, p.continues, p.fidelity.epochs) for p in proposals]


# --------------------------------------------------------------------------- promotions


def test_promotions_in_an_order_of_arrivals_worked_out_by_hand():
    # η 2, rungs of 1, 2 and 4 epochs: Algorithm 2 on paper.
    strategy = layer()
    one, two, three, four = strategy.ask(4)
    assert what([one, two, three, four]) == [(n, None, 1) for n in range(4)]
    score(strategy, two, 5.0)
    assert what(strategy.ask(1)) == [(4, None, 1)]  # of one, ⌊1/2⌋ may go on
    score(strategy, one, 7.0)
    (promoted,) = strategy.ask(1)
    assert what([promoted]) == [(5, 0, 2)]  # the better of two
    score(strategy, three, 6.0)
    assert what(strategy.ask(1)) == [(6, None, 1)]  # of three still one, who went already
    score(strategy, four, 8.0)
    (second,) = strategy.ask(1)
    assert what([second]) == [(7, 3, 2)]  # of four two
    score(strategy, promoted, 1.0)
    assert what(strategy.ask(1)) == [(8, None, 1)]
    score(strategy, second, 0.5)
    # The highest rung first, then a new architecture; nobody waits for what is in flight.
    assert what(strategy.ask(3)) == [(9, 5, 4), (10, None, 1), (11, None, 1)]


def test_whom_a_latecomer_makes_room_for_is_promoted_though_worse():
    strategy = layer(eta=2)
    first = strategy.ask(4)
    for proposal, value in zip(first[:2], (3.0, 2.0), strict=True):
        score(strategy, proposal, value)
    assert what(strategy.ask(1)) == [(4, 0, 2)]
    score(strategy, first[2], 0.0)
    assert what(strategy.ask(1)) == [(5, None, 1)]
    score(strategy, first[3], 1.0)
    # Two of four now: trial 1 has moved up, and no other is better and left.
    assert what(strategy.ask(2)) == [(6, 1, 2), (7, None, 1)]


def test_of_equals_the_earlier_to_come_back_is_promoted():
    strategy = layer(eta=3)
    first = strategy.ask(3)
    for index in (2, 0, 1):
        score(strategy, first[index], 1.0)
    assert what(strategy.ask(1)) == [(3, 2, 1 if strategy.max_epochs < 3 else 4)]


def reference_asha(values, epochs, eta, order):
    """Algorithm 2 with one worker a line of ``order``; ``values[i][rung]`` is what i measures."""
    rungs = [{} for _ in epochs]
    promoted = [set() for _ in epochs]
    running, log, fresh = [], [], 0
    for returns in order:
        for rung in reversed(range(len(epochs) - 1)):
            best = sorted(rungs[rung], key=lambda i: -rungs[rung][i])[: len(rungs[rung]) // eta]
            able = [i for i in best if i not in promoted[rung]]
            if able:
                promoted[rung].add(able[0])
                job = (able[0], rung + 1)
                break
        else:
            job, fresh = (fresh, 0), fresh + 1
        log.append(job)
        running.append(job)
        for _ in range(min(returns, len(running))):
            i, rung = running.pop(0)
            rungs[rung][i] = values[i][rung]
    return log


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_equals_algorithm_2(eta):
    rng = np.random.default_rng(eta)
    strategy = layer(eta=eta, max_epochs=eta**3)
    epochs = [1, eta, eta**2, eta**3]
    values = rng.random((400, 4))
    order = rng.integers(0, 4, size=400)
    running, ours, of_trial = [], [], {}
    for returns in order:
        (proposal,) = strategy.ask(1)
        if proposal.continues is None:
            of_trial[proposal.number] = len({i for i, _ in ours})
        else:
            of_trial[proposal.number] = of_trial[proposal.continues]
        rung = epochs.index(proposal.fidelity.epochs)
        assert proposal.notes["rung"] == rung
        ours.append((of_trial[proposal.number], rung))
        running.append(proposal)
        for _ in range(min(returns, len(running))):
            done = running.pop(0)
            index = of_trial[done.number]
            score(strategy, done, float(values[index][epochs.index(done.fidelity.epochs)]))
    assert ours == reference_asha(values, epochs, eta, order)
    assert {rung for _, rung in ours} == {0, 1, 2, 3}


def test_several_objectives_go_by_front_and_crowding():
    # Of nine, the front has four: its ends have all the room, then who has most of it.
    points = [(9, 9), (1, 9), (9, 1), (2, 7), (6, 2.5), (8, 8), (7, 7), (9, 5), (5, 9)]
    objectives = (maximize("score"), minimize("cost"))
    strategy = layer(eta=3, max_epochs=3, objectives=objectives)
    for proposal, (cost, other) in zip(strategy.ask(9), points, strict=True):
        told(strategy, proposal, Measured({"score": -other, "cost": cost}))
    assert [p.continues for p in strategy.ask(3)] == [1, 2, 4]


# ---------------------------------------------------------------------------- failures


def test_what_fails_is_in_no_rung_and_what_was_measured_counts():
    strategy = layer(eta=2)
    first = strategy.ask(4)
    score(strategy, first[0], 1.0)
    told(strategy, first[1], Failed("not finite", "score is nan"))
    told(strategy, first[2], Infeasible("cost is 9, must be at most 5"))
    assert what(strategy.ask(1)) == [(4, None, 1)]  # one was measured, not three
    score(strategy, first[3], 2.0)
    (promoted,) = strategy.ask(1)
    assert what([promoted]) == [(5, 3, 2)]
    inner = strategy.strategy
    assert inner.numbers() == [0, 1, 2]
    told(strategy, promoted, Failed("worker died", "the machine is gone"))
    # Its failure says nothing of the architecture; what it measured before does.
    assert inner.numbers() == [0, 1, 2, 3]
    assert inner.heard[-1].values == {"score": 2.0}
    assert inner.heard[-1].cost.trials == 2
    assert what(strategy.ask(2)) == [(6, None, 1), (7, None, 1)]  # nor is it promoted again


def test_a_limit_broken_later_is_told():
    strategy = layer(eta=2)
    first = strategy.ask(2)
    for proposal in first:
        score(strategy, proposal, 1.0 + proposal.number)
    (promoted,) = strategy.ask(1)
    told(strategy, promoted, Infeasible("score is 0"))
    assert strategy.strategy.heard[-1].outcome == Infeasible("score is 0")


def test_a_third_failing_is_told_as_that_and_poisons_nothing():
    rng = np.random.default_rng(3)
    strategy = layer(eta=3, max_epochs=9)
    measured, flying = {}, []
    for _ in range(400):
        flying += strategy.ask(2)
        proposal = flying.pop(int(rng.integers(len(flying))))
        if rng.random() < 0.3:
            told(strategy, proposal, Failed("not finite", "score is nan"))
        else:
            measured[proposal.number] = float(rng.random())
            score(strategy, proposal, measured[proposal.number])
    inner = strategy.strategy
    assert len(set(inner.numbers())) == len(inner.numbers()) > 150
    values = [trial.values["score"] for trial in inner.heard if trial.values]
    assert set(values) <= set(measured.values())
    assert sum(isinstance(trial.outcome, Failed) for trial in inner.heard) > 30
    assert all(trial.values or isinstance(trial.outcome, Failed) for trial in inner.heard)


# ------------------------------------------------------------- what the strategy inside hears


def test_the_strategy_inside_hears_of_each_once_with_its_highest_rung():
    strategy = layer(eta=2)
    inner = strategy.strategy
    first = strategy.ask(2)
    score(strategy, first[0], 1.0)
    assert inner.numbers() == [0]  # passed over: of one, none may go on
    score(strategy, first[1], 2.0)
    assert inner.numbers() == [0]  # trial 1 may
    (promoted,) = strategy.ask(1)
    score(strategy, promoted, 5.0)
    assert inner.numbers() == [0, 1]
    last = inner.heard[-1]
    assert last.values == {"score": 5.0}
    assert last.proposal == Uniform(FlatSpace(), SCORE).ask(2)[1]  # as it made it
    assert last.cost.trials == 2


def test_whom_others_push_out_before_a_promotion_is_told():
    strategy = layer(eta=2)
    first = strategy.ask(3)
    score(strategy, first[0], 1.0)
    score(strategy, first[1], 2.0)  # may go on, and nobody asks
    score(strategy, first[2], 3.0)  # goes before it
    assert strategy.strategy.numbers() == [0, 1]


def test_parents_and_what_was_spent_are_translated():
    space = NestedSpace()
    inner = RegularizedEvolution(space, SCORE, 0, population_size=2, sample_size=2)
    strategy = Asha(inner, max_epochs=3, eta=3)
    latest, arch = {}, {}
    children = 0
    for _ in range(60):
        (proposal,) = strategy.ask(1)
        if proposal.parent is not None:
            children += 1
            parent = arch[proposal.parent]
            assert proposal.parent in latest.values(), "a parent is the last trial of its kind"
            differ = {k for k in set(parent) & set(proposal.arch) if parent[k] != proposal.arch[k]}
            assert len(differ) == 1
        arch[proposal.number] = proposal.arch
        key = latest.get(proposal.continues, proposal.number)
        latest = {k: v for k, v in latest.items() if v != proposal.continues}
        latest[key] = proposal.number
        score(strategy, proposal, float(proposal.number % 7))
    assert children > 30


# ----------------------------------------------------------------------------- the rest


def test_checkpoints_are_kept_of_those_that_may_still_go_on():
    strategy = layer(eta=2)
    assert isinstance(strategy, HasContinuable)
    first = strategy.ask(3)
    for proposal in first[:2]:
        score(strategy, proposal, float(proposal.number))
    assert strategy.continuable() == {0, 1}
    (promoted,) = strategy.ask(1)
    assert strategy.continuable() == {0, 1}  # in flight: a killed run starts it again
    score(strategy, promoted, 1.0)
    assert strategy.continuable() == {0, promoted.number}
    assert not isinstance(Uniform(FlatSpace(), SCORE), HasContinuable)


def test_a_configuration_nests_them():
    given = {"space": FlatSpace(), "objectives": SCORE, "seed": 5}
    document = {
        "name": "asha",
        "strategy": {"name": "regularized_evolution", "population_size": 7, "sample_size": 2},
        "min_epochs": 2,
        "max_epochs": 32,
        "eta": 4,
    }
    strategy = create("strategies", document, "strategy", given)
    assert isinstance(strategy.strategy, RegularizedEvolution)
    assert (strategy.seed, strategy.strategy.population_size) == (5, 7)
    assert strategy.space == FlatSpace()
    assert create("strategies", {**document, "strategy": "random"}, "strategy", given).seed == 5
    header = {"strategy": describe(strategy)}
    assert space_from_header(header) == FlatSpace()
    assert objectives_of(header) == [{"maximize": "score"}]
    wrong = {**document, "strategy": {"name": "regularized_evolution", "population_sise": 7}}
    with pytest.raises(ConfigError, match=r"strategy\.strategy.*population_sise"):
        create("strategies", wrong, "strategy", given)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"eta": 1}, "eta must be at least 2, got 1"),
        ({"min_epochs": 0}, "min_epochs must be at least 1, got 0"),
        ({"min_epochs": 5, "max_epochs": 4}, r"at least min_epochs \(5\), got 4"),
    ],
)
def test_refuses_what_is_out_of_range(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Asha(Uniform(FlatSpace(), SCORE), **arguments)


@pytest.mark.parametrize("kind", [Asha, Hyperband])
def test_refuses_a_layer_around_a_layer(kind):
    with pytest.raises(ConfigError, match="Asha decides on fidelities itself"):
        kind(layer())
