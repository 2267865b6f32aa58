"""NAS-Bench-201: the benchmark's text, table and counts, and which of its cells are equal."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from nas.architecture import Architecture
from nas.builder import FixedBuilder
from nas.encoding import paths
from nas.errors import ConfigError, InvalidArchitecture
from nas.space import count, enumerate_architectures, format_architecture, parse, sample
from nas.testing import SpaceContract
from search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201, unique_form


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


# ------------------------------------------------------------------------------ equal cells


def test_canonical_forms_of_nasbench201(every_arch):
    forms = {NB201.canonical(arch) for arch in every_arch}
    assert len(forms) == 5234
    assert forms == {arch for arch in every_arch if NB201.canonical(arch) == arch}
    # The first of its class stands for it.
    position = {arch: i for i, arch in enumerate(every_arch)}
    assert all(position[NB201.canonical(arch)] <= position[arch] for arch in every_arch)


def test_the_papers_simplification_gives_6466(every_arch):
    assert len({unique_form(arch) for arch in every_arch}) == 6466


@pytest.mark.parametrize(
    ("one", "other", "canonical", "paper"),
    [
        # A skip is contracted: 1x1, then 3x3, by way of either node.
        ((2, 0, 1, 0, 0, 3), (2, 0, 0, 0, 3, 0), True, False),
        # Node 2 is zero where both of its edges are, which the paper's form does not see.
        ((0, 0, 0, 2, 0, 1), (0, 0, 0, 2, 0, 0), True, False),
        # One convolution used twice, and two of the same input.
        ((2, 0, 1, 0, 1, 1), (2, 2, 0, 0, 1, 1), False, True),
        ((2, 2, 0, 0, 1, 1), (2, 0, 0, 2, 1, 0), True, False),
        # Pooling is linear: the pooled sum of two convolutions, and the sum of them pooled.
        ((2, 2, 1, 0, 0, 4), (2, 2, 0, 0, 4, 4), True, False),
        # Convolutions of a zero node give their norm's constant.
        ((0, 0, 0, 1, 3, 0), (0, 0, 0, 1, 2, 0), True, True),
        ((0, 0, 0, 1, 2, 0), (0, 0, 0, 1, 0, 0), False, True),
        # Pools do not vanish.
        ((4, 0, 4, 0, 0, 1), (4, 0, 1, 0, 0, 1), False, False),
    ],
)
def test_what_is_folded(one, other, canonical, paper):
    first, second = (
        Architecture(
            NB201.name,
            tuple((c.label, OPERATIONS[i]) for c, i in zip(NB201.choices, code, strict=True)),
        )
        for code in (one, other)
    )
    assert (NB201.canonical(first) == NB201.canonical(second)) == canonical
    assert (unique_form(first) == unique_form(second)) == paper


def live_convolutions(operations):
    """The edges whose convolutions take part in the output."""
    leads = {3}
    for node in (2, 1):
        if any(operations[node, t] != "none" for t in range(node + 1, 4) if t in leads):
            leads.add(node)
    return [e for e in EDGES if operations[e].startswith("nor_conv") and e[1] in leads]


def test_canonical_identifies_the_cells_that_compute_the_same_and_no_others(every_arch):
    # Every cell is run on stand-ins for its operations that keep their algebra (5 places, 3
    # channels, borders as in a padded convolution), with all assignments of a pool of weights to
    # its convolutions. What that gives, as a set, is the same for two cells exactly when their
    # convolutions can correspond so that the functions are equal; power sums stand for the set.
    rng = np.random.default_rng(0)
    places, c = 5, 3
    x = rng.normal(size=(places, c))
    kernels, shifts = rng.normal(size=(6, 3, c, c)), rng.normal(size=(6, 1, c))
    pool = np.array([[abs(i - j) <= 1 for j in range(places)] for i in range(places)], dtype=float)
    pool /= pool.sum(axis=1, keepdims=True)
    probe = rng.normal(size=(places, c))

    def convolution(given, weights, kernel_size):
        given = np.maximum(given, 0)
        out = given @ kernels[weights, 1] + shifts[weights]
        if kernel_size == 3:
            padded = np.pad(given, ((0, 0), (1, 1), (0, 0)))
            out = out + padded[:, 2:] @ kernels[weights, 2] + padded[:, :-2] @ kernels[weights, 0]
        return out

    def fingerprint(arch):
        operations = dict(zip(EDGES, (option for _, option in arch.picks), strict=True))
        live = live_convolutions(operations)
        assigned = np.array(list(itertools.permutations(range(len(live)))), dtype=int)
        states = [np.broadcast_to(x, (len(assigned), places, c))]
        for target in (1, 2, 3):
            total = np.zeros((len(assigned), places, c))
            for source in range(target):
                edge, operation = (source, target), operations[source, target]
                if operation == "skip_connect":
                    total = total + states[source]
                elif operation == "avg_pool_3x3":
                    total = total + pool @ states[source]
                elif edge in live:
                    size = 3 if operation == "nor_conv_3x3" else 1
                    total = total + convolution(states[source], assigned[:, live.index(edge)], size)
            states.append(total)
        values = np.tanh((states[3] * probe).sum(axis=(1, 2)) / 50)
        return (len(live), *(float(np.round((values**k).mean(), 9)) for k in (1, 2, 3)))

    found = {}
    for arch in every_arch:
        found.setdefault(fingerprint(arch), set()).add(NB201.canonical(arch))
    assert not [forms for forms in found.values() if len(forms) > 1]
    assert len(found) == 5234


def test_canonical_network_computes_the_same(every_arch):
    rng = np.random.default_rng(0)
    simplified = 0
    for index in rng.choice(len(every_arch), 60, replace=False):
        arch = every_arch[index]
        canonical = NB201.canonical(arch)
        simplified += canonical != arch
        one, names = _randomised(arch, seed=int(index))
        other, other_names = _randomised(canonical, seed=0)
        given = {names[name]: tensor for name, tensor in one.state_dict().items()}
        x = torch.randn(3, *NB201.input, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = one(x)
            assert expected.abs().max() > 1e-3
            for edges in _correspondences(arch, canonical):
                other.load_state_dict(_taken(other, other_names, given, edges))
                if torch.allclose(other(x), expected, rtol=1e-5, atol=1e-5):
                    break
            else:
                pytest.fail(f"no correspondence of weights: {arch} and {canonical}")
    assert simplified > 30


def _correspondences(arch, canonical):
    """Each way of giving an architecture's convolutions to its canonical form's."""
    ours, theirs = (
        live_convolutions(dict(zip(EDGES, (option for _, option in a.picks), strict=True)))
        for a in (arch, canonical)
    )
    assert len(ours) == len(theirs)
    for order in itertools.permutations(ours):
        yield dict(zip(theirs, order, strict=True))


def _taken(model, names, given, edges):
    """The canonical network's tensors, each from the convolution that corresponds to its own.

    A kernel of another size is left as it is: where the cells are equal, it sees zeros.
    """
    state = {}
    for name, own in model.state_dict().items():
        shared = names[name]
        parts = shared.split(".")
        if "edges" in parts:
            place = parts.index("edges") + 1
            source, target = edges[tuple(map(int, parts[place].split("_")))]
            parts[place] = f"{source}_{target}"
            shared = ".".join(parts)
            if shared not in given:
                swap = {"nor_conv_1x1": "nor_conv_3x3", "nor_conv_3x3": "nor_conv_1x1"}
                shared = ".".join(swap.get(part, part) for part in parts)
        state[name] = given[shared] if given[shared].shape == own.shape else own
    return state


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
