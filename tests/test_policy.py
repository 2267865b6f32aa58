"""The policy is a distribution over a space's architectures, with gradients that are right."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch
from small_spaces import SMALL

from nas.architecture import Architecture
from nas.errors import ConfigError, InvalidArchitecture
from nas.space import enumerate_architectures, sample, validate
from nas.testing.toys import FlatSpace, NestedSpace
from nas.training import reproducible
from search_spaces.metaqnn import MetaQnn
from search_spaces.nasbench201 import NasBench201
from strategies.policy import Policy, PolicySettings
from strategies.prefixes import Prefixes

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
        archs = list(enumerate_architectures(space))
        shares = made.of_many(archs).log_probs.exp().tolist()
        probabilities = dict(zip(archs, shares, strict=True))
        drawn = Counter(made.sample_many([rng] * 3000).archs)
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


SPACES = [NasBench201(), MetaQnn(), NestedSpace(), SMALL["mnasnet"]()]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("space", SPACES, ids=["nasbench201", "metaqnn", "nested", "mnasnet"])
def test_many_together_are_what_each_is_by_itself(space, layers):
    made = policy(space, dataclasses.replace(SHARP, layers=layers))
    generators = [[np.random.default_rng([5, row]) for row in range(12)] for _ in range(2)]
    together = made.sample_many(generators[0])
    alone = [made.sample(rng) for rng in generators[1]]
    assert list(together.archs) == [decision.arch for decision in alone]
    again = made.of_many(together.archs)
    assert again.archs == together.archs
    assert len({len(arch.picks) for arch in together.archs}) > 1 or space.name != "metaqnn/v1"
    for what, many in (("log_prob", "log_probs"), ("entropy", "entropies")):
        each = torch.stack([getattr(decision, what) for decision in alone])
        for whole in (together, again):
            torch.testing.assert_close(getattr(whole, many), each, rtol=1e-6, atol=1e-5)
    made.double()  # to the sixth digit and beyond, where rounding is out of the way
    with torch.no_grad():
        exact = made.of_many(together.archs)
        for index, arch in enumerate(together.archs):
            decision = made.of(arch)
            assert abs(float(exact.log_probs[index] - decision.log_prob)) < 1e-6
            assert abs(float(exact.entropies[index] - decision.entropy)) < 1e-6


@pytest.mark.parametrize("space", SPACES[1:3], ids=["metaqnn", "nested"])
def test_gradients_together_are_the_sum_of_each(space):
    made = policy(space, dataclasses.replace(SHARP, hidden=5, tanh_constant=2.0)).double()
    rng = np.random.default_rng(3)
    archs = [sample(space, rng) for _ in range(6)]
    parameters = list(made.parameters())
    whole = made.of_many(archs)
    together = torch.autograd.grad(
        (whole.log_probs + whole.entropies).sum(), parameters, materialize_grads=True
    )
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for arch in archs:
        one = made.of(arch)
        parts = torch.autograd.grad(one.log_prob + one.entropy, parameters, materialize_grads=True)
        total = [t + part for t, part in zip(total, parts, strict=True)]
    for one, other in zip(together, total, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_none_at_all_is_none():
    assert policy(NestedSpace()).sample_many([]).archs == ()


def test_what_is_legal_is_asked_once_and_forgotten_in_time():
    asked = []

    @dataclasses.dataclass(frozen=True)
    class Counting(NestedSpace):
        def legal(self, prefix):
            asked.append(dict(prefix))
            return NestedSpace.legal(self, prefix)

    prefixes = Prefixes(Counting(), most=30)
    arch = list(enumerate_architectures(NestedSpace()))[-1]
    columns = prefixes.columns(arch)
    first = len(asked)
    assert columns == [2, 1, 2, 1, 1]
    assert prefixes.columns(arch) == columns
    assert len(asked) == first == 6
    for other in enumerate_architectures(NestedSpace()):
        prefixes.columns(other)
    assert prefixes.root().made == {}
    before = len(asked)
    assert prefixes.columns(arch) == columns  # forgotten, and asked again
    assert len(asked) > before


@pytest.mark.parametrize(
    ("picks", "named"),
    [
        ({"depth": 1, "width0": 2}, "no pick for 'activation'"),
        ({"depth": 1, "width0": 2, "width1": 2, "activation": "relu"}, "not active"),
        ({"depth": 1, "width0": 3, "activation": "relu"}, "3 is not an option of 'width0'"),
        ({"width0": 2, "depth": 1, "activation": "relu"}, "not in the order"),
        ({"depth": 1, "width0": 2, "activation": "relu", "more": 1}, "no choice 'more'"),
    ],
)
def test_what_is_no_architecture_of_the_space_is_refused(picks, named):
    made = policy(NestedSpace())
    with pytest.raises(InvalidArchitecture, match=named):
        made.of_many([Architecture("nested/v1", tuple(picks.items()))])
    with pytest.raises(InvalidArchitecture, match="flat/v1"):
        made.of(sample(FlatSpace(), np.random.default_rng(0)))


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
        archs = made.sample_many([rng] * 300).archs
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
        decisions = made.sample_many([rng] * 4)
        gains = []
        for arch in decisions.archs:
            baseline += 0.1 * (values[arch] - baseline)
            gains.append(values[arch] - baseline)
        (-(decisions.log_probs * torch.tensor(gains, dtype=torch.float32)).sum()).backward()
        optimiser.step()
    with torch.no_grad():
        mean = np.mean([values[arch] for arch in made.sample_many([rng] * 100).archs])
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
        ("layers", 0),
        ("temperature", 0.0),
        ("tanh_constant", -1.0),
        ("op_tanh_reduce", 0.0),
        ("scale", float("nan")),
    ],
)
def test_settings_out_of_range_are_refused_by_name(argument, value):
    with pytest.raises(ConfigError, match=argument):
        PolicySettings(**{argument: value})
