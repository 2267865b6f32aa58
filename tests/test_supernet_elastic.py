"""Every elastic space: fifty networks over views, extracted and alone, and what each is given."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_spaces import SMALL
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import own_space_digits
import own_space_transformer

from nas.space import network, sample
from nas.supernet import Supernet

ELASTIC = (
    "autoformer",
    "mbconv",
    "ofa_mobilenet_v3",
    "ofa_proxylessnas",
    "resnet",
    "slimmable_mobilenet_v2",
)
SPACES = {name: SMALL[name] for name in ELASTIC} | {
    "own_space_digits": own_space_digits.space,
    "own_space_transformer": own_space_transformer.space,
}


def randomised(supernet: Supernet) -> Supernet:
    """Weights and statistics drawn anew: fresh norms would hide a swapped tensor."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return supernet


# Of the large ones, made of the same blocks as others, two are compared by make test-all alone.
LARGE = ("ofa_proxylessnas", "slimmable_mobilenet_v2")
MARKED = [
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in sorted(SPACES)
]


@pytest.mark.parametrize("name", MARKED)
def test_views_copies_and_the_network_alone_agree_to_the_bit(name):
    assert_agreement(name, transforms=False)


@pytest.mark.parametrize(
    "name", ["mbconv", pytest.param("ofa_mobilenet_v3", marks=pytest.mark.slow)]
)
def test_they_agree_with_transformed_kernels(name):
    assert_agreement(name, transforms=True)


def assert_agreement(name, transforms):
    space = SPACES[name]()
    supernet = randomised(Supernet(space, kernel_transforms=transforms)).eval()
    rng = np.random.default_rng(0)
    x = torch.randn(2, *space.input, generator=torch.Generator().manual_seed(1))
    archs = {sample(space, rng) for _ in range(50)}
    for arch in archs:
        view, extracted = supernet.network(arch), supernet.extract(arch)
        alone = network(space, arch).eval()
        assert list(extracted.state_dict()) == list(alone.state_dict())
        alone.load_state_dict(extracted.state_dict())
        with torch.no_grad():
            assert torch.equal(view(x), alone(x))
            assert torch.equal(extracted(x), alone(x))
    assert len(archs) > 3


@pytest.mark.parametrize("name", MARKED)
def test_gradients_in_the_shared_tensors_are_those_of_the_network_alone(name):
    space = SPACES[name]()
    supernet = randomised(Supernet(space)).eval().double()
    rng = np.random.default_rng(1)
    x = torch.randn(2, *space.input, generator=torch.Generator().manual_seed(1)).double()
    for _ in range(50):
        arch = sample(space, rng)
        alone = supernet.extract(arch)
        supernet.zero_grad()
        F.cross_entropy(supernet.network(arch)(x), torch.tensor([0, 1])).backward()
        F.cross_entropy(alone(x), torch.tensor([0, 1])).backward()
        given = sum(p.grad.abs().sum() for p in supernet.parameters() if p.grad is not None)
        expected = torch.zeros((), dtype=torch.float64)
        for piece, parameter in pairs(supernet, arch, alone):
            shared = piece.part(piece.source.grad).reshape(piece.shape)
            torch.testing.assert_close(shared, parameter.grad, rtol=1e-9, atol=1e-12)
            expected += parameter.grad.abs().sum()
        torch.testing.assert_close(given, expected, rtol=1e-9, atol=0)  # and nothing elsewhere


def pairs(supernet, arch, alone):
    """Where each of a network's parameters is from, and the parameter."""
    pieces = supernet._networks[arch].pieces
    parameters = list(alone.parameters())
    assert [piece.shape for piece in pieces] == [p.shape for p in parameters]
    return zip(pieces, parameters, strict=True)


@pytest.mark.parametrize("name", ["mbconv", "resnet", "autoformer"])
def test_a_network_is_its_own_but_for_the_weights(name):
    """Parts are kept and copied: no module, buffer or mode of one network is another's."""
    space = SPACES[name]()
    supernet = randomised(Supernet(space)).train()
    rng = np.random.default_rng(2)
    x = torch.randn(4, *space.input)
    first, *others = dict.fromkeys(sample(space, rng) for _ in range(12))
    network = supernet.network(first)
    before = copy.deepcopy(list(network.buffers()))
    modules = {id(module) for module in network.modules()}
    for arch in others:
        other = supernet.network(arch)
        assert not modules & {id(module) for module in other.modules()}
        assert not {b.data_ptr() for b in network.buffers() if b.numel()} & {
            b.data_ptr() for b in other.buffers() if b.numel()
        }
        other.train()(x)
        other.eval()
        assert all(module.training for module in network.modules())
    for now, then in zip(network.buffers(), before, strict=True):
        assert torch.equal(now, then)


def test_networks_follow_the_supernet_to_another_type():
    space = SPACES["mbconv"]()
    supernet = randomised(Supernet(space)).eval()
    arch = sample(space, np.random.default_rng(3))
    x = torch.randn(2, *space.input)
    single = supernet.network(arch)(x)
    double = supernet.double().network(arch)(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-4)


def test_initial_weights_are_not_drawn_and_the_random_state_is_left():
    space = SPACES["ofa_mobilenet_v3"]()
    supernet = Supernet(space)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for seed in range(5):
        supernet.network(sample(space, np.random.default_rng(seed)))
    assert torch.equal(torch.rand(3), expected)
