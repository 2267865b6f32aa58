"""The policy is a distribution over a space's architectures, with gradients that are right."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch
from small_spaces import SMALL

from nas.errors import ConfigError, InvalidArchitecture
from nas.space import enumerate_architectures, sample, validate
from nas.testing.toys import FlatSpace, NestedSpace
from nas.training import reproducible
from search_spaces.nasbench201 import NasBench201
from strategies.policy import Policy, PolicySettings

SHARP = PolicySettings(hidden=12, tanh_constant=None, scale=1.5)


def policy(space, settings=SHARP, seed=0):
    with reproducible(seed, 1):
        return Policy(space, settings)


@pytest.mark.parametrize("space", [FlatSpace(), NestedSpace()], ids=lambda space: space.name)
@pytest.mark.parametrize("settings", [SHARP, PolicySettings()], ids=["sharp", "enas"])
def test_probabilities_of_all_architectures_sum_to_one(space, settings):
    made = policy(space, settings).double()
    total, entropy = 0.0, 0.0
    for arch in enumerate_architectures(space):
        decision = made.of(arch)
        assert decision.arch == arch
        probability = float(decision.log_prob.detach().exp())
        total += probability
        entropy -= probability * math.log(probability)
    assert total == pytest.approx(1.0, abs=1e-9)
    # The mean of the entropies along the way is the entropy of the whole (the chain rule).
    along = sum(
        float((d := made.of(arch)).log_prob.detach().exp() * d.entropy.detach())
        for arch in enumerate_architectures(space)
    )
    assert along == pytest.approx(entropy, abs=1e-9)


def test_samples_have_the_probabilities_that_they_say():
    space, made = NestedSpace(), policy(NestedSpace())
    rng = np.random.default_rng(0)
    with torch.no_grad():
        probabilities = {
            arch: float(made.of(arch).log_prob.exp()) for arch in enumerate_architectures(space)
        }
        drawn = Counter(made.sample(rng).arch for _ in range(3000))
    likely = {arch: p for arch, p in probabilities.items() if 3000 * p >= 5}
    assert 5 < len(likely) < len(probabilities)
    statistic = sum((drawn[a] - 3000 * p) ** 2 / (3000 * p) for a, p in likely.items())
    # Chi-square with about len(likely) degrees of freedom, four standard deviations wide.
    assert statistic < len(likely) + 4 * math.sqrt(2 * len(likely))
    assert max(probabilities.values()) > 5 * np.median(list(probabilities.values()))


def test_a_sample_agrees_with_what_is_thought_of_it_afterwards():
    space = NasBench201()
    made = policy(space)
    for seed in range(5):
        decision = made.sample(np.random.default_rng(seed))
        again = made.of(decision.arch)
        assert torch.equal(decision.log_prob, again.log_prob)
        assert torch.equal(decision.entropy, again.entropy)
        assert decision.arch == made.sample(np.random.default_rng(seed)).arch


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_space_has_a_policy(name):
    space = SMALL[name]()
    made = policy(space, PolicySettings(hidden=8))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(4):
            decision = made.sample(rng)
            validate(space, decision.arch)
            assert float(decision.log_prob) < 0
            assert float(decision.entropy) > 0
        arch = sample(space, rng)
        assert made.of(arch).arch == arch
        validate(space, made.likeliest())


def test_what_is_not_legal_has_no_probability():
    @dataclasses.dataclass(frozen=True)
    class Descending(FlatSpace):
        """The second pick lies below the first."""

        def legal(self, prefix):
            step = FlatSpace.legal(self, prefix)
            if step is None or step[0].label != "kernel":
                return step
            return step[0], (1,) if prefix["width"] < 4 else step[1]

    space = Descending()
    made = policy(space)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        archs = [made.sample(rng).arch for _ in range(300)]
    assert {arch["kernel"] for arch in archs if arch["width"] < 4} == {1}
    assert {arch["kernel"] for arch in archs if arch["width"] >= 4} == {1, 3}
    legal = list(enumerate_architectures(space))
    total = sum(float(made.of(arch).log_prob.detach().exp()) for arch in legal)
    assert total == pytest.approx(1.0, abs=1e-5)
    alien = next(
        a for a in enumerate_architectures(FlatSpace()) if (a["width"], a["kernel"]) == (2, 3)
    )
    with pytest.raises(InvalidArchitecture, match="'kernel'"):
        made.of(alien)


@pytest.mark.parametrize("what", ["log_prob", "entropy"])
def test_gradients_match_finite_differences(what):
    space = NestedSpace()
    made = policy(space, dataclasses.replace(SHARP, hidden=3, tanh_constant=2.0, scale=0.5))
    made = made.double()
    arch = list(enumerate_architectures(space))[-1]
    getattr(made.of(arch), what).backward()
    rng = np.random.default_rng(0)
    checked = 0
    for parameter in made.parameters():
        flat = parameter.data.view(-1)
        for index in rng.choice(len(flat), min(4, len(flat)), replace=False):
            with torch.no_grad():
                flat[index] += 1e-6
                above = getattr(made.of(arch), what)
                flat[index] -= 2e-6
                below = getattr(made.of(arch), what)
                flat[index] += 1e-6
            gradient = 0.0 if parameter.grad is None else parameter.grad.view(-1)[index]
            assert float(above - below) / 2e-6 == pytest.approx(float(gradient), abs=1e-6)
            checked += float(gradient) != 0
    assert checked > 10


def test_the_likeliest_is_the_likeliest_at_every_step():
    space = NasBench201()
    made = policy(space, seed=3)
    best = made.likeliest()
    with torch.no_grad():
        chosen = made.of(best).log_prob
        for label, pick in best.picks[-1:]:  # of the last choice alone that is the whole
            for other in space.choices[-1].options:
                if other != pick:
                    picks = (*best.picks[:-1], (label, other))
                    assert made.of(dataclasses.replace(best, picks=picks)).log_prob < chosen


def test_reinforce_finds_the_best_of_a_table():
    space = FlatSpace()
    values = dict(
        zip(enumerate_architectures(space), np.random.default_rng(2).random(64), strict=True)
    )
    made = policy(space, PolicySettings(hidden=16, tanh_constant=None))
    optimiser = torch.optim.Adam(made.parameters(), lr=0.02)
    rng = np.random.default_rng(0)
    baseline = 0.5
    for _ in range(150):
        optimiser.zero_grad()
        for _ in range(4):
            decision = made.sample(rng)
            reward = values[decision.arch]
            baseline += 0.1 * (reward - baseline)
            (-decision.log_prob * (reward - baseline)).backward()
        optimiser.step()
    with torch.no_grad():
        mean = np.mean([values[made.sample(rng).arch] for _ in range(100)])
    assert mean > np.quantile(list(values.values()), 0.9)


def test_bounds_are_smaller_for_operations_than_for_numbers():
    settings = PolicySettings(tanh_constant=2.0, op_tanh_reduce=4.0, temperature=5.0)
    space = FlatSpace()
    width, kernel, operation, bias = space.choices
    assert settings.bound(width) == settings.bound(kernel) == 2.0
    assert settings.bound(operation) == settings.bound(bias) == 0.5
    wild = policy(space, dataclasses.replace(settings, scale=30.0))
    with torch.no_grad():
        for arch in list(enumerate_architectures(space))[::7]:
            # The smallest share that bounded logits allow, of each of the four choices.
            least = sum(
                -math.log(1 + (n - 1) * math.exp(2 * b))
                for n, b in ((4, 2.0), (2, 2.0), (4, 0.5), (2, 0.5))
            )
            assert float(wild.of(arch).log_prob) >= least - 1e-4


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("hidden", 0),
        ("temperature", 0.0),
        ("tanh_constant", -1.0),
        ("op_tanh_reduce", 0.0),
        ("scale", float("nan")),
    ],
)
def test_settings_out_of_range_are_refused_by_name(argument, value):
    with pytest.raises(ConfigError, match=argument):
        PolicySettings(**{argument: value})
