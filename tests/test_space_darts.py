"""The DARTS space: the paper's integers, its notation, its edges, and its two heads."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from cell_spaces import (
    assert_analytic_cost_is_counted,
    assert_discretised_back,
    assert_exports_run_alone,
    genotype_parameters,
    parameters,
    published_cost,
)
from torch import nn

from nas.errors import ConfigError, InvalidArchitecture
from nas.layers.cells import DropPath, FactorizedReduction
from nas.points import published
from nas.space import enumerate_architectures, network, parse, sample
from nas.supernet import Supernet
from nas.testing import SpaceContract
from nas.training import Recipe, training_loss
from search_spaces.darts import OPERATIONS, Darts

TINY = Darts(channels=4, cells=3, input=(3, 8, 8))


class TestDarts(SpaceContract):
    networks = 4

    def space(self):
        return TINY

    def small(self):
        return Darts(channels=4, cells=3, input=(3, 8, 8), nodes=1)


class TestDartsOddSizes(SpaceContract):
    networks = 3

    def space(self):
        return Darts(channels=5, cells=2, classes=7, input=(1, 9, 5), nodes=2, drop_path=0.2)


# ---------------------------------------------------------------------------- the integers


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("DARTS_V1", 3_169_414, 500_987_520),
        ("DARTS_V2", 3_349_342, 528_359_040),
        ("PC_DARTS_cifar", 3_634_678, 556_670_592),
    ],
)
def test_published_networks(name, parameters, macs):
    cost = published_cost(f"darts:{name}")
    assert (cost.parameters, cost.macs) == (parameters, macs)


def test_imagenet_network():
    # The paper says 4.7 million.
    settings = {
        "channels": 48,
        "cells": 14,
        "classes": 1000,
        "input": (3, 224, 224),
        "stem": "imagenet",
    }
    assert published_cost("darts:DARTS_V2", settings).parameters == 4_718_752


def test_supernet_of_all_options():
    # The paper's supernet, whose norms inside the cells have no weights.
    with torch.device("meta"):
        model = Supernet(Darts(channels=16, cells=8)).largest
    norms = [module for module in model.cells.modules() if isinstance(module, nn.BatchNorm2d)]
    assert parameters(model) - sum(map(parameters, norms)) == 1_930_618


def test_parameters_are_the_sum_over_cells():
    rng = np.random.default_rng(0)
    space = Darts(channels=6, cells=7, classes=13)
    for _ in range(20):
        arch = sample(space, rng)
        taken = {"normal": [], "reduce": []}
        for label, name in space.slots(arch).items():
            cell, _, edge = label.partition("/")
            if name != "none":
                taken[cell].append((name, int(edge.split("->")[0])))
        expected = genotype_parameters(
            taken["normal"], 4, taken["reduce"], 4, channels=6, cells=7, classes=13
        )
        with torch.device("meta"):
            assert parameters(network(space, arch)) == expected


def test_analytic_cost_is_the_counted_one():
    assert_analytic_cost_is_counted(TINY)
    assert_analytic_cost_is_counted(Darts(channels=6, cells=3, auxiliary=True, drop_path=0.1), 3)


# ------------------------------------------------------------------------------- its size


def test_size():
    per_cell = math.prod(math.comb(n + 2, 2) * 7**2 for n in range(4))
    # The paper's (∏ k(k+1)/2 · 7²)², k from 1 to 4, about 10¹⁸.
    assert Darts().size() == per_cell**2 == 1_076_746_950_455_072_400


def test_size_of_small_cells_is_the_number_of_different_networks():
    space = Darts(nodes=1)
    slots = {tuple(space.slots(arch).items()) for arch in enumerate_architectures(space)}
    assert len(slots) == space.size() == 49**2


# -------------------------------------------------------------------------------- its edges


def test_slots_are_all_edges_and_two_a_node_are_taken():
    rng = np.random.default_rng(1)
    for _ in range(50):
        slots = Darts().slots(sample(Darts(), rng))
        assert list(slots) == [
            f"{cell}/{source}->{node}"
            for cell in ("normal", "reduce")
            for node in range(2, 6)
            for source in range(node)
        ]
        for cell, node in itertools.product(("normal", "reduce"), range(2, 6)):
            edges = [slots[f"{cell}/{source}->{node}"] for source in range(node)]
            assert sum(edge != "none" for edge in edges) == 2
            assert set(edges) <= set(OPERATIONS)


def test_network_reads_what_the_genotype_says():
    space, arch = published("darts:DARTS_V1", {"channels": 4, "cells": 4})
    cells = network(space, arch).cells
    assert [sorted(node.edges) for node in cells[0].nodes] == [
        ["0", "1"],
        ["0", "1"],
        ["0", "1"],
        ["0", "2"],
    ]
    assert isinstance(cells[0].nodes[3].edges["2"], nn.Identity)
    # Cells 1 and 2 reduce: edges from their inputs have stride 2, others keep the size.
    assert cells[1].nodes[0].edges["0"].stride == 2
    assert isinstance(cells[1].nodes[1].edges["2"], nn.Identity)
    prepared = [isinstance(cell.prepare_before, FactorizedReduction) for cell in cells]
    assert prepared == [False, False, True, True]


def test_one_hot_weights_are_discretised_back():
    assert_discretised_back(TINY)


def test_discretisation_is_the_papers():
    # Ranked by the strongest operation of an edge that is not none; then that operation.
    arch = parse(TINY, V2)
    weights = {label: [0.9, *[0.01] * 7] for label in TINY.slots(arch)}
    weights["normal/1->3"][2] = 0.05
    weights["normal/2->3"][7] = 0.03
    weights["normal/0->3"][1:] = [0.02] * 7
    found = TINY.discretize(weights)
    assert found["normal/3/inputs"] == "1+2"
    assert found["normal/3/low"] == "avg_pool_3x3"
    assert found["normal/3/high"] == "dil_conv_5x5"
    # Equal weights: the first edges, the first operation.
    assert found["reduce/5/inputs"] == "0+1"
    assert found["reduce/5/low"] == "max_pool_3x3"


# ----------------------------------------------------------------------------- its notation

V2 = Darts.points["DARTS_V2"].architecture


def test_notation_of_the_literature():
    arch = parse(TINY, V2)
    ranged = V2.replace("[2, 3, 4, 5]", "range(2, 6)")
    assert parse(TINY, ranged) == arch
    assert TINY.format(arch).count("range(2, 6)") == 2
    swapped = V2.replace(
        "('sep_conv_3x3', 0), ('sep_conv_3x3', 1)", "('sep_conv_3x3', 1), ('sep_conv_3x3', 0)"
    )
    assert swapped != V2
    assert parse(TINY, swapped) == arch
    assert parse(TINY, TINY.format(arch)) == arch
    assert arch["normal/5/inputs"] == "0+2"
    assert arch["normal/5/high"] == "dil_conv_3x3"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("'dil_conv_3x3', 2", "'dil_conv_3x3', 5", "node 5 can read the states 0 to 4, got 5"),
        ("'dil_conv_3x3', 2", "'dil_conv_3x3', 0", "node 5 reads state 0 twice"),
        ("dil_conv_3x3", "dill_conv_3x3", "did you mean 'dil_conv_3x3'"),
        ("dil_conv_3x3", "none", "no operation 'none'"),
        ("('dil_conv_3x3', 2)", "", "has 7 pairs, expected 8"),
        ("'dil_conv_3x3', 2", "'dil_conv_3x3', True", "expected a pair"),
        ("normal_concat=[2, 3, 4, 5]", "normal_concat=[3, 4, 5]", "normal_concat is"),
        ("normal_concat", "normal_concatt", "'normal_concat'"),
        ("normal=", "usual=", "'usual'"),
        ("Genotype", "print", "expected 'Genotype"),
        ("Genotype(", "Genotype(3, ", "expected 'Genotype"),
        ("[2, 3, 4, 5]", "range(10**9)", "must be a list or a range"),
        ("[2, 3, 4, 5]", "range(1000000000)", "must be a list or a range"),
        ("[2, 3, 4, 5]", "open('x')", "must be a list or a range"),
        ("[2, 3, 4, 5]", "4", "must be a list or a range"),
        ("reduce_concat=[2, 3, 4, 5])", "reduce_concat=[2, 3, 4, 5]", "expected 'Genotype"),
    ],
)
def test_other_text_is_refused(old, new, says):
    assert old in V2
    with pytest.raises(InvalidArchitecture, match=says.replace("(", r"\(")):
        parse(TINY, V2.replace(old, new))


def test_text_is_not_run(tmp_path):
    target = tmp_path / "made"
    for code in (f"open({str(target)!r}, 'w')", f"[open({str(target)!r}, 'w')]"):
        with pytest.raises(InvalidArchitecture):
            parse(TINY, V2.replace("[2, 3, 4, 5]", code))
    assert not target.exists()


# -------------------------------------------------------------------------------- its graph


def test_graph_of_darts_v2():
    graphs = Darts().graphs(parse(Darts(), V2))
    normal = graphs["normal"]
    assert normal.operations[:4] == ("input", "second_input", "sep_conv_3x3", "sep_conv_3x3")
    # Node 5 reads the first input by a skip, and node 2 (vertices 2 and 3) by a dilated one.
    assert normal.operations[8:] == ("skip_connect", "dil_conv_3x3", "output")
    into = {target: {a for a, b in normal.links if b == target} for target in (8, 9, 10)}
    assert into == {8: {0}, 9: {2, 3}, 10: set(range(2, 10))}


# ------------------------------------------------------------ the head and the dropped paths


def test_auxiliary_head_speaks_in_training_only():
    space = Darts(channels=4, cells=3, classes=6, auxiliary=True)
    arch = sample(space, np.random.default_rng(0))
    model = network(space, arch)
    x, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 5])
    assert model.eval()(x).shape == (2, 6)
    output = model.train()(x)
    assert [tuple(part.shape) for part in output] == [(2, 6), (2, 6)]
    loss = training_loss(output, labels, Recipe(auxiliary_weight=0.3))
    plain = [training_loss(part, labels, Recipe()) for part in output]
    assert loss.item() == pytest.approx(plain[0].item() + 0.3 * plain[1].item(), rel=1e-6)
    assert Recipe().auxiliary_weight == 0.4
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    # Without the head, the same weights under the same names.
    bare = network(Darts(channels=4, cells=3, classes=6), arch)
    state = model.state_dict()
    bare.load_state_dict({name: state[name] for name in bare.state_dict()})
    assert torch.equal(bare.eval()(x), model.eval()(x))
    assert {name.split(".")[0] for name in state.keys() - bare.state_dict().keys()} == {"auxiliary"}


def test_training_adds_the_auxiliary_loss():
    from nas.training import train

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.other = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return (self.main(x), self.other(x)) if self.training else self.main(x)

    data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.arange(8) % 2)
    moved = {}
    for weight in (0.0, 0.4):
        torch.manual_seed(0)
        model = Two()
        before = model.other.weight.detach().clone()
        recipe = Recipe(auxiliary_weight=weight, weight_decay=0.0, augment=False, batch_size=4)
        train(model, data, recipe, epochs=1, seed=0)
        moved[weight] = not torch.equal(model.other.weight, before)
    assert moved == {0.0: False, 0.4: True}


def test_drop_path_stands_on_all_edges_but_skips():
    space, arch = published("darts:DARTS_V1", {"channels": 4, "cells": 3, "drop_path": 0.3})
    model = network(space, arch)
    for name, module in model.named_modules():
        if ".edges." in name and name.split(".edges.")[1].isdecimal():
            dropped = isinstance(module, nn.Sequential) and isinstance(module[1], DropPath)
            assert dropped != isinstance(module, nn.Identity), name
    assert {m.probability for m in model.modules() if isinstance(m, DropPath)} == {0.3}
    x = torch.randn(8, 3, 32, 32)
    torch.manual_seed(0)
    assert not torch.equal(model.train()(x), model(x))
    plain = network(Darts(channels=4, cells=3), arch)
    assert parameters(plain) == parameters(model)


# --------------------------------------------------------------------------- use and misuse


def test_imagenet_stem_and_odd_sizes():
    space = Darts(channels=4, cells=3, classes=5, input=(3, 33, 40), stem="imagenet")
    model = network(space, sample(space, np.random.default_rng(3)))
    assert isinstance(model.cells[0].prepare_before, FactorizedReduction)
    assert model(torch.randn(2, 3, 33, 40)).shape == (2, 5)


def test_exported_networks_run_alone(tmp_path):
    assert_exports_run_alone(TINY, tmp_path)


def test_exported_network_with_a_head_runs_alone(tmp_path):
    space = Darts(channels=4, cells=3, input=(3, 32, 32), auxiliary=True, drop_path=0.1)
    assert_exports_run_alone(space, tmp_path, number=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"channels": 1}, "channels must be at least 2, got 1"),
        ({"cells": 0}, "cells"),
        ({"classes": 0}, "classes"),
        ({"nodes": 0}, "nodes"),
        ({"input": (32, 32)}, r"\(32, 32\)"),
        ({"input": (3, 0, 32)}, "positive"),
        ({"stem": "imagnet"}, "'imagenet'"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"auxiliary": True, "input": (3, 28, 32)}, "8×8 places"),
    ],
)
def test_sizes_are_refused(arguments, says):
    with pytest.raises((ConfigError, InvalidArchitecture), match=says):
        Darts(**arguments)
