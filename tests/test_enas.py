"""ENAS holds the strategy contract, and its controller learns what the shared weights know."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.components import create, describe
from nas.data import digits
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.objective import maximize
from nas.space import sample, validate
from nas.supernet.training import PathSettings
from nas.testing import StrategyContract
from nas.testing.strategy import same
from nas.testing.toys import FlatSpace
from search_spaces.enas_macro import EnasMacro
from search_spaces.enas_micro import EnasMicro
from search_spaces.nasbench201 import NasBench201
from strategies.enas import SETTINGS, Enas, EnasSearch, EnasSettings, batch_accuracy
from strategies.policy import PolicySettings

DIGITS = functools.cache(digits)
NB201 = NasBench201(channels=4, cells=1, input=(1, 8, 8))
OBJECTIVES = (maximize("accuracy"),)
QUICK = EnasSettings(
    shared=PathSettings(epochs=8, batch_size=256, learning_rate=0.1),
    policy=PolicySettings(hidden=8, tanh_constant=2.5, op_tanh_reduce=1.0),
    lr=0.05,
    steps=1,
    samples=2,
    candidates=2,
)


def search(space=NB201, settings=QUICK, seed=0):
    return EnasSearch(space, DIGITS(), settings, seed, "cpu")


class TestEnas(StrategyContract):
    trials = 4

    def spaces(self):
        return (FlatSpace(classes=10, input=(1, 8, 8)),)

    def objectives(self):
        return ((maximize("score"),),)

    def strategy(self, space, objectives, seed):
        shared = replace(QUICK.shared, batch_size=400)
        return Enas(space, objectives, DIGITS(), seed, replace(QUICK, shared=shared), device="cpu")


@pytest.mark.slow
def test_the_controller_beats_uniform_sampling_on_the_same_weights():
    settings = replace(
        QUICK,
        shared=PathSettings(epochs=4, batch_size=64, learning_rate=0.1, weight_decay=2e-4),
        lr=0.02,
        steps=12,
        samples=5,
        validation_fraction=0.3,
    )
    settings = replace(settings, policy=replace(settings.policy, hidden=32))
    trained = search(settings=settings)
    while not trained.done:
        trained.advance()
    rng = np.random.default_rng(5)
    batch = trained._batch(rng)
    supernet = trained.training.supernet
    with torch.no_grad():
        ours = [trained.policy.sample(rng).arch for _ in range(40)]
    uniform = [sample(NB201, rng) for _ in range(40)]
    means = [
        np.mean([batch_accuracy(supernet, arch, *batch) for arch in archs])
        for archs in (ours, uniform)
    ]
    assert means[0] > means[1] + 0.08
    assert trained.rewards[-1] > trained.rewards[0] + 0.08


@pytest.mark.parametrize(
    "space",
    [
        NB201,
        EnasMicro(channels=4, cells=2, input=(1, 8, 8), blocks=2, projected=True),
        EnasMacro(layers=4, channels=4, input=(1, 8, 8)),
    ],
    ids=lambda space: space.name,
)
def test_runs_on_the_spaces_of_the_paper_and_goes_on_exactly(space):
    whole, begun, resumed = (
        Enas(space, OBJECTIVES, DIGITS(), 3, QUICK, device="cpu") for _ in range(3)
    )
    proposals = [whole.ask(1)[0] for _ in range(3)]
    for proposal in proposals:
        validate(space, proposal.arch)
        assert proposal.spent.epochs == 1.0
    begun.ask(1)
    resumed.load_state_dict(begun.state_dict())
    torch.manual_seed(5)
    assert [resumed.ask(1)[0] for _ in range(2)] == proposals[1:]
    assert same(resumed.state_dict(), whole.state_dict())


def test_a_space_without_shared_weights_is_refused_by_name():
    concatenating = EnasMicro(channels=4, cells=3, input=(1, 8, 8), blocks=3)
    strategy = Enas(concatenating, OBJECTIVES, DIGITS(), 0, QUICK, device="cpu")
    with pytest.raises(UnsupportedRequest, match="projected=True"):
        strategy.ask(1)
    with pytest.raises(DataError, match="1x8x8"):
        Enas(NasBench201(), OBJECTIVES, DIGITS(), 0, QUICK)


def test_it_ends_after_its_epochs():
    settings = replace(QUICK, shared=replace(QUICK.shared, epochs=3))
    strategy = Enas(NB201, OBJECTIVES, DIGITS(), 0, settings, propose_every=2, device="cpu")
    assert [strategy.ask(5)[0].spent.epochs for _ in range(2)] == [2.0, 1.0]
    assert strategy.ask(1) == []


def test_the_reward_is_the_accuracy_under_the_batchs_own_statistics():
    trained = search()
    trained.advance()
    rng = np.random.default_rng(1)
    images, labels = trained._batch(rng)
    before = {k: v.clone() for k, v in trained.training.supernet.state_dict().items()}
    for _ in range(4):
        arch = sample(NB201, rng)
        network = trained.training.supernet.extract(arch).train()
        with torch.no_grad():
            logits = network(images)
        expected = float((logits.argmax(1) == labels).float().mean())
        assert batch_accuracy(trained.training.supernet, arch, images, labels) == expected
        assert 0 <= expected <= 1
    after = trained.training.supernet.state_dict()
    assert all(torch.equal(before[key], value) for key, value in after.items())


def test_an_update_is_reinforce_written_out():
    settings = replace(QUICK, samples=3, entropy_weight=0.5, baseline_decay=0.9, lr=0.01)
    ours, peer = search(settings=settings), search(settings=settings)
    ours.baseline = 0.2
    ours._update(np.random.default_rng(4))

    rng = np.random.default_rng(4)
    baseline, losses = 0.2, []
    for _ in range(3):
        decision = peer.policy.sample(rng)
        accuracy = batch_accuracy(peer.training.supernet, decision.arch, *peer._batch(rng))
        reward = accuracy + 0.5 * decision.entropy.item()
        baseline = 0.9 * baseline + 0.1 * reward
        losses.append(-decision.log_prob * (reward - baseline))
    assert ours.baseline == pytest.approx(baseline)
    optimiser = torch.optim.Adam(peer.policy.parameters(), lr=0.01)
    torch.stack(losses).mean().backward()
    optimiser.step()
    for one, other in zip(ours.policy.parameters(), peer.policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_best_of_the_candidates_is_proposed():
    trained = search(settings=replace(QUICK, candidates=6))
    trained.advance()
    rng = np.random.default_rng([0, 1, 13])
    images, labels = trained._batch(rng)
    with torch.no_grad():
        archs = [trained.policy.sample(rng).arch for _ in range(6)]
    losses = {
        arch: batch_accuracy(trained.training.supernet, arch, images, labels) for arch in archs
    }
    chosen = trained.architecture()
    assert losses[chosen] == max(losses.values()) > min(losses.values())
    state = trained.state_dict()
    trained.architecture()
    assert same(state, trained.state_dict())


def test_shared_weights_learn_from_what_the_controller_samples():
    trained = search()
    with torch.no_grad():
        for head in trained.policy.heads:
            head.weight.zero_()
            head.bias.copy_(100 * F.one_hot(torch.tensor(3), 5))  # nor_conv_3x3 everywhere
    trained.policy.settings = replace(trained.policy.settings, tanh_constant=None)
    before = {k: v.detach().clone() for k, v in trained.training.supernet.named_parameters()}
    trained.training.advance()
    for name, value in trained.training.supernet.named_parameters():
        assert torch.equal(before[name], value) == ("nor_conv_1x1" in name), name


def test_the_defaults_are_the_authors():
    assert (SETTINGS.lr, SETTINGS.entropy_weight, SETTINGS.baseline_decay) == (0.0035, 1e-4, 0.99)
    assert (SETTINGS.policy.tanh_constant, SETTINGS.policy.op_tanh_reduce) == (1.10, 2.5)
    assert (SETTINGS.steps, SETTINGS.samples, SETTINGS.policy.hidden) == (30, 10, 100)
    restarts = [SETTINGS.shared.rate(epoch) for epoch in (0, 10, 30, 70)]
    assert restarts == pytest.approx([0.05] * 4)
    strategy = Enas(NB201, OBJECTIVES, DIGITS(), 1, QUICK, device="cpu")
    assert create("strategies", describe(strategy), "strategy").settings == QUICK


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("lr", 0.0),
        ("steps", -1),
        ("samples", 0),
        ("candidates", 0),
        ("entropy_weight", -1.0),
        ("baseline_decay", 1.0),
        ("validation_fraction", 1.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(argument, value):
    with pytest.raises(ConfigError, match=argument):
        replace(QUICK, **{argument: value})
