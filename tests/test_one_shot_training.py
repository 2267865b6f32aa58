"""Shared weights trained by paths: what a step moves, strict fairness, and going on exactly."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from small_spaces import SMALL
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Subset

from nas.data import digits, from_datasets, split
from nas.errors import ConfigError, UnsupportedRequest
from nas.space import sample
from nas.supernet.paths import fair_paths, uniform_paths
from nas.supernet.plans import single
from nas.supernet.training import PathSettings, PathTraining, path_output
from nas.testing.toys import FlatSpace, NestedSpace
from nas.training import reproducible
from nas.trial import NotFinite
from search_spaces.chain import Chain
from search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201

DIGITS = functools.cache(digits)
# Spaces of slots alone, and of sizes too.
SHARED = ("darts", "enas_macro", "enas_micro", "mbconv", "nasbench201", "spos")
NB201 = NasBench201(channels=4, cells=1, input=(1, 8, 8))
# Open numbers: widths and kernels are cut out of larger tensors.
NUMBERS = Chain(input=(1, 8, 8), widths=(4, 6), kernels=(1, 3), strides=(1,), depths=(1, 2))


def training(space, examples=64, seed=0, **settings):
    data = DIGITS()
    part, _ = split(data, 0.2)
    part = Subset(part.dataset, part.indices[:examples])
    settings = PathSettings(**{"epochs": 3, "batch_size": 16, **settings})
    return PathTraining(space, part, data, settings, single(uniform_paths(space)), seed, "cpu")


def batch(n=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % 10


def snapshot(trained):
    return {name: p.detach().clone() for name, p in trained.supernet.named_parameters()}


def moving(trained):
    """What the optimiser keeps of every number, by its kind and the parameter's name."""
    state = trained.state_dict()["optimiser"]
    return {tuple(name.split("/", 1)): held for name, held in state.items() if held.dim()}


# ------------------------------------------------------------------------------- one step


def test_a_step_of_one_path_is_torchs_own_step_on_the_extracted_network():
    trained = training(NB201, weight_decay=1e-2, gradient_clip=1.0, learning_rate=0.1)
    rng = np.random.default_rng(0)
    arch = sample(NB201, rng)
    for seed in range(3):
        alone = trained.supernet.extract(arch)
        if not seed:
            peer = alone
            optimiser = torch.optim.SGD(peer.parameters(), 0.1, 0.9, weight_decay=1e-2)
        images, labels = batch(seed=seed)
        trained.step(images, labels, [arch])
        optimiser.zero_grad()
        F.cross_entropy(peer(images), labels, label_smoothing=0.1).backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimiser.step()
    ours = trained.supernet.extract(arch).state_dict()
    for name, tensor in peer.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-6)
    assert any((tensor != 0).any() for name, tensor in ours.items() if "running_mean" in name)


@pytest.mark.parametrize("space", [NB201, NUMBERS], ids=["slots", "numbers"])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_what_a_step_does_not_use_is_neither_decayed_nor_moved(optimiser, space):
    trained = training(
        space, weight_decay=0.1, learning_rate=0.05, gradient_clip=None, optimiser=optimiser
    )
    rng = np.random.default_rng(2)
    for seed in range(6):  # everything has momentum
        trained.step(*batch(seed=seed), [sample(space, rng)])
    kept = moved = 0
    for seed in range(8):
        arch = sample(space, rng)
        before = snapshot(trained)
        momenta = moving(trained)
        images, labels = batch(seed=seed)
        trained.step(images, labels, [arch])
        after, now = snapshot(trained), moving(trained)
        masks = trained.supernet.used_parts([arch])
        named = dict(trained.supernet.named_parameters())
        for name, value in before.items():
            whole = torch.full_like(value, named[name].grad is not None, dtype=torch.bool)
            used = masks.get(named[name], whole)
            assert torch.equal(after[name][~used], value[~used])
            for (key, of), held in momenta.items():
                if of == name:
                    assert torch.equal(now[key, of][~used], held[~used])
            kept += int((~used).sum())
            moved += int((after[name] != value)[used].sum())
    assert kept > 100
    assert moved > 100


def test_the_used_part_of_a_tensor_is_where_its_gradient_may_be():
    trained = training(NUMBERS)
    rng = np.random.default_rng(4)
    partly = 0
    for _ in range(10):
        arch = sample(NUMBERS, rng)
        trained.supernet.zero_grad()
        path_output(trained.supernet, arch, batch()[0]).square().sum().backward()
        for parameter, mask in trained.supernet.used_parts([arch]).items():
            partly += 1
            assert not mask.all()
            assert not parameter.grad[~mask].any()
            # A ReLU that is always off aside, every used row has a gradient.
            assert mask.sum() >= (parameter.grad != 0).sum()
    assert partly > 10


@pytest.mark.parametrize("name", SHARED)
def test_a_path_gives_what_its_network_gives_and_moves_the_same_statistics(name):
    space = SMALL[name]()
    rng = np.random.default_rng(0)
    x = torch.randn(4, *space.input, generator=torch.Generator().manual_seed(0))
    data = from_datasets(
        torch.utils.data.TensorDataset(x, torch.arange(4) % space.classes), classes=space.classes
    )
    part = Subset(data.train, [0, 1, 2, 3])
    supernet = PathTraining(
        space, part, data, PathSettings(epochs=1), single(uniform_paths(space)), 0, "cpu"
    ).supernet
    for seed in range(3):
        arch = sample(space, rng)
        alone = supernet.extract(arch)
        outputs = []
        for run in (functools.partial(path_output, supernet, arch), alone):
            with torch.no_grad(), reproducible(seed, 1):  # dropout draws
                outputs.append(run(x))
        assert torch.equal(*outputs)
        after = supernet.extract(arch).state_dict()
        assert all(torch.equal(after[key], value) for key, value in alone.state_dict().items())


def test_a_step_of_several_paths_adds_their_gradients_up():
    archs = [sample(NB201, np.random.default_rng(seed)) for seed in range(3)]
    together = training(NB201, gradient_clip=None)
    images, labels = batch()
    total = {}
    for arch in archs:
        apart = training(NB201, gradient_clip=None)
        assert torch.equal(
            snapshot(apart)["largest.0.0.weight"], snapshot(together)["largest.0.0.weight"]
        )
        apart.step(images, labels, [arch])
        for name, parameter in apart.supernet.named_parameters():
            if parameter.grad is not None:
                total[name] = total.get(name, 0) + parameter.grad
    together.step(images, labels, archs)
    for name, parameter in together.supernet.named_parameters():
        assert (parameter.grad is None) == (name not in total)
        if name in total:
            torch.testing.assert_close(parameter.grad, total[name], rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------- which paths


def test_strict_fairness_has_every_option_of_every_choice_once():
    paths = fair_paths(NB201)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        archs = paths(rng)
        assert len(archs) == len(OPERATIONS)
        for source, target in EDGES:
            assert {arch[f"{source}->{target}"] for arch in archs} == set(OPERATIONS)
        seen |= set(archs)
    assert len(seen) > 140  # and the orders of two choices do not go together


def test_uniform_paths_are_drawn_as_samples_are():
    archs = [uniform_paths(NB201)(np.random.default_rng(seed)) for seed in range(20)]
    assert archs == [[sample(NB201, np.random.default_rng(seed))] for seed in range(20)]


def dependent():
    from dataclasses import dataclass

    from nas.architecture import Choice
    from nas.space import next_choice

    @dataclass(frozen=True)
    class Pair(FlatSpace):
        name = "pair/v1"
        choices = (Choice("left", ("a", "b", "c")), Choice("right", ("a", "b", "c")))

        def legal(self, prefix):
            step = next_choice(self.choices, prefix)
            if step is None or step[0].label == "left":
                return step
            return step[0], tuple(o for o in step[1] if o != prefix["left"])

    return Pair()


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (FlatSpace(), "'width' has 4 options and 'kernel' has 2"),
        (NestedSpace(), "'depth' has 3 options and 'width0' has 2"),
        (dependent(), "its choices depend on each other"),
    ],
    ids=["flat", "nested", "dependent"],
)
def test_what_cannot_be_fair_is_refused_by_name(space, says):
    with pytest.raises(UnsupportedRequest, match=says) as caught:
        fair_paths(space)
    assert space.name in str(caught.value)


# ------------------------------------------------------------------------- whole trainings


@pytest.mark.parametrize("space", [NB201, NUMBERS], ids=["slots", "numbers"])
@pytest.mark.parametrize("stop", [1, 2])
def test_training_goes_on_to_the_same_bits(space, stop):
    whole = training(space)
    for _ in range(3):
        whole.advance()
    begun, resumed = training(space), training(space)
    for _ in range(stop):
        begun.advance()
    resumed.load_state_dict(begun.state_dict())
    torch.manual_seed(99)
    while not resumed.done:
        resumed.advance()
    one, other = whole.state_dict(), resumed.state_dict()
    assert one["curve"] == other["curve"]
    for kind in ("supernet", "optimiser"):
        assert one[kind].keys() == other[kind].keys()
        assert all(torch.equal(one[kind][key], other[kind][key]) for key in one[kind])


def test_another_seed_gives_other_weights():
    one, other = training(NB201), training(NB201, seed=1)
    one.advance()
    other.advance()
    assert one.curve != other.curve


def test_a_loss_that_is_not_finite_ends_the_training():
    trained = training(NB201, learning_rate=1e12, gradient_clip=None)
    with pytest.raises(NotFinite, match="in epoch 1"):
        trained.advance()


def test_schedules_run_from_the_first_rate_to_the_last():
    common = {"epochs": 70, "learning_rate": 0.5, "learning_rate_min": 0.1}
    line = PathSettings(schedule="linear", **common)
    assert [line.rate(e) for e in (0, 35, 70)] == pytest.approx([0.5, 0.3, 0.1])
    cosine = PathSettings(schedule="cosine", **common)
    assert [cosine.rate(e) for e in (0, 35, 70)] == pytest.approx([0.5, 0.3, 0.1])
    assert cosine.rate(10) > line.rate(10)
    restarts = PathSettings(schedule="restarts", period=10, **common)
    assert [restarts.rate(e) for e in (0, 5, 10, 20, 30, 50)] == pytest.approx(
        [0.5, 0.3, 0.5, 0.3, 0.5, 0.3]
    )


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("learning_rate_min", 1.0),
        ("schedule", "step"),
        ("momentum", 1.0),
        ("weight_decay", float("nan")),
        ("label_smoothing", -0.1),
        ("gradient_clip", 0.0),
        ("period", 0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(argument, value):
    with pytest.raises(ConfigError, match=argument):
        PathSettings(**{argument: value})
