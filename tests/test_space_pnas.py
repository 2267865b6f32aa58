"""The PNAS space: sets of two sides, cells that grow, one cell for both kinds of place."""

from __future__ import annotations

import itertools
from collections import Counter

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

from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.errors import ConfigError, InvalidArchitecture
from nas.points import published
from nas.space import count, enumerate_architectures, network, parse, sample, validate
from nas.testing import SpaceContract
from search_spaces.pnas import OPERATIONS, Pnas

TINY = Pnas(channels=4, cells=3, input=(3, 8, 8))


class TestPnas(SpaceContract):
    networks = 4

    def space(self):
        return TINY

    def small(self):
        return Pnas(channels=4, cells=3, input=(3, 8, 8), blocks=1)


@pytest.mark.slow
class TestPnasOfTwoBlocks(SpaceContract):
    networks = 4

    def space(self):
        return Pnas(channels=4, cells=2, input=(1, 7, 9), blocks=2, projected=True)


# ------------------------------------------------------------------------------- its size


def test_136_cells_of_one_block():
    # The paper: 256 pairs of sides, 136 of them different.
    sides = list(itertools.product(range(2), OPERATIONS))
    raw = list(itertools.product(sides, repeat=2))
    assert len(raw) == 256
    sets = {tuple(sorted(pair)) for pair in raw}
    space = Pnas(blocks=1)
    listed = [
        tuple(
            sorted(
                (arch[f"cell/2/{side}/input"], arch[f"cell/2/{side}/op"])
                for side in ("left", "right")
            )
        )
        for arch in enumerate_architectures(space)
    ]
    assert len(listed) == space.size() == 136
    assert set(listed) == sets


def test_sizes():
    assert Pnas(blocks=2).size() == 136 * 300
    # The paper's order of 10¹² networks is without isomorphic cells of several blocks.
    assert Pnas().size() == 136 * 300 * 528 * 820 * 1176


def test_cells_of_two_blocks_are_listed_once():
    space = Pnas(blocks=2)
    assert sum(1 for _ in enumerate_architectures(space)) == count(space) == 40_800


def test_samples_reach_every_cell_of_one_block():
    space = Pnas(blocks=1)
    rng = np.random.default_rng(0)
    seen = Counter(sample(space, rng) for _ in range(8000))
    assert len(seen) == 136


# --------------------------------------------------------------------------------- growing


def test_a_cell_grows_by_every_block():
    one = Pnas(channels=6, blocks=1)
    arch = parse(one, "Genotype(cell=[('sep_conv_3x3', 1), ('skip_connect', 0)])")
    two, larger = one.extend(arch)
    assert two == Pnas(channels=6, blocks=2)
    grown = list(larger)
    assert len(grown) == len(set(grown)) == 300  # 3 · 8 sides and sets of two of them
    for other in grown:
        validate(two, other)
        assert other.picks[: len(arch.picks)] == arch.picks
    with pytest.raises(InvalidArchitecture):
        two.extend(arch)


def test_growing_from_one_block_gives_all_cells_of_two():
    one = Pnas(blocks=1)
    grown = {other for arch in enumerate_architectures(one) for other in one.extend(arch)[1]}
    assert grown == set(enumerate_architectures(Pnas(blocks=2)))


# -------------------------------------------------------------------------------- a network


def test_found_network():
    # 3.2 million in the paper, in its own network.
    cost = published_cost("pnas:PNASNet_5")
    assert (cost.parameters, cost.macs) == (3_962_650, 623_304_192)
    space, arch = published("pnas:PNASNet_5")
    assert space.slots(arch)["cell/join"] == "2+3+5+6"  # state 4 is read
    cell = [
        ("sep_conv_5x5", 0), ("max_pool_3x3", 0), ("sep_conv_7x7", 1), ("max_pool_3x3", 1),
        ("sep_conv_5x5", 1), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 1),
        ("sep_conv_3x3", 0), ("skip_connect", 1),
    ]  # fmt: skip
    expected = genotype_parameters(cell, 4, cell, 4, channels=48, cells=11)
    assert cost.parameters == expected


def test_normal_and_reduction_places_share_the_cell():
    arch = sample(TINY, np.random.default_rng(0))
    cells = network(TINY, arch).cells
    kinds = [
        [
            type(edge).__name__
            for node in cell.nodes
            for side in (node.left, node.right)
            for edge in side.edges.values()
        ]
        for cell in cells
    ]
    same = [name.replace("Identity", "FactorizedReduction") for name in kinds[0]]
    assert [name.replace("Identity", "FactorizedReduction") for name in kinds[1]] == same
    out = cells[1](torch.randn(2, 12, 8, 8), torch.randn(2, cells[1].prepare_last.c_in, 8, 8))
    assert out.shape[2:] == (4, 4)


def test_parameters_of_random_cells():
    rng = np.random.default_rng(0)
    space = Pnas(channels=6, cells=5, classes=3)
    checked = 0
    while checked < 10:
        arch = sample(space, rng)
        slots = space.slots(arch)
        joined = slots["cell/join"].split("+")
        if {"0", "1"} & set(joined):
            continue  # a reduction joins an input: not in the independent count
        taken = [
            (name, int(label.split("<-")[1]))
            for label, name in slots.items()
            if "<-" in label and name != "none"
        ]
        expected = genotype_parameters(
            taken, len(joined), taken, len(joined), channels=6, cells=5, classes=3
        )
        with torch.device("meta"):
            assert parameters(network(space, arch)) == expected
        checked += 1


def test_one_hot_weights_are_discretised_back():
    assert_discretised_back(Pnas(channels=4, cells=3, blocks=3, projected=True))


def test_analytic_cost_is_the_counted_one():
    assert_analytic_cost_is_counted(TINY)


# ----------------------------------------------------------------------------- its notation


def test_notation_takes_sides_in_either_order():
    space = Pnas(blocks=1)
    one = parse(space, "Genotype(cell=[('conv_7x1_1x7', 1), ('dil_conv_3x3', 0)], concat=[2])")
    other = parse(space, "Genotype(cell=[('dil_conv_3x3', 0), ('conv_7x1_1x7', 1)])")
    assert one == other
    assert space.format(one) == (
        "Genotype(cell=[('dil_conv_3x3', 0), ('conv_7x1_1x7', 1)], concat=[2])"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Genotype(cell=[('dil_conv_3x3', 0)])", "has 1 pairs, expected 2"),
        ("Genotype(cell=[('dil_conv_3x3', 0), ('conv_1x1', 1)])", "no operation 'conv_1x1'"),
        ("Genotype(cell=[('dil_conv_3x3', 0), ('dil_conv_3x3', 2)])", "states 0 to 1, got 2"),
        ("Genotype(normal=[])", "no field 'normal'"),
        ("Genotype()", "no field 'cell'"),
    ],
)
def test_other_text_is_refused(text, says):
    with pytest.raises(InvalidArchitecture, match=says):
        parse(Pnas(blocks=1), text)


def test_sides_out_of_order_are_no_architecture():
    space = Pnas(blocks=1)
    arch = parse(space, "Genotype(cell=[('avg_pool_3x3', 0), ('max_pool_3x3', 0)])")
    flipped = arch.as_dict() | {
        "cell/2/left/op": "max_pool_3x3",
        "cell/2/right/op": "avg_pool_3x3",
    }
    with pytest.raises(InvalidArchitecture, match="not legal for 'cell/2/right/op'"):
        validate(space, type(arch)(arch.space, tuple(flipped.items())))


def test_exported_networks_run_alone(tmp_path):
    assert_exports_run_alone(TINY, tmp_path, number=4)


def test_sizes_are_refused():
    with pytest.raises(ConfigError, match="pnas: blocks must be at least 1, got 0"):
        Pnas(blocks=0)


def test_a_cell_of_fewer_blocks_is_trained_and_counted_like_any_other():
    space = Pnas(channels=4, cells=3)
    smaller = space.smallest()
    arch = next(enumerate_architectures(smaller))
    validate(space, arch)
    assert architecture_cost(space, arch) == architecture_cost(smaller, arch)
    x = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    one = network(space, arch).eval()(x)
    torch.manual_seed(0)
    assert torch.equal(one, network(smaller, arch).eval()(x))
    torn = Architecture(arch.space, arch.picks[:-1])
    with pytest.raises(InvalidArchitecture, match="no pick"):
        validate(space, torn)
