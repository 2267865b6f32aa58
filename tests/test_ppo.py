"""PPO holds the contract, clips as in the paper, and learns."""

from __future__ import annotations

import math
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
from nas.testing.toys import FlatSpace
from nas.trial import Failed, Infeasible
from search_spaces.nasbench201 import NasBench201
from strategies.controller import Batch
from strategies.policy import Decisions
from strategies.ppo import PUBLISHED, SETTINGS, Ppo, ppo_loss

SCORE = (maximize("score"),)


class TestPpo(StrategyContract):
    trials = 18

    def strategy(self, space, objectives, seed):
        return Ppo(space, objectives, seed, small(SETTINGS, redraws=3), epochs=2)


def loss_and_slopes(ratios, advantages, clip=0.2, entropy_weight=0.0):
    """The loss at these ratios and its slopes by the logarithms of the probabilities."""
    archs = list(enumerate_architectures(FlatSpace()))[: len(ratios)]
    then = torch.full((len(ratios),), math.log(0.1), dtype=torch.float64)
    now = (then + torch.tensor(ratios, dtype=torch.float64).log()).requires_grad_()
    entropies = torch.full((len(ratios),), 2.0, dtype=torch.float64)
    batch = Batch(archs, then, torch.tensor(advantages, dtype=torch.float64))
    loss = ppo_loss(Decisions(tuple(archs), now, entropies), batch, clip, entropy_weight)
    return float(loss.detach()), torch.autograd.grad(loss, now)[0].tolist()


def test_the_clip_by_hand():
    # (r, A): gain min(r A, clip(r) A), and its slope by log π, which is r A where r A is the less.
    cases = [
        (1.0, 2.0, 2.0, 2.0),
        (1.1, 2.0, 2.2, 2.2),
        (1.5, 2.0, 2.4, 0.0),  # above the clip and good: nothing more to gain
        (1.5, -2.0, -3.0, -3.0),  # above and bad: all of it is to be undone
        (0.5, 2.0, 1.0, 1.0),  # below and good: likewise
        (0.5, -2.0, -1.6, 0.0),  # below and bad: enough
    ]
    ratios, advantages, gains, slopes = (list(column) for column in zip(*cases, strict=True))
    loss, found = loss_and_slopes(ratios, advantages)
    assert loss == pytest.approx(-np.mean(gains))
    assert found == pytest.approx([-slope / 6 for slope in slopes])
    assert loss_and_slopes([1.5], [2.0], clip=0.6)[0] == pytest.approx(-3.0)
    assert loss_and_slopes([1.0], [2.0], entropy_weight=0.25)[0] == pytest.approx(-2.5)


def test_an_update_is_the_papers_written_out():
    space = FlatSpace()
    settings = replace(small(PUBLISHED), batch=3, lr=0.3, entropy_weight=0.1, baseline_decay=0.5)
    ours, peer = (Ppo(space, SCORE, 5, settings, clip=0.1, epochs=3) for _ in range(2))
    policy = peer._controller.policy
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.3)
    values = (3.0, 5.0, 1.0)
    proposals = ours.ask(3)
    for proposal, value in zip(proposals, values, strict=True):
        ours.tell(told(proposal, value))
    then = [float(policy.of(proposal.arch).log_prob.detach()) for proposal in proposals]
    clipped = 0
    for _ in range(3):
        loss = 0.0
        for proposal, old, value in zip(proposals, then, values, strict=True):
            decision = policy.of(proposal.arch)
            ratio, advantage = (decision.log_prob - old).exp(), value - 3.0
            clipped += abs(float(ratio.detach()) - 1) > 0.1
            gain = min(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage)
            loss -= (gain + 0.1 * decision.entropy) / 3
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert clipped > 2
    for one, other in zip(ours._controller.policy.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_what_comes_late_is_compared_to_when_it_was_drawn():
    space = FlatSpace()
    strategy = Ppo(space, SCORE, 0, replace(small(SETTINGS), batch=2, lr=0.05))
    late, *others = strategy.ask(9)
    then = strategy._controller._flying[late.number]
    for proposal in others:
        strategy.tell(told(proposal, TABLE[proposal.arch]))
    now = float(strategy._controller.policy.of(late.arch).log_prob.detach())
    assert abs(now - then) > 0.01
    resumed = Ppo(space, SCORE, 0, replace(small(SETTINGS), batch=2, lr=0.05))
    resumed.load_state_dict(strategy.state_dict())
    assert strategy._controller.tell(told(late, 1.0)) is None
    batch = resumed._controller
    assert batch.tell(told(late, 1.0)) is None
    batch = batch.tell(told(resumed.ask(1)[0], 0.5))
    assert float(batch.log_probs[0]) == pytest.approx(then)


@pytest.mark.parametrize("how", ["failed", "infeasible"])
def test_what_was_not_measured_teaches_nothing_and_blocks_nothing(how):
    outcome = {
        "failed": Failed("not finite", "the loss is NaN"),
        "infeasible": Infeasible("cost is 9, must be at most 5", {"cost": 9.0, "score": 99.0}),
    }[how]
    settings = replace(small(SETTINGS), redraws=0)
    whole, bare = (Ppo(FlatSpace(), SCORE, 3, settings) for _ in range(2))
    before = whole._controller.policy.heads[0].bias.detach().clone()
    for proposal, same in zip(whole.ask(20), bare.ask(20), strict=True):
        assert proposal == same
        if proposal.number % 3:
            whole.tell(told(proposal, TABLE[proposal.arch]))
            bare.tell(told(proposal, TABLE[proposal.arch]))
        else:
            whole.tell(told(proposal, outcome))
    states = [strategy._controller.policy.state_dict() for strategy in (whole, bare)]
    assert not torch.equal(states[0]["heads.0.bias"], before)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_it_learns_although_trials_fail_and_come_late():
    assert np.mean([follow(Ppo, small(SETTINGS), 0.3, seed) for seed in range(2)]) > 0.8


def test_published_settings_are_those_of_nasnet():
    policy = PUBLISHED.policy
    assert (policy.hidden, policy.layers, policy.scale, policy.tanh_constant) == (100, 1, 0.1, None)
    assert (PUBLISHED.lr, PUBLISHED.batch, PUBLISHED.entropy_weight) == (3.5e-4, 20, 1e-5)
    assert (PUBLISHED.baseline_decay, PUBLISHED.rewards) == (0.95, "values")
    strategy = Ppo(NasBench201(), (maximize("accuracy"),), 1, PUBLISHED, clip=0.3, epochs=7)
    again = create("strategies", describe(strategy), "strategy")
    assert (again.settings, again.clip, again.epochs) == (PUBLISHED, 0.3, 7)


@pytest.mark.parametrize(("argument", "value"), [("clip", 0.0), ("clip", math.nan), ("epochs", 0)])
def test_settings_out_of_range_are_refused_by_name(argument, value):
    with pytest.raises(ConfigError, match=argument):
        Ppo(FlatSpace(), SCORE, 0, **{argument: value})


def test_beats_random_search_on_nas_bench_201(benchmark_data):
    ours, random = table_regret(benchmark_data("nb201.npz"), Ppo, seeds=4)
    assert np.mean(ours) < 0.6 * np.mean(random)
