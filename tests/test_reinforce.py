"""REINFORCE holds the contract, follows the gradient of the expected reward, and learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from controlling import TABLE, follow, small, table_regret, told

from nas.components import create, describe
from nas.errors import ConfigError
from nas.objective import maximize
from nas.space import enumerate_architectures
from nas.testing import StrategyContract
from nas.testing.toys import FlatSpace, NestedSpace
from nas.trial import Failed, Infeasible
from search_spaces.nasbench201 import NasBench201
from strategies.policy import PolicySettings
from strategies.reinforce import PUBLISHED, SETTINGS, Reinforce, reinforce_loss

SCORE = (maximize("score"),)


class TestReinforce(StrategyContract):
    trials = 18

    def strategy(self, space, objectives, seed):
        return Reinforce(space, objectives, seed, small(SETTINGS, redraws=3))


# ------------------------------------------------------------------------------ the gradient


def exact_gradient(policy, archs, rewards):
    """Of the expected reward: no logarithms, no estimate."""
    expected = (policy.of_many(archs).log_probs.exp() * rewards).sum()
    return torch.autograd.grad(expected, list(policy.parameters()), allow_unused=True)


def estimate(policy, archs, advantages, entropy_weight=0.0):
    loss = reinforce_loss(policy.of_many(archs), advantages, entropy_weight)
    return torch.autograd.grad(-loss, list(policy.parameters()), allow_unused=True)


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_the_estimate_is_on_average_the_gradient_of_the_expected_reward(baseline):
    space = NestedSpace()
    settings = small(SETTINGS, policy=PolicySettings(hidden=4, tanh_constant=None, scale=0.8))
    policy = Reinforce(space, SCORE, 0, settings)._controller.policy.double()
    archs = list(enumerate_architectures(space))
    rewards = torch.from_numpy(np.random.default_rng(0).random(len(archs)))
    with torch.no_grad():
        shares = policy.of_many(archs).log_probs.exp()
    assert float(shares.max() / shares.min()) > 5
    # Every architecture by itself is a batch, and comes as often as the policy draws it.
    mean = None
    for arch, share, reward in zip(archs, shares, rewards, strict=True):
        parts = estimate(policy, [arch], (reward - baseline)[None])
        weighed = [torch.zeros(()) if part is None else share * part for part in parts]
        mean = weighed if mean is None else [m + w for m, w in zip(mean, weighed, strict=True)]
    for ours, exact in zip(mean, exact_gradient(policy, archs, rewards), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-12)


def test_a_batch_is_the_mean_of_its_members():
    space = FlatSpace()
    policy = Reinforce(space, SCORE, 1, small(SETTINGS))._controller.policy.double()
    archs = list(enumerate_architectures(space))[::9]
    advantages = torch.from_numpy(np.random.default_rng(1).normal(size=len(archs)))
    whole = estimate(policy, archs, advantages)
    parts = [estimate(policy, [a], v[None]) for a, v in zip(archs, advantages, strict=True)]
    for index, gradient in enumerate(whole):
        mean = torch.stack([part[index] for part in parts]).mean(0)
        torch.testing.assert_close(gradient, mean, rtol=1e-9, atol=1e-12)


def test_without_rewards_the_entropy_bonus_makes_the_policy_uniform():
    space = FlatSpace()
    policy = Reinforce(space, SCORE, 2, replace(small(SETTINGS), lr=0.02))._controller.policy
    archs = list(enumerate_architectures(space))
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.02)
    with torch.no_grad():
        for head in policy.heads:
            head.bias.mul_(20)
        before = policy.of_many(archs).log_probs.exp()
    for _ in range(80):
        loss = reinforce_loss(policy.of_many(archs), torch.zeros(len(archs)), 1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        after = policy.of_many(archs).log_probs.exp()
    assert float(before.max()) > 2 / len(archs)
    assert float(after.max()) < 1.1 / len(archs)


def test_drawing_again_follows_the_part_of_the_reward_that_is_not_known_yet():
    space = NestedSpace()
    settings = small(SETTINGS, policy=PolicySettings(hidden=4, tanh_constant=None, scale=0.8))
    policy = Reinforce(space, SCORE, 0, settings)._controller.policy.double()
    archs = list(enumerate_architectures(space))
    rewards = torch.from_numpy(np.random.default_rng(0).random(len(archs)))
    unknown = list(range(0, len(archs), 3))
    with torch.no_grad():
        shares = policy.of_many(archs).log_probs.exp()[unknown]
    drawn = shares / shares.sum()  # what drawing again until it is new comes to
    chosen = [archs[index] for index in unknown]
    weights = drawn * rewards[unknown] * len(unknown)
    ours = estimate(policy, chosen, weights)
    exact = exact_gradient(policy, chosen, rewards[unknown])
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one * shares.sum(), other, rtol=1e-9, atol=1e-12)


def test_an_update_is_the_papers_written_out():
    space = FlatSpace()
    settings = replace(small(PUBLISHED), batch=3, baseline_decay=0.8, entropy_weight=0.1, lr=0.01)
    ours, peer = (Reinforce(space, SCORE, 5, settings) for _ in range(2))
    baseline = None
    policy = peer._controller.policy
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.01)
    for values in ((3.0, 5.0, 1.0), (4.0, 4.0, 7.0)):
        proposals = ours.ask(3)
        for proposal, value in zip(proposals, values, strict=True):
            ours.tell(told(proposal, value))
        baseline = 3.0 if baseline is None else baseline
        loss = 0.0
        for proposal, value in zip(proposals, values, strict=True):
            decision = policy.of(proposal.arch)
            loss -= (decision.log_prob * (value - baseline) + 0.1 * decision.entropy) / 3
        for value in values:
            baseline = 0.8 * baseline + 0.2 * value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert ours._controller.baseline == pytest.approx(baseline)
    for one, other in zip(ours._controller.policy.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------ trials


@pytest.mark.parametrize("how", ["failed", "infeasible", "absent"])
def test_what_was_not_measured_teaches_nothing_and_blocks_nothing(how):
    """The same measured trials, in the same order: with and without others among them."""
    space = FlatSpace()
    settings = replace(small(SETTINGS), redraws=0)
    strategies = [Reinforce(space, SCORE, 3, settings) for _ in range(2)]
    outcomes = {
        "failed": Failed("not finite", "the loss is NaN"),
        "infeasible": Infeasible("cost is 9, must be at most 5", {"cost": 9.0, "score": 99.0}),
    }
    proposals = [list(strategy.ask(20)) for strategy in strategies]
    assert proposals[0] == proposals[1]
    before = strategies[0]._controller.policy.heads[0].bias.detach().clone()
    for proposal in proposals[0]:
        if proposal.number % 3:
            for strategy in strategies:
                strategy.tell(told(proposal, TABLE[proposal.arch]))
        elif how in outcomes:
            strategies[0].tell(told(proposal, outcomes[how]))
    states = [strategy._controller.policy.state_dict() for strategy in strategies]
    assert not torch.equal(states[0]["heads.0.bias"], before)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert strategies[0]._controller.baseline == strategies[1]._controller.baseline


@pytest.mark.parametrize("failing", [0.0, 0.3])
def test_it_learns_although_trials_fail_and_come_late(failing):
    means = [follow(Reinforce, small(SETTINGS), failing, seed) for seed in range(2)]
    assert np.mean(means) > 0.8  # the mean quantile of what is proposed; 0.5 by chance


def test_a_strangers_trial_is_let_be():
    strategy = Reinforce(FlatSpace(), SCORE, 0, replace(small(SETTINGS), batch=1))
    before = strategy._controller.policy.heads[0].bias.detach().clone()
    (proposal,) = strategy.ask(1)
    strategy.tell(told(replace(proposal, number=7), 1.0))
    assert strategy._controller.baseline is None
    strategy.tell(told(proposal, 1.0))
    strategy.tell(told(proposal, 1.0))  # told twice counts once
    assert strategy._controller._values == [1.0]
    strategy.tell(told(strategy.ask(1)[0], 3.0))
    assert not torch.equal(strategy._controller.policy.heads[0].bias, before)


def test_proposals_do_not_repeat_while_there_are_new_ones_to_draw():
    space = FlatSpace()  # 64 architectures
    strategy = Reinforce(space, SCORE, 0, replace(small(SETTINGS), redraws=2000, batch=100))
    archs = [proposal.arch for proposal in (*strategy.ask(50), *strategy.ask(14))]
    assert len(set(archs)) == 64
    assert len(strategy.ask(3)) == 3  # nothing new is left: it goes on with repeats
    repeating = Reinforce(space, SCORE, 0, replace(small(SETTINGS), redraws=0))
    assert len({proposal.arch for proposal in repeating.ask(64)}) < 64


def test_rewards_are_quantiles_whatever_the_unit():
    runs = []
    for scale in (1.0, 100.0):
        strategy = Reinforce(FlatSpace(), SCORE, 0, small(SETTINGS))
        made = []
        for _ in range(40):
            (proposal,) = strategy.ask(1)
            made.append(proposal.arch)
            strategy.tell(told(proposal, scale * TABLE[proposal.arch] - 3.0))
        runs.append(made)
        assert 0 < strategy._controller.baseline < 1
    assert runs[0] == runs[1]


# ---------------------------------------------------------------------------------- settings


def test_published_settings_are_those_of_the_paper():
    policy = PUBLISHED.policy
    assert (policy.hidden, policy.layers, policy.scale, policy.tanh_constant) == (35, 2, 0.08, None)
    assert (PUBLISHED.lr, PUBLISHED.batch, PUBLISHED.redraws) == (6e-4, 8, 0)
    strategy = Reinforce(NasBench201(), (maximize("accuracy"),), 1, PUBLISHED)
    assert create("strategies", describe(strategy), "strategy").settings == PUBLISHED


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("lr", 0.0),
        ("lr", float("nan")),
        ("batch", 0),
        ("baseline_decay", 1.0),
        ("entropy_weight", -1.0),
        ("redraws", -1),
        ("rewards", "quantile"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(argument, value):
    with pytest.raises(ConfigError, match=argument):
        replace(SETTINGS, **{argument: value})


# -------------------------------------------------------------------------------- real tables


def test_beats_random_search_on_nas_bench_201(benchmark_data):
    ours, random = table_regret(benchmark_data("nb201.npz"), Reinforce, seeds=6)
    assert np.mean(ours) < 0.6 * np.mean(random)
