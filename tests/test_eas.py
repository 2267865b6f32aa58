"""EAS: the actors' probabilities and gradients, and that what they learn pays."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from growing import FOUND_ONCE, SPACE, Blocks, grown_by_hand, layer_picks, of_layers

from nas.budget import Cost
from nas.components import create, describe
from nas.errors import ConfigError, UnsupportedRequest
from nas.objective import maximize, minimize
from nas.plain import plainest
from nas.testing import StrategyContract
from nas.training import reproducible
from nas.trial import Failed, Infeasible, Measured, Trial
from strategies import eas_layers
from strategies.eas import PUBLISHED, Eas, again, eas_loss
from strategies.eas_layers import Grower, layers_of
from strategies.eas_policy import EasPolicy, EasSettings

SCORE = (maximize("score"),)
TINY = EasSettings(embedding=3, hidden=4, wider_steps=1, deeper_steps=1, batch=3, lr=0.01, stage=9)


class TestEas(StrategyContract):
    trials = 18

    @pytest.fixture(autouse=True)
    def _known(self, monkeypatch):
        monkeypatch.setattr(eas_layers, "morphisms", FOUND_ONCE)

    def spaces(self):
        return (SPACE,)

    def strategy(self, space, objectives, seed):
        return Eas(space, objectives, seed, rewards="quantiles", settings=TINY)


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setattr(eas_layers, "morphisms", functools.cache(grown_by_hand))
    return Blocks()


START = of_layers([(3, 8, 1), (3, 16, 2), (1, 8, 1), (5, 32, 1)])


def test_layers_have_tokens_whatever_their_place(blocks):
    layers = layers_of(of_layers([(3, 8, 1), (3, 8, 1), (3, 8, 2)]))
    assert [layer.name for layer in layers] == ["depth", "layer0", "layer1", "layer2"]
    assert layers[1].token == layers[2].token == (("kernel", 3), ("width", 8), ("stride", 1))
    assert [layer.reduces for layer in layers] == [False, False, False, True]


def test_what_can_be_grown_and_where(blocks):
    growths = Grower(blocks).growths(START)
    assert {index: layer_picks(arch) for index, arch in growths.wider.items()} == {
        1 + i: [*layers[:i], (k, 2 * w, s), *layers[i + 1 :]]
        for layers in [layer_picks(START)]
        for i, (k, w, s) in enumerate(layers)
    }
    # Layer 1 has stride 2 and ends the first block. What goes in behind a layer is seen where
    # the child first differs: behind all that are like it.
    assert set(growths.deeper) == {(0, 1), (1, 0), (1, 1), (1, 2)}
    assert [[a["layer2/kernel"] for a in growths.deeper[1, 0]]] == [[1, 3, 5]]
    assert all(a["depth"] == 5 for archs in growths.deeper.values() for a in archs)


def test_several_layers_are_widened_at_once(blocks):
    wider = layer_picks(Grower(blocks).widened(START, [1, 4]))
    assert wider == [(3, 16, 1), (3, 16, 2), (1, 8, 1), (5, 64, 1)]


def policy(space, seed=0, **changes):
    settings = dataclasses.replace(EasSettings(embedding=3, hidden=4), **changes)
    with reproducible(seed, 1):
        return EasPolicy(space, settings).double()


def walks(policy, start):
    """Every episode there is, each with its probability, by trying all decisions."""
    left = [()]
    while left:
        made, shares_seen = left.pop(), []

        def pick(shares, made=made, seen=shares_seen):
            seen.append(shares)
            if len(seen) <= len(made):
                return made[len(seen) - 1]
            raise StopIteration

        try:
            yield policy.episode(start, pick)
        except StopIteration:
            shares = enumerate(shares_seen[-1])
            left += [(*made, index) for index, share in shares if share > 0]


@pytest.mark.parametrize(("wider", "deeper"), [(1, 0), (0, 1), (1, 1), (0, 2)])
def test_probabilities_of_all_episodes_sum_to_one(blocks, wider, deeper):
    made = policy(blocks, wider_steps=wider, deeper_steps=deeper)
    start = of_layers([(3, 8, 2), (3, 16, 1)])
    found = list(walks(made, start))
    assert len({episode.decisions for episode in found}) == len(found) > 3
    assert sum(float(e.log_prob.detach().exp()) for e in found) == pytest.approx(1.0, abs=1e-9)
    assert {e.arch["depth"] for e in found} == {2 + deeper}


def test_an_episode_is_the_same_again(blocks):
    strategy = Eas(blocks, SCORE, 0, initial=[START.to_json()])
    told(strategy, strategy.ask(1)[0], Measured({"score": 0.5}))
    for proposal in strategy.ask(4):
        start, decisions = strategy._flying[proposal.number]
        assert start == START
        assert again(strategy._policy, start, decisions).arch == proposal.arch


def test_gradients_match_finite_differences(blocks):
    made = policy(blocks, seed=1, wider_steps=2, deeper_steps=2)
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(3):
        drawn = made.episode(START, lambda p: int(rng.choice(len(p), p=np.array(p) / sum(p))))
        episodes.append(drawn.decisions)
    advantages = torch.tensor([1.5, -0.5, 0.7], dtype=torch.float64)

    def loss():
        return eas_loss([again(made, START, one) for one in episodes], advantages, 0.3)

    loss().backward()
    checked = 0
    for parameter in made.parameters():
        flat = parameter.data.view(-1)
        for index in rng.choice(len(flat), min(3, len(flat)), replace=False):
            with torch.no_grad():
                flat[index] += 1e-6
                above = loss()
                flat[index] -= 2e-6
                below = loss()
                flat[index] += 1e-6
            gradient = 0.0 if parameter.grad is None else float(parameter.grad.view(-1)[index])
            assert float(above - below) / 2e-6 == pytest.approx(gradient, abs=1e-6)
            checked += gradient != 0
    assert checked > 20


# ---------------------------------------------------------------------------------- learning


def told(strategy, proposal, outcome):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


def worth(arch):
    """From 0 to 1: kernels of 5 among the layers behind the stride, and a narrow first layer."""
    layers = layer_picks(arch)
    late = [kernel for kernel, _, _ in layers[2:]]
    return 0.4 * late.count(5) / len(late) + 0.4 * (layers[0][1] == 8) + 0.1


def rewards_of(blocks, seed, learning, failing=0.0, trials=160):
    settings = EasSettings(hidden=8, wider_steps=1, deeper_steps=2, lr=0.02 if learning else 1e-9)
    strategy = Eas(blocks, SCORE, seed, initial=[START.to_json()], settings=settings)
    rng = np.random.default_rng([seed, 3])
    (first,) = strategy.ask(1)
    told(strategy, first, Measured({"score": worth(first.arch)}))
    flying, found = [], []
    while len(found) < trials:
        flying += strategy.ask(4)
        while len(flying) > 3:
            proposal = flying.pop(int(rng.integers(len(flying))))
            found.append(worth(proposal.arch))
            bad = rng.random() < failing
            outcome = Failed("timeout", "late") if bad else Measured({"score": found[-1]})
            told(strategy, proposal, outcome)
    return float(np.mean(found[-60:]))


@pytest.mark.parametrize("failing", [0.0, 0.3])
def test_rewards_rise_above_those_of_uniform_choice(blocks, failing):
    learnt = rewards_of(blocks, 1, learning=True, failing=failing)
    uniform = rewards_of(blocks, 1, learning=False, trials=60)
    assert learnt > uniform + 0.15


def test_rewards_are_tangents_above_a_moving_average(blocks, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "strategies.eas.eas_loss",
        lambda episodes, advantages, weight: (
            seen.append(advantages) or eas_loss(episodes, advantages, weight)
        ),
    )
    settings = EasSettings(hidden=4, batch=3)
    strategy = Eas(blocks, SCORE, 0, initial=[START.to_json()], settings=settings)
    told(strategy, strategy.ask(5)[0], Measured({"score": 0.5}))
    values = [0.2, 0.9, 1.0, 0.4, 0.6, 0.7]
    for proposal, value in zip(strategy.ask(6), values, strict=True):
        told(strategy, proposal, Measured({"score": value}))
    rewards = [math.tan(min(value, 0.999) * math.pi / 2) for value in values]
    baseline = sum(rewards[:3]) / 3
    for batch, part in zip(seen, (rewards[:3], rewards[3:]), strict=True):
        assert batch.tolist() == pytest.approx([reward - baseline for reward in part], rel=1e-5)
        for reward in part:
            baseline = 0.95 * baseline + 0.05 * reward


def test_the_start_is_trained_first_and_then_the_best_of_a_stage(blocks):
    settings = EasSettings(hidden=4, stage=4)
    strategy = Eas(blocks, SCORE, 0, initial=[START.to_json()], settings=settings)
    (first,) = strategy.ask(3)
    assert (first.arch, first.parent) == (START, None)
    assert strategy.ask(3) == []
    told(strategy, first, Failed("memory", "too much"))
    (first,) = strategy.ask(3)
    assert first.arch == START
    told(strategy, first, Measured({"score": 0.2}))
    stage = strategy.ask(5)
    assert {proposal.parent for proposal in stage} == {first.number}
    told(strategy, stage[0], Failed("memory", "too much"))
    for proposal, score in zip(stage[1:], (0.3, 0.6, 0.5, 0.1), strict=True):
        told(strategy, proposal, Measured({"score": score}))
    (following,) = strategy.ask(1)
    assert following.parent == stage[2].number
    assert following.arch["depth"] >= stage[2].arch["depth"]


def test_a_start_that_breaks_a_limit_gives_way(blocks):
    objectives = (maximize("score"), minimize("cost", limit=2.0))
    strategy = Eas(blocks, objectives, 0, rewards="quantiles")
    told(strategy, strategy.ask(1)[0], Infeasible("cost is 9, must be at most 2"))
    assert strategy.ask(1)[0].arch != plainest(blocks)


def test_values_that_have_no_tangent_are_refused_at_once(blocks):
    strategy = Eas(blocks, SCORE)
    with pytest.raises(ConfigError, match=r"trial 0 has 55.*'quantiles'"):
        told(strategy, strategy.ask(1)[0], Measured({"score": 55.0}))


def test_a_space_that_cannot_be_grown_is_refused(blocks):
    still = dataclasses.make_dataclass("Still", [], bases=(Blocks,), frozen=True)()
    full = of_layers([(1, 128, 1)] * 10)
    with pytest.raises(UnsupportedRequest, match="'blocks/v1' has nothing to widen or deepen"):
        Eas(still, SCORE, initial=[full.to_json()])


def test_published_settings_are_those_of_the_paper():
    assert (PUBLISHED.embedding, PUBLISHED.hidden) == (16, 50)
    assert (PUBLISHED.wider_steps, PUBLISHED.deeper_steps, PUBLISHED.batch) == (4, 5, 10)
    assert (PUBLISHED.lr, PUBLISHED.baseline_decay, PUBLISHED.stage) == (0.002, 0.95, 300)
    strategy = Eas(SPACE, SCORE, 1, settings=TINY)
    assert create("strategies", describe(strategy), "strategy").settings == TINY


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("embedding", 0),
        ("hidden", 0),
        ("batch", 0),
        ("stage", 0),
        ("wider_steps", -1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("baseline_decay", 1.0),
        ("entropy_weight", -1.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(argument, value):
    with pytest.raises(ConfigError, match=argument):
        dataclasses.replace(PUBLISHED, **{argument: value})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rewards": "tangent"}, "tan"),
        ({"initial": ["depth=1", "depth=2"]}, "one architecture, got 2"),
    ],
)
def test_nonsense_is_refused(blocks, arguments, says):
    with pytest.raises(ConfigError, match=says):
        Eas(blocks, SCORE, **arguments)
