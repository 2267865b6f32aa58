"""Sorting channels by importance: what is computed stays, and the important ones come first."""

from __future__ import annotations

import copy
import re
from itertools import islice

import numpy as np
import pytest
import torch
from small_spaces import SMALL
from test_supernet import inputs, randomised
from torch import nn
from torch.nn import functional as F

from experiments import own_space_digits, own_space_transformer
from nas.data import digits
from nas.described import described
from nas.errors import InvalidArchitecture, UnsupportedRequest
from nas.space import from_picks, sample
from nas.supernet import Supernet
from nas.supernet.importance import importance, permute, sort_channels
from search_spaces.spos import Spos

ELASTIC = {
    name: SMALL[name] for name in ("chain", "mbconv", "resnet", "autoformer") if name in SMALL
}
ELASTIC["spos"] = lambda: Spos(4, (8, 12), (1, 2), 16, (0.5, 1.0, 1.5), 0.1, 10, (3, 12, 12))
ELASTIC["digits_cnn"] = own_space_digits.space
ELASTIC["digits_transformer"] = own_space_transformer.space


def largest(supernet, rng=None):
    """All numbers and depths at their largest; slots hold their last option, or random ones."""
    made = {}
    while (step := supernet.space.legal(made)) is not None:
        choice, options = step
        if choice.label in supernet.numbers or choice.label in supernet.depths:
            made[choice.label] = max(options)
        else:
            made[choice.label] = options[-1 if rng is None else int(rng.integers(len(options)))]
    return from_picks(supernet.space, made)


def prepared(space, seed=0, **settings):
    return randomised(Supernet(space, **settings), seed).double().eval()


@torch.no_grad()
def outputs(supernet, archs):
    """What networks give, in eval and in training mode, without dropout."""
    x = inputs(supernet.space, n=6).double()
    found = []
    for arch in archs:
        network = supernet.extract(arch)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        found += [network.eval()(x), network.train()(x)]
    return found


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.isfinite(other).all()
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * float(other.abs().max()))


def assert_descending(supernet, groups):
    for group in groups:
        if group.reason:
            continue
        norms = importance(supernet, group)
        assert len(norms) == group.channels == group.sizes[-1]
        for start, end in zip((0, *group.sizes), group.sizes, strict=False):
            assert (norms[start:end].diff() <= 0).all(), group.name


@pytest.mark.parametrize("name", sorted(ELASTIC))
def test_the_largest_networks_of_all_slots_compute_what_they_did(name):
    supernet = prepared(ELASTIC[name]())
    rng = np.random.default_rng(0)
    archs = [largest(supernet), *(largest(supernet, rng) for _ in range(3))]
    state = supernet.largest.state_dict()
    before, expected = copy.deepcopy(state), outputs(supernet, archs)
    done = sort_channels(supernet, archs[0])
    assert done.permutations
    assert set(done.permutations) == {n for n, t in state.items() if not torch.equal(t, before[n])}
    assert_same(outputs(supernet, archs), expected)
    assert_descending(supernet, done.groups)
    assert sum(not group.reason for group in done.groups) > 0
    # What momentum is given to follow is what was done.
    permute(before, done.permutations)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.items())
    assert not sort_channels(supernet, archs[0]).permutations


def some(supernet, rng):
    """A random architecture; of a size that the shared tensors have a rule for."""
    while True:
        arch = sample(supernet.space, rng)
        try:
            supernet.network(arch)
        except UnsupportedRequest:
            continue
        return arch


@pytest.mark.parametrize("name", sorted(ELASTIC))
def test_trained_networks_compute_what_they_did(name):
    supernet = prepared(ELASTIC[name](), seed=3)
    rng = np.random.default_rng(1)
    trained = [some(supernet, rng) for _ in range(3)]
    archs = [largest(supernet), *trained]
    expected = outputs(supernet, archs)
    done = sort_channels(supernet, archs[0], trained)
    assert done.permutations
    assert_same(outputs(supernet, archs), expected)
    assert_descending(supernet, done.groups)
    assert any(len(group.sizes) > 1 for group in done.groups)
    assert not sort_channels(supernet, archs[0], trained).permutations


def test_without_what_is_trained_small_networks_would_compute_something_else():
    supernet = prepared(ELASTIC["chain"]())
    small = sample(supernet.space, np.random.default_rng(1))
    expected = outputs(supernet, [small])
    sort_channels(supernet, largest(supernet))
    assert not torch.allclose(outputs(supernet, [small])[0], expected[0])


def test_kernels_made_by_transforms_are_made_as_before():
    supernet = prepared(SMALL["ofa_mobilenet_v3"](), kernel_transforms=True)
    big = largest(supernet)
    small = from_picks(supernet.space, {label: 3 if label.endswith("kernel") else pick
                                        for label, pick in big.picks})  # fmt: skip
    expected = outputs(supernet, [big, small])
    assert sort_channels(supernet, big, [small]).permutations
    assert_same(outputs(supernet, [big, small]), expected)


@pytest.mark.parametrize("name", ["chain", "digits_cnn", "digits_transformer", "mbconv"])
def test_every_place_of_a_group_is_needed_and_none_is_missing(name):
    supernet = prepared(ELASTIC[name]())
    big = largest(supernet)
    used = {supernet.names[name] for name in names_of(supernet, big)}
    done = sort_channels(supernet, big)
    (expected, _) = outputs(supernet, [big])
    generator = torch.Generator().manual_seed(0)
    state = dict(supernet.largest.state_dict())
    kept = copy.deepcopy(state)
    tried = 0
    for group in done.groups:
        places = [place for place in group.dimensions if place[0] in used]
        if group.reason or not places:
            continue
        order = torch.randperm(group.channels, generator=generator)

        def shuffled(chosen, order=order, group=group):
            for tensor, value in kept.items():
                state[tensor].copy_(value)
            for tensor, dimension in chosen:
                inner = group.inner[tensor, dimension]
                places = (order[:, None] * inner + torch.arange(inner)).flatten()
                permute(state, {tensor: [(dimension, places)]})
            return outputs(supernet, [big])[0]

        torch.testing.assert_close(shuffled(places), expected, rtol=1e-10, atol=1e-10)
        for forgotten in places[:: max(1, len(places) // 12)]:
            found = shuffled([place for place in places if place != forgotten])
            assert not torch.allclose(found, expected, rtol=1e-6), (group.name, forgotten)
            tried += 1
    assert tried > 10


def names_of(supernet, arch):
    from nas.builder import FixedBuilder

    builder = FixedBuilder(supernet.space, arch)
    return builder.shared_names(supernet.space.build(builder)).values()


def test_the_channel_that_is_read_most_comes_first():
    supernet = prepared(ELASTIC["chain"]())
    weights = dict(supernet.largest.named_parameters())
    written = next(n for n, w in weights.items() if n.startswith("0.0.") and w.dim() == 4)
    read = next(n for n, w in weights.items() if n.startswith("0.1.") and w.dim() == 4)
    with torch.no_grad():
        weights[read].fill_(0.1)
        weights[read][:, 4] = -0.7
        weights[read][:, 2] = 0.2
    before = weights[written].detach().clone()
    done = sort_channels(supernet, largest(supernet), labels=["conv0/width"])
    (group,) = done.groups
    assert group.readers == ((read, 1),)
    # Equals stay in their order.
    assert done.permutations[read][0][1].tolist() == [4, 2, 0, 1, 3, 5]
    assert torch.equal(weights[written], before[[4, 2, 0, 1, 3, 5]])


def test_only_what_the_labels_resize_is_sorted():
    supernet = prepared(SMALL["ofa_mobilenet_v3"]())
    big = largest(supernet)
    expansions = [label for label in supernet.numbers if label.endswith("expansion")]
    inside = sort_channels(supernet, big, labels=expansions)
    # The hidden channels of all blocks, and those inside their squeezes.
    assert len(inside.groups) > len(expansions)
    assert not any(group.reason for group in inside.groups)
    moved = {(name, d) for name, entries in inside.permutations.items() for d, _ in entries}
    assert not any(name.endswith("project.0.weight") and d == 0 for name, d in moved)
    assert any(name.endswith("project.0.weight") and d == 1 for name, d in moved)
    assert not sort_channels(supernet, big, labels=[]).groups
    kernels = [label for label in supernet.numbers if label.endswith("kernel")]
    assert not sort_channels(supernet, big, labels=kernels).groups


def test_heads_are_left_alone_and_the_inside_of_mlps_is_not():
    supernet = prepared(own_space_transformer.space())
    done = sort_channels(supernet, largest(supernet))
    alone = [group for group in done.groups if group.reason]
    assert {name.split(".")[-2] for group in alone for name, _ in group.inner} == {"qkv", "out"}
    assert all(re.search(r"reshaped to \(3, 4, 8\)|nested", group.reason) for group in alone)
    moved = {(name, d) for name, entries in done.permutations.items() for d, _ in entries}
    for layer in range(4):
        mlp = f"1.{layer}.block.1.inner"
        assert {(f"{mlp}.up.weight", 0), (f"{mlp}.down.weight", 1), (f"{mlp}.up.bias", 0)} <= moved


def test_networks_over_views_go_on_being_views():
    supernet = prepared(ELASTIC["chain"]())
    arch = sample(supernet.space, np.random.default_rng(2))
    supernet.network(arch)
    sort_channels(supernet, largest(supernet))
    x = inputs(supernet.space).double()
    assert torch.equal(supernet.network(arch)(x), supernet.extract(arch)(x))


# -------------------------------------------------------------------------------------- faults


def test_what_is_not_the_largest_or_no_number_is_refused():
    supernet = prepared(ELASTIC["chain"]())
    big = largest(supernet)
    for label, pick in (("conv1/width", 4), ("depth", 2), ("conv0/kernel", 3)):
        picks = {k: v for k, v in big.picks if label != "depth" or not k.startswith("conv2")}
        with pytest.raises(UnsupportedRequest, match="the largest architecture is asked for"):
            sort_channels(supernet, from_picks(supernet.space, picks | {label: pick}))
    with pytest.raises(UnsupportedRequest, match=r"no number 'conv0/widht'.*'conv0/width'"):
        sort_channels(supernet, big, labels=["conv0/widht"])
    other = prepared(own_space_digits.space())
    for args in ((largest(other),), (big, [largest(other)])):
        with pytest.raises(InvalidArchitecture):
            sort_channels(supernet, *args)


def test_a_tensor_of_another_shape_is_not_permuted():
    permutations = {"weight": [(0, torch.tensor([1, 0]))]}
    with pytest.raises(UnsupportedRequest, match=r"'weight' has shape \(3, 2\)"):
        permute({"weight": torch.zeros(3, 2)}, permutations)
    permute({"bias": torch.zeros(3)}, permutations)


# ------------------------------------------------------------------------------------ learning


def perceptron(builder):
    width = builder.number("width", (32, 64))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def test_half_of_the_channels_loses_less_when_they_are_sorted():
    data = digits()
    x = torch.stack([image for image, _ in islice(data.train, 500)])
    y = torch.tensor([label for _, label in islice(data.train, 500)])
    lost = {"sorted": [], "as they were": []}
    for seed in range(3):
        torch.manual_seed(seed)
        supernet = Supernet(described(perceptron, input=(1, 8, 8), classes=10))
        big = largest(supernet)
        half = from_picks(supernet.space, {"width": 32})
        network = supernet.network(big)
        optimiser = torch.optim.Adam(supernet.parameters(), lr=0.02, weight_decay=5e-3)
        for _ in range(80):
            optimiser.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimiser.step()
        for way in ("as they were", "sorted"):
            if way == "sorted":
                sort_channels(supernet, big)
            with torch.no_grad():
                small, full = supernet.network(half)(x), supernet.network(big)(x)
                lost[way].append(float(F.cross_entropy(small, y) - F.cross_entropy(full, y)))
    assert np.mean(lost["sorted"]) < 0.5 * np.mean(lost["as they were"]), lost
