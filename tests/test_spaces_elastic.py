"""Elastic convolutional spaces: their networks are parts of the largest, to the bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from small_spaces import SMALL
from torch import nn

from nas.space import (
    count,
    enumerate_architectures,
    from_picks,
    network,
    sample,
    validate,
)
from nas.supernet import Supernet
from nas.testing import SpaceContract
from search_spaces.mbconv import ofa_proxylessnas, slimmable_mobilenet_v2


class TestOnceForAllProxyless(SpaceContract):
    samples = 10
    networks = 2

    def space(self):
        return SMALL["ofa_proxylessnas"]()


class TestSlimmable(SpaceContract):
    samples = 10
    networks = 2

    def space(self):
        return SMALL["slimmable_mobilenet_v2"]()

    small = space


# -------------------------------------------------------------------------- shared weights


def randomised(supernet):
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            if name.endswith("running_var"):
                nn.init.uniform_(tensor, 0.5, 1.5)
            elif tensor.is_floating_point():
                nn.init.normal_(tensor, std=0.4)
    return supernet


@pytest.mark.parametrize(
    ("name", "many"),
    [
        ("resnet", 15),
        ("slimmable_mobilenet_v2", 8),
        pytest.param("slimmable_mobilenet_v2", 50, marks=pytest.mark.slow),
        pytest.param("resnet", 50, marks=pytest.mark.slow),
        pytest.param("ofa_proxylessnas", 50, marks=pytest.mark.slow),
        pytest.param("ofa_mobilenet_v3", 50, marks=pytest.mark.slow),
    ],
)
def test_view_extracted_and_fixed_network_agree_to_the_bit_gradients_too(name, many):
    space = SMALL[name]()
    torch.manual_seed(0)
    supernet = randomised(Supernet(space)).eval()
    shared = dict(supernet.named_parameters())
    x = torch.randn(2, *space.input)
    rng = np.random.default_rng(7)
    for arch in [sample(space, rng) for _ in range(many)]:
        extracted, fixed = supernet.extract(arch), network(space, arch).eval()
        fixed.load_state_dict(extracted.state_dict())
        expected = fixed(x)
        view = supernet.network(arch)
        out = view(x)
        assert torch.equal(out, expected)
        assert torch.equal(extracted(x), expected)

        expected.square().sum().backward()
        own = {n: p.grad for n, p in fixed.named_parameters()}
        views = {n: t for path, m in view.named_modules() for n, t in _parameters(path, m)}
        assert list(views) == list(own)
        # Where each view lies in its shared tensor: the way its gradient goes back.
        weighed = sum((views[n] * grad).sum() for n, grad in own.items())
        placed = torch.autograd.grad(weighed, list(shared.values()), allow_unused=True)
        found = torch.autograd.grad(out.square().sum(), list(shared.values()), allow_unused=True)
        for parameter, there, here in zip(shared, placed, found, strict=True):
            assert (there is None) == (here is None), parameter
            if parameter.endswith("classifier.weight"):
                # torch sums a linear layer's in another order where its weight is not contiguous.
                torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-6 * there.abs().max())
            else:
                assert here is None or torch.equal(here, there), parameter


def _parameters(path, module):
    for key, tensor in module._parameters.items():
        if tensor is not None:
            yield f"{path}.{key}" if path else key, tensor


def shapes(space, arch):
    with torch.device("meta"):
        return {name: t.shape for name, t in network(space, arch).state_dict().items()}


# ------------------------------------------------------------------------- what is described


def test_a_specialised_network_of_the_authors_lies_in_the_space():
    # The one of 11 ms on an Intel CPU, 72.0 % top-1: by stage, each block's kernel and expansion.
    blocks = ("54 53", "33 73", "54 34 73", "54 74", "36 34", "54")
    inside = [96, 96, 96, 168, 224, 416, 312, 416, 512, 768, 992, 992]
    picks = {"resolution": 224, "width": 130}
    for stage, row in enumerate(blocks, start=2):
        if stage < 7:
            picks[f"stage{stage}/depth"] = len(row.split())
        for number, (kernel, expansion) in enumerate(row.split(), start=1):
            picks[f"stage{stage}/block{number}/kernel"] = int(kernel)
            picks[f"stage{stage}/block{number}/expansion"] = int(expansion)
    space = ofa_proxylessnas()
    arch = from_picks(space, picks)
    validate(space, arch)
    with torch.device("meta"):
        built = network(space, arch)
    convolutions = [m for m in built.modules() if isinstance(m, nn.Conv2d)]
    deep = [m for m in convolutions if m.groups > 1]
    assert [m.groups for m in deep] == [40, *inside]
    kernels = [int(kernel) for row in blocks for kernel, _ in row.split()]
    assert [m.kernel_size[0] for m in deep] == [3, *kernels]
    pointwise = [m.out_channels for m in convolutions if m.groups == 1]
    outputs = [
        c
        for c, n in zip((32, 56, 104, 128, 248, 416), (2, 2, 3, 2, 2, 1), strict=True)
        for _ in range(n)
    ]
    between = list(itertools.chain(*zip(inside, outputs, strict=True)))
    assert pointwise == [40, 24, *between, 1664]
    assert {type(m) for m in built.modules()} & {nn.ReLU, nn.ReLU6, nn.Hardswish} == {nn.ReLU6}


def test_only_the_width_of_a_slimmable_network_is_open():
    space = slimmable_mobilenet_v2(widths=tuple(range(35, 101, 5)))
    assert [choice.label for choice in space.choices] == ["width"]
    assert count(space) == 14
    names = {tuple(shapes(space, arch)) for arch in enumerate_architectures(space)}
    assert len(names) == 1


def test_equal_widths_and_no_others_have_an_equal_form():
    channels = (8, 8, 16, 16, 16, 16, 24)
    space = slimmable_mobilenet_v2(channels, 8, 16, (25, 35, 50, 60, 80, 100))
    forms = {}
    for arch in enumerate_architectures(space):
        forms.setdefault(tuple(shapes(space, arch).items()), set()).add(space.canonical(arch))
    assert all(len(same) == 1 for same in forms.values())
    assert len(forms) == len(set.union(*forms.values())) < count(space)
