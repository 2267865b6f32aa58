"""Q-learning: values against dynamic programming, the agent, replay, failures."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest

from nas.architecture import Architecture, Choice
from nas.budget import Cost
from nas.errors import ConfigError
from nas.objective import maximize, minimize
from nas.space import HasState, count, enumerate_architectures, next_choice
from nas.testing.toys import FlatSpace, NestedSpace
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.metaqnn import MetaQnn
from search_spaces.nasbench201 import NasBench201
from strategies.q_learning import QLearning
from strategies.q_settings import BLOCKQNN, METAQNN, QSettings

SCORE = (maximize("score"),)
META = replace(METAQNN, draws=10)
BLOCK = replace(BLOCKQNN, draws=10)
CHAINS = MetaQnn(
    layers=4,
    kernels=(1, 3),
    widths=(2,),
    pools=((3, 2), (2, 1)),
    dense=(5, 4),
    bins=(4, 2),
    classes=3,
    input=(1, 9, 7),
)


def told(strategy, proposal, outcome):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


def teach(strategy, reward, trials):
    """Asks for and tells so many, each rewarded with a function of its architecture."""
    proposals = []
    for _ in range(trials):
        asked = strategy.ask(1)
        if not asked:
            break
        proposals += asked
        told(strategy, asked[0], Measured({"score": reward(asked[0].arch)}))
    return proposals


# ------------------------------------------------------------------------- value iteration


def optimal_values(space, state, reward, discount=1.0, per_step=False):
    """The optimal Q-values of a deterministic MDP, by value iteration over its listed states.

    Args:
        state: of a prefix.
        reward: of a complete architecture.
        per_step: whether every step has an equal part of it, instead of the last all.
    """
    edges = {}
    for arch in enumerate_architectures(space):
        picks = list(arch.picks)
        for index, (_, option) in enumerate(picks):
            here, there = (state(dict(picks[:stop])) for stop in (index, index + 1))
            done = index + 1 == len(picks)
            gain = reward(arch) / len(picks) if per_step else reward(arch) * done
            edge = (gain, None if done else there)
            assert edges.setdefault((here, option), edge) == edge, "no deterministic MDP"
    values = dict.fromkeys(edges, 0.0)
    while True:
        best = {}
        for (here, _), value in values.items():
            best[here] = max(best.get(here, -np.inf), value)
        improved = {
            pair: gain + discount * (0.0 if there is None else best[there])
            for pair, (gain, there) in edges.items()
        }
        if improved == values:
            return values
        values = improved


@dataclass(frozen=True)
class Conditional:
    """Four choices, of which one depends on another: 30 architectures."""

    name = "conditional/v1"
    choices = (
        Choice("a", ("x", "y", "z")),
        Choice("b", (1, 2), {"a": ("x", "y")}),
        Choice("c", (0.5, 1.5, 2.5)),
        Choice("d", ("left", "right")),
    )

    def legal(self, prefix):
        return next_choice(self.choices, prefix)

    def canonical(self, arch):
        return arch


def learnt_values(strategy, space, state):
    found = {}
    for arch in enumerate_architectures(space):
        picks = list(arch.picks)
        for index in range(len(picks)):
            prefix = dict(picks[:index])
            for option, value in strategy.q_values(prefix).items():
                assert found.setdefault((state(prefix), option), value) == value
    return found


def whole(prefix):
    return tuple(prefix.items())


def noise(arch):
    return int(arch.digest()[:8], 16) / 2**32


@pytest.mark.parametrize("discount", [1.0, 0.7])
@pytest.mark.parametrize("space", [Conditional(), NestedSpace(), FlatSpace()])
def test_values_are_those_of_value_iteration_where_a_state_is_the_prefix(space, discount):
    settings = QSettings(
        schedule=((1.0, 1),), learning_rate=0.3, draws=1500, window=None, discount=discount
    )
    strategy = QLearning(space, SCORE, 3, settings=settings)
    assert len(teach(strategy, noise, 100)) == count(space)
    expected = optimal_values(space, whole, noise, discount)
    found = learnt_values(strategy, space, whole)
    assert found.keys() == expected.keys()
    assert max(abs(found[pair] - expected[pair]) for pair in expected) < 1e-3
    # Greedy from the beginning, that is the best architecture.
    made = {}
    while options := strategy.q_values(made):
        made[space.legal(made)[0].label] = max(options, key=options.get)
    best = max(enumerate_architectures(space), key=noise)
    assert tuple(made.items()) == best.picks or discount < 1


def test_values_are_those_of_value_iteration_where_a_state_is_the_last_pick():
    # The reward is a function of the last two picks alone, which the states show one by one.
    space = NasBench201(operations=("none", "skip_connect", "nor_conv_3x3"))
    table = dict(zip(np.ndindex(3, 3), np.random.default_rng(1).random(9), strict=True))

    def reward(arch):
        last = [space.operations.index(option) for _, option in arch.picks[-2:]]
        return float(table[tuple(last)])

    def state(prefix):
        return (len(prefix), *list(prefix.items())[-1:])

    settings = QSettings(schedule=((1.0, 1),), learning_rate=0.1, draws=200, window=1)
    strategy = QLearning(space, SCORE, 0, settings=settings)
    teach(strategy, reward, 200)
    expected = optimal_values(space, state, reward)
    found = learnt_values(strategy, space, state)
    assert found.keys() == expected.keys()
    assert len(found) == 3 + 5 * 9
    assert max(abs(found[pair] - expected[pair]) for pair in expected) < 1e-6


def test_values_are_those_of_value_iteration_on_metaqnns_own_states():
    # With one bin of sizes a state is followed by one state; the reward is the last one's.
    space = MetaQnn(layers=3, kernels=(1,), widths=(2, 3), pools=((2, 2),), dense=(5, 4), bins=())
    assert isinstance(space, HasState)

    def reward(arch):
        return noise(Architecture(space.name, arch.picks[-1:]))

    settings = QSettings(schedule=((1.0, 1),), learning_rate=0.3, draws=600)
    strategy = QLearning(space, SCORE, 0, settings=settings)
    assert len(teach(strategy, reward, 1000)) == count(space)
    expected = optimal_values(space, space.state, reward)
    found = learnt_values(strategy, space, space.state)
    assert found.keys() == expected.keys()
    assert max(abs(found[pair] - expected[pair]) for pair in expected) < 1e-3
    prefixes = {a.picks[:n] for a in enumerate_architectures(space) for n in range(len(a.picks))}
    assert len({state for state, _ in expected}) < len(prefixes)  # else nothing was shared


def test_shaped_rewards_have_the_values_of_a_mdp_that_pays_every_step():
    # A reward that is the same for all, so that the parts are those of the step and not the model.
    space = FlatSpace()
    settings = replace(BLOCKQNN, schedule=((1.0, 1),), learning_rate=0.3, draws=300)
    strategy = QLearning(space, SCORE, 0, settings=settings)
    teach(strategy, lambda arch: 2.0, 64)
    made = {}
    for left in (2.0, 1.5, 1.0, 0.5):
        options = strategy.q_values(made)
        assert list(options.values()) == pytest.approx([left] * len(options), abs=1e-6)
        made[space.legal(made)[0].label] = next(iter(options))


# ------------------------------------------------------------------------------- the agent


def test_updates_by_hand():
    space = Conditional()
    settings = QSettings(schedule=((1.0, 1),), learning_rate=0.5, draws=2, discount=0.8)
    strategy = QLearning(space, SCORE, 0, settings=settings)
    (proposal,) = strategy.ask(1)
    assert strategy.q_values({}) == {"x": 0.5, "y": 0.5, "z": 0.5}
    told(strategy, proposal, Measured({"score": 0.9}))  # twice through the one that there is
    picks = list(proposal.arch.picks)
    values = [0.5] * len(picks)
    for _ in range(2):
        for index in reversed(range(len(picks))):
            last = index + 1 == len(picks)
            # An option that was not tried is still 0.5.
            target = 0.9 if last else 0.8 * max(0.5, values[index + 1])
            values[index] += 0.5 * (target - values[index])
    for index, (_, option) in enumerate(picks):
        found = strategy.q_values(dict(picks[:index]))
        assert found.pop(option) == pytest.approx(values[index], abs=1e-12)
        assert set(found.values()) == {0.5}


def test_epsilon_is_the_share_of_random_picks():
    # One of four options is known to be better; behind it what was tried is worse than the rest,
    # so that the agent seldom repeats itself.
    @dataclass(frozen=True)
    class Wide:
        name = "wide/v1"
        choices = (Choice("first", tuple(range(4))), Choice("second", tuple(range(3000))))

        def legal(self, prefix):
            return next_choice(self.choices, prefix)

        def canonical(self, arch):
            return arch

    for epsilon in (1.0, 0.6, 0.2):
        settings = QSettings(
            schedule=((1.0, 1), (epsilon, 1)), learning_rate=1.0, draws=1, shape="spread"
        )
        strategy = QLearning(Wide(), SCORE, 0, settings=settings)
        (first,) = strategy.ask(1)
        told(strategy, first, Measured({"score": 0.1}))
        proposals = strategy.ask(500)
        seen = Counter(proposal.arch["first"] for proposal in proposals)
        expected = 1 - epsilon + epsilon / 4
        assert abs(seen[first.arch["first"]] / 500 - expected) < 0.08  # 3.6 standard errors
        assert {proposal.notes["epsilon"] for proposal in proposals} == {epsilon}


@pytest.mark.parametrize("space", [FlatSpace(), NestedSpace(), CHAINS], ids=lambda s: s.name)
@pytest.mark.parametrize("epsilon", [1.0, 0.0])
@pytest.mark.parametrize("batch", [1, 1000])
def test_every_architecture_once_and_then_no_more(space, epsilon, batch):
    settings = QSettings(schedule=((epsilon, 1),), draws=3)
    strategy = QLearning(space, SCORE, 2, settings=settings)
    proposals = []
    while asked := strategy.ask(batch):
        for proposal in asked:
            told(strategy, proposal, Measured({"score": noise(proposal.arch)}))
        proposals += asked
    archs = [proposal.arch for proposal in proposals]
    assert len(archs) == len(set(archs)) == count(space)
    before = copy.deepcopy(strategy.state_dict())
    assert strategy.ask(2) == []
    assert strategy.state_dict() == before


# -------------------------------------------------------------------------- what comes back


def outcomes(rng, proposal):
    """Of a third of all one that is none, of every kind."""
    kinds = ("exception", "timeout", "memory", "not finite", "worker died")
    if rng.random() < 0.3:
        which = int(rng.integers(len(kinds) + 1))
        return Infeasible("too big", {"score": 9.0}) if which == 5 else Failed(kinds[which], "nan")
    return Measured({"score": noise(proposal.arch)})


@pytest.mark.parametrize("settings", [META, BLOCK])
def test_the_table_is_that_of_a_learner_that_never_saw_the_failed(settings):
    space = NasBench201()
    seeing, blind = (QLearning(space, SCORE, 1, 120, settings) for _ in range(2))
    rng = np.random.default_rng(0)
    failed, flying = 0, []
    for _ in range(60):
        asked = seeing.ask(2)
        assert asked == blind.ask(2)
        flying += asked
        while len(flying) > 4:
            proposal = flying.pop(int(rng.integers(len(flying))))
            outcome = outcomes(rng, proposal)
            told(seeing, proposal, outcome)
            if isinstance(outcome, Measured):
                told(blind, proposal, outcome)
            else:
                failed += 1
    assert 20 < failed < 60
    assert seeing.state_dict() == blind.state_dict()
    assert len(seeing.state_dict()["memory"]) == 116 - failed


def test_draws_from_memory_are_those_of_the_trial():
    space = NasBench201()
    one, other = (QLearning(space, SCORE, 0, settings=META) for _ in range(2))
    proposals = one.ask(8)
    assert list(other.ask(8)) == list(proposals)
    for proposal in proposals:
        told(one, proposal, Measured({"score": noise(proposal.arch)}))
    for proposal in reversed(proposals):
        told(other, proposal, Measured({"score": noise(proposal.arch)}))
    tables = one.state_dict()["table"], other.state_dict()["table"]
    assert tables[0].keys() == tables[1].keys()
    assert tables[0] != tables[1]  # what was in memory when it was drawn from was not the same
    again = QLearning(space, SCORE, 0, settings=META)
    for proposal in again.ask(8)[::-1]:
        told(again, proposal, Measured({"score": noise(proposal.arch)}))
    assert again.state_dict() == other.state_dict()


def test_an_architecture_that_comes_back_twice_is_remembered_twice():
    # A layer that trains the promising for longer tells of one architecture more than once.
    strategy = QLearning(FlatSpace(), SCORE, 0, settings=META)
    (proposal,) = strategy.ask(1)
    for score in (0.3, 0.6):
        told(strategy, proposal, Measured({"score": score}))
    state = strategy.state_dict()
    assert [reward for _, reward in state["memory"]] == [0.3, 0.6]
    loaded = QLearning(FlatSpace(), SCORE, 0, settings=META)
    loaded.load_state_dict(state)
    assert loaded.state_dict() == state
    assert loaded.ask(3) == strategy.ask(3)


def test_several_objectives_are_their_weighted_product():
    objectives = (maximize("score"), minimize("cost", weight=2.0))
    strategy = QLearning(FlatSpace(), objectives, 0, settings=META)
    for proposal, (score, cost) in zip(strategy.ask(2), [(8.0, 4.0), (3.0, 2.0)], strict=True):
        told(strategy, proposal, Measured({"score": score, "cost": cost}))
    assert [reward for _, reward in strategy.state_dict()["memory"]] == [0.5, 0.75]


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="trials must be 1 or more, got 0"):
        QLearning(FlatSpace(), SCORE, trials=0)
