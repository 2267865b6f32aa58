"""Once-for-all's ProxylessNAS space and slimmable MobileNetV2: what is in them.

How their networks share weights is tested in ``test_supernet_elastic``.
"""

from __future__ import annotations

import itertools

import torch
from small_spaces import SMALL
from torch import nn

from nas.space import (
    count,
    enumerate_architectures,
    from_picks,
    network,
    validate,
)
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
