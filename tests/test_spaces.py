"""The spaces hold the space contract, and each holds what its own definition promises."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from nas.architecture import Architecture
from nas.builder import FixedBuilder
from nas.encoding import path_encoding, paths
from nas.errors import ConfigError, InvalidArchitecture
from nas.space import (
    count,
    enumerate_architectures,
    format_architecture,
    network,
    parse,
    sample,
    validate,
)
from nas.testing import SpaceContract
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.chain import Chain
from search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201


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


class TestNasBench201(SpaceContract):
    def space(self):
        return NasBench201(channels=3, cells=1, input=(3, 8, 8))

    def small(self):
        return self.space()

    def gradient_reaches(self, space, arch, parameter):
        # Where no way leads through the cell, what comes before its last one is cut off.
        return bool(paths(space.graphs(arch)["cell"])) or parameter.startswith(("2.", "5."))


class TestNasBench201OddSizes(SpaceContract):
    def space(self):
        return NasBench201(channels=2, cells=2, classes=7, input=(1, 9, 5))

    def gradient_reaches(self, space, arch, parameter):
        return bool(paths(space.graphs(arch)["cell"])) or parameter.startswith(("2.", "5."))


# --------------------------------------------------------------------------- NAS-Bench-201

NB201 = NasBench201(channels=3, cells=1, input=(3, 8, 8))


@pytest.fixture(scope="module")
def every_arch():
    return list(enumerate_architectures(NB201))


def test_nasbench201_has_15625_architectures(every_arch):
    assert count(NB201) == len(set(every_arch)) == 15625


def test_nasbench201_text_is_read_back_for_every_architecture(every_arch):
    texts = [format_architecture(NB201, arch) for arch in every_arch]
    assert len(set(texts)) == 15625
    assert [NB201.parse(text) for text in texts] == every_arch


def test_nasbench201_text_is_the_benchmarks(every_arch):
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
    arch = parse(NB201, text)
    assert arch.as_dict() == {
        "0->1": "avg_pool_3x3",
        "0->2": "nor_conv_1x1",
        "1->2": "skip_connect",
        "0->3": "nor_conv_1x1",
        "1->3": "skip_connect",
        "2->3": "none",
    }
    assert format_architecture(NB201, arch) == text
    assert parse(NB201, f"  {text}\n") == arch


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("|none~0|+|none~0|none~1|", "3 nodes"),
        ("|none~0|+|none~0|+|none~0|none~1|none~2|", "node 2 needs 2 edges"),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "none~1"),
        ("|nor_conv3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|", "'nor_conv_3x3'"),
        ("", "nodes joined by"),
    ],
)
def test_nasbench201_refuses_other_text(text, says):
    with pytest.raises(InvalidArchitecture, match=says):
        parse(NB201, text)


def test_nasbench201_table_has_our_operations(every_arch, benchmark_data):
    # The table's own order of operations and edges: accuracies are looked up by it.
    with np.load(benchmark_data("nb201.npz")) as table:
        assert tuple(table["op_names"]) == OPERATIONS
        rows = {tuple(row) for row in table["ops"].tolist()}
    assert rows == {
        tuple(OPERATIONS.index(option) for _, option in arch.picks) for arch in every_arch
    }


def test_nasbench201_formula_equals_the_table(benchmark_data):
    # Every row of the table: 16 channels, 5 cells, 10 and 100 classes.
    with np.load(benchmark_data("nb201.npz")) as table:
        ops, parameters, flops = table["ops"], table["params"], table["flops_m"]
    labels = [choice.label for choice in NasBench201.choices]
    for column, classes in enumerate((10, 100)):
        space = NasBench201(classes=classes)
        for row in range(0, len(ops), 25):
            picks = tuple((label, OPERATIONS[i]) for label, i in zip(labels, ops[row], strict=True))
            ours = space.parameters_and_macs(Architecture(space.name, picks))
            assert ours[0] == parameters[row, column]
            assert (ours[1] + classes) / 1e6 == pytest.approx(flops[row, column], rel=1e-6)


def test_canonical_forms_of_nasbench201(every_arch):
    # Three simplifications, each of which leaves the network's function as it is: edges that
    # cannot reach the output, skips and pools of a node that is always zero, and the naming of
    # nodes 1 and 2 where they are not joined. Skips are not contracted and equal sums are not
    # recognised, so this is more than the count of different functions.
    forms = {NB201.canonical(arch) for arch in every_arch}
    assert len(forms) == 9550
    assert all(NB201.canonical(form) == form for form in forms)
    assert forms == {arch for arch in every_arch if NB201.canonical(arch) == arch}


def test_canonical_form_keeps_the_signal_paths(every_arch):
    # Written independently of the space: the operations on ways from input to output, where
    # a convolution of a zero node (whose norm shifts it) begins a way of its own.
    for arch in every_arch[::7]:
        assert path_sets(arch) == path_sets(NB201.canonical(arch))
        encoded = path_encoding(NB201, arch)
        assert (encoded == path_encoding(NB201, NB201.canonical(arch))).all()
        assert encoded.sum() == len({p for p, zero in path_sets(arch) if not zero})


def path_sets(arch):
    ops = dict(arch.picks)
    found = set()
    for length in (1, 2, 3):
        for middle in itertools.combinations((1, 2), length - 1):
            nodes = (0, *middle, 3)
            way = [ops[f"{a}->{b}"] for a, b in itertools.pairwise(nodes)]
            if "none" not in way:
                found.add((tuple(way), False))
    zeros = set()
    for node in (1, 2):
        silent = [
            ops[f"{a}->{b}"] == "none"
            or (a in zeros and ops[f"{a}->{b}"] in ("skip_connect", "avg_pool_3x3"))
            for a, b in EDGES
            if b == node
        ]
        if not all(silent):
            continue
        zeros.add(node)
        for end in ((2, 3), (3,)) if node == 1 else ((3,),):
            way = [ops[f"{a}->{b}"] for a, b in itertools.pairwise((node, *end))]
            if "none" not in way and way[0].startswith("nor_conv"):
                found.add((tuple(way), True))
    return found


def test_canonical_network_computes_the_same(every_arch):
    rng = np.random.default_rng(0)
    simplified = swapped = 0
    for index in rng.choice(len(every_arch), 120, replace=False):
        arch = every_arch[index]
        canonical = NB201.canonical(arch)
        simplified += canonical != arch
        one, names_one = _randomised(arch, seed=int(index))
        other, names_other = _randomised(canonical, seed=0)
        given = one.state_dict()
        by_shared = {names_one[name]: tensor for name, tensor in given.items()}
        # Nodes 1 and 2 may have changed places: that is how the two networks correspond then.
        swap = any(option not in ("none", arch[label]) for label, option in canonical.picks)
        swapped += swap
        taken = {
            name: by_shared[_other_naming(shared) if swap else shared]
            for name, shared in names_other.items()
        }
        other.load_state_dict(taken)
        x = torch.randn(3, *NB201.input, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected, out = one(x), other(x)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    assert simplified > 20
    assert swapped > 5


def _other_naming(shared):
    edges = {"0_1": "0_2", "0_2": "0_1", "1_3": "2_3", "2_3": "1_3"}
    return ".".join(edges.get(part, part) for part in shared.split("."))


def _randomised(arch, seed):
    """A network in eval mode whose norm layers do not hide anything."""
    builder = FixedBuilder(NB201, arch)
    torch.manual_seed(seed)
    model = NB201.build(builder).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model, builder.shared_names(model)


def test_sample_is_uniform_on_nasbench201():
    # 15,625 cells would need far more draws: all pairs of edges stand for them.
    rng = np.random.default_rng(0)
    archs = [sample(NB201, rng) for _ in range(10_000)]
    for pair in itertools.combinations([choice.label for choice in NB201.choices], 2):
        seen = Counter(tuple(arch[label] for label in pair) for arch in archs)
        assert len(seen) == 25
        expected = len(archs) / 25
        statistic = sum((n - expected) ** 2 / expected for n in seen.values())
        # Chi-square with 24 degrees of freedom: above 60.1 with probability 6e-5.
        assert statistic < 60.1


def test_sample_is_uniform_over_a_small_space():
    space = FlatSpace()
    rng = np.random.default_rng(1)
    seen = Counter(sample(space, rng) for _ in range(6400))
    assert set(seen) == set(enumerate_architectures(space))
    expected = 6400 / 64
    statistic = sum((n - expected) ** 2 / expected for n in seen.values())
    # Chi-square with 63 degrees of freedom: above 113 with probability 1e-4, below 29 likewise.
    assert 29 < statistic < 113


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"cells": 0}, "cells"),
        ({"classes": -1}, "classes"),
        ({"input": (32, 32)}, r"\(32, 32\)"),
        ({"input": (3, 0, 32)}, "positive"),
    ],
)
def test_nasbench201_refuses_sizes(arguments, says):
    with pytest.raises((ConfigError, InvalidArchitecture), match=says):
        NasBench201(**arguments)


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
