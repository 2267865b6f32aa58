"""The spaces hold the space contract, and each holds what its own definition promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from torch import nn

from nas.space import count, enumerate_architectures, network, parse, sample, validate
from nas.testing import SpaceContract
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.chain import Chain


class TestFlatSpace(SpaceContract):
    def space(self):
        return FlatSpace()

    small = space


class TestNestedSpace(SpaceContract):
    def space(self):
        return NestedSpace()

    small = space


class TestChain(SpaceContract):
    def space(self):
        return Chain(input=(3, 12, 12), widths=(4, 6), strides=(1, 2), dense_widths=(5, 7))

    def small(self):
        return Chain(depths=(1, 3), kernels=(1, 3), widths=(4, 6), strides=(2,), dense=(0, 2))


def test_sample_is_uniform_over_a_small_space():
    space = FlatSpace()
    rng = np.random.default_rng(1)
    seen = Counter(sample(space, rng) for _ in range(6400))
    assert set(seen) == set(enumerate_architectures(space))
    expected = 6400 / 64
    statistic = sum((n - expected) ** 2 / expected for n in seen.values())
    # Chi-square with 63 degrees of freedom: above 113 with probability 1e-4, below 29 likewise.
    assert 29 < statistic < 113


# ----------------------------------------------------------------------------------- chain


def test_chain_size_is_its_formula():
    space = Chain()
    layer = 3 * 4 * 2
    expected = sum(layer**depth for depth in (1, 2, 3, 4)) * 3 * (1 + 2 * 2)
    assert count(space) == expected == 5_193_000


def test_chain_of_irregular_options():
    space = Chain(depths=(2, 4), kernels=(3,), widths=(4, 8), strides=(1, 2), dense=(1, 3))
    expected = (4**2 + 4**4) * 3 * 2 * 2
    assert count(space) == expected
    assert sum(1 for _ in enumerate_architectures(space)) == expected


def test_chain_network_is_what_was_picked():
    space = Chain(input=(3, 16, 16), classes=4)
    arch = parse(
        space,
        "depth=2 conv0/kernel=3 conv0/width=8 conv0/stride=2 conv1/kernel=5 conv1/width=16 "
        "conv1/stride=1 pool=max dense=1 dense_width=32",
    )
    validate(space, arch)
    model = network(space, arch)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size, m.stride) for m in convolutions] == [
        (3, 8, (3, 3), (2, 2)),
        (8, 16, (5, 5), (1, 1)),
    ]
    assert sum(isinstance(m, nn.MaxPool2d) for m in model.modules()) == 1
    linears = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    assert linears == [(16, 32), (32, 4)]


def test_toy_sizes():
    assert count(FlatSpace()) == 4 * 2 * 4 * 2
    assert count(NestedSpace()) == (2 + 2 * 3 + 2 * 3 * 2) * 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kernels": (2,)}, "odd"),
        ({"depths": ()}, "depths"),
        ({"depths": (0, 1)}, "at least 1"),
        ({"widths": (8, 8)}, "equal options"),
        ({"input": (16, 16)}, "channels, height, width"),
        ({"strides": (-1,)}, "strides"),
    ],
)
def test_chain_refuses_options(arguments, says):
    with pytest.raises(ValueError, match=says):
        Chain(**arguments)
