"""The NASNet space: published cells, sums of two sides, and what a cell joins."""

from __future__ import annotations

import ast

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
from exporting import randomised

from nas.errors import ConfigError, InvalidArchitecture
from nas.layers.cells import Concatenate, FactorizedReduction
from nas.points import published
from nas.space import network, parse, sample
from nas.supernet import Supernet
from nas.testing import SpaceContract
from search_spaces.nasnet import OPERATIONS, NasNet
from search_spaces.pairwise_cells import ConcatenateHalved

TINY = NasNet(channels=4, cells=3, input=(3, 8, 8))


class TestNasNet(SpaceContract):
    networks = 4

    def space(self):
        return TINY


@pytest.mark.slow
class TestNasNetOfOneBlock(SpaceContract):
    networks = 6

    def space(self):
        return NasNet(channels=5, cells=3, classes=4, input=(1, 9, 7), blocks=1, drop_path=0.1)


# ---------------------------------------------------------------------------- the integers


def genotype(name):
    """The fields of a published genotype, read by another way than the space's."""
    call = ast.parse(NasNet.points[name].architecture, mode="eval").body
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # 3.3 million at 32 channels in the paper's own network, where a cell joins six states.
        ("NASNet_A", 3_830_950, 603_452_448),
        ("AmoebaNet_A", 3_145_078, 488_931_552),  # 3.2 million in the paper
    ],
)
def test_published_networks(name, parameters, macs):
    cost = published_cost(f"nasnet:{name}")
    assert (cost.parameters, cost.macs) == (parameters, macs)
    fields = genotype(name)
    assert parameters == genotype_parameters(
        fields["normal"],
        len(fields["normal_concat"]),
        fields["reduce"],
        len(fields["reduce_concat"]),
        channels=36,
        cells=20,
    )


@pytest.mark.parametrize("name", NasNet.points)
def test_published_cells_join_what_nothing_reads(name):
    # The genotypes were written by others with their concatenated states: the rule gives them.
    space, arch = published(f"nasnet:{name}")
    fields = genotype(name)
    slots = space.slots(arch)
    for cell in ("normal", "reduce"):
        assert slots[f"{cell}/join"] == "+".join(map(str, fields[f"{cell}_concat"]))
        taken = [
            (slots[f"{cell}/{state}/{side}<-{source}"], source)
            for state in range(2, 7)
            for side in ("left", "right")
            for source in range(state)
        ]
        assert fields[cell] == [pair for pair in taken if pair[0] != "none"]


def test_parameters_of_random_cells():
    rng = np.random.default_rng(0)
    space = NasNet(channels=6, cells=4, classes=13)
    checked = 0
    while checked < 10:
        arch = sample(space, rng)
        slots = space.slots(arch)
        joins = [slots[f"{cell}/join"].split("+") for cell in ("normal", "reduce")]
        if {"0", "1"} & set(joins[1]):
            continue  # a reduction joins an input: not in the independent count
        taken = {
            cell: [
                (name, int(label.split("<-")[1]))
                for label, name in slots.items()
                if label.startswith(cell) and "<-" in label and name != "none"
            ]
            for cell in ("normal", "reduce")
        }
        expected = genotype_parameters(
            taken["normal"],
            len(joins[0]),
            taken["reduce"],
            len(joins[1]),
            channels=6,
            cells=4,
            classes=13,
        )
        with torch.device("meta"):
            assert parameters(network(space, arch)) == expected
        checked += 1


# ------------------------------------------------------------------------------- its size


def test_size():
    # Two inputs of k states and two operations of 13 for each block, in two cells.
    assert NasNet().size() == ((2 * 3 * 4 * 5 * 6) ** 2 * 13**10) ** 2
    assert NasNet(blocks=1).size() == (2 * 2 * 13 * 13) ** 2


def test_thirteen_operations():
    assert len(set(OPERATIONS)) == 13


# ---------------------------------------------------------------------------- equal networks


def test_canonical_form_computes_the_same():
    rng = np.random.default_rng(4)
    swapped = 0
    for seed in range(6):
        arch = sample(TINY, rng)
        canonical = TINY.canonical(arch)
        swaps = {
            (cell, state)
            for cell in ("normal", "reduce")
            for state in range(2, 7)
            if any(
                arch[f"{cell}/{state}/left/{part}"] != canonical[f"{cell}/{state}/left/{part}"]
                for part in ("input", "op")
            )
        }
        swapped += len(swaps)
        first, second = network(TINY, arch).eval(), network(TINY, canonical).eval()
        weights = randomised(first, seed)
        first.load_state_dict(weights)
        second.load_state_dict({other_side(name, swaps): weights[name] for name in weights})
        x = torch.randn(2, 3, 8, 8)
        with torch.no_grad():
            assert torch.equal(first(x), second(x))
    assert swapped > 10


def other_side(name, swaps):
    """The name of a tensor of the tiny network after the sides of these blocks are swapped."""
    parts = name.split(".")
    if parts[0] == "cells" and parts[2] == "nodes":
        cell = "normal" if parts[1] == "0" else "reduce"
        if (cell, 2 + int(parts[3])) in swaps:
            parts[4] = {"left": "right", "right": "left"}[parts[4]]
    return ".".join(parts)


def test_canonical_form_orders_the_sides():
    space = NasNet(blocks=1)
    rng = np.random.default_rng(0)
    forms = {space.canonical(sample(space, rng)) for _ in range(300)}
    for form in forms:
        for cell in ("normal", "reduce"):
            left, right = (
                (form[f"{cell}/2/{side}/input"], OPERATIONS.index(form[f"{cell}/2/{side}/op"]))
                for side in ("left", "right")
            )
            assert left <= right


# ------------------------------------------------------------------------------ its network


def test_an_unread_input_is_joined_and_halved_where_the_cell_reduces():
    # Nothing reads state 1: both cells join it beside the only block.
    space = NasNet(channels=4, cells=3, input=(3, 8, 8), blocks=1)
    cell = "[('conv_1x1', 0), ('max_pool_5x5', 0)]"
    arch = parse(space, f"Genotype(normal={cell}, reduce={cell})")
    assert space.slots(arch)["normal/join"] == "1+2"
    model = network(space, arch)
    normal, reduce = model.cells[0].join, model.cells[1].join
    assert isinstance(normal, Concatenate)
    assert isinstance(reduce, ConcatenateHalved)
    assert isinstance(reduce.halves["1"], FactorizedReduction)
    assert list(reduce.halves) == ["1"]
    before, last = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 8)
    states = [before, last, torch.randn(2, 8, 4, 4)]
    expected = torch.cat([reduce.eval().halves["1"](last), states[2]], dim=1)
    assert torch.equal(reduce(states), expected)


def test_every_parameter_takes_part():
    # Whatever is not read is joined, so nothing is left over.
    rng = np.random.default_rng(5)
    for _ in range(4):
        model = network(TINY, sample(TINY, rng))
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_all_options_have_tensors_of_their_own():
    # Every side, state and operation: what a supernet holds, in its own words.
    space = NasNet(channels=4, cells=1, blocks=2, projected=True)
    with torch.device("meta"):
        nodes = Supernet(space).largest.cells[0].nodes
    edges = [edge for node in nodes for side in (node.left, node.right) for edge in side.edges]
    assert edges == ["0", "1", "0", "1", "0", "1", "2", "0", "1", "2"]
    assert nodes[1].right.edges["2"].options == ("none", *OPERATIONS)


def test_one_hot_weights_are_discretised_back():
    assert_discretised_back(NasNet(channels=4, cells=3, blocks=3, projected=True))


def test_analytic_cost_is_the_counted_one():
    assert_analytic_cost_is_counted(TINY, 10)
    assert_analytic_cost_is_counted(NasNet(channels=4, cells=3, input=(3, 9, 7), projected=True), 5)


# ----------------------------------------------------------------------------- its notation


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("('sep_conv_5x5', 0), ('sep", "('sep_conv_5x5', 3), ('sep", "node 3 can read the states"),
        ("max_pool_3x3", "max_pool_9x9", "no operation 'max_pool_9x9'"),
        ("normal_concat=[2, 3, 4, 5, 6]", "normal_concat=[2, 3]", "the space joins"),
        ("reduce_concat=[4, 5, 6]", "concat=[4, 5, 6]", "no field 'concat'"),
    ],
)
def test_other_genotypes_are_refused(old, new, says):
    text = NasNet.points["NASNet_A"].architecture
    assert old in text
    with pytest.raises(InvalidArchitecture, match=says):
        parse(NasNet(), text.replace(old, new))


def test_concatenated_states_need_not_be_given():
    text = NasNet.points["AmoebaNet_A"].architecture
    bare = text.replace(", normal_concat=[4, 5, 6]", "").replace(", reduce_concat=[3, 4, 6]", "")
    assert len(bare) < len(text) - 40
    assert parse(NasNet(), bare) == parse(NasNet(), text)
    # The order of the sides stays what was written.
    assert NasNet().format(parse(NasNet(), text)) == text.replace("[4, 5, 6]", "range(4, 7)")


def test_exported_networks_run_alone(tmp_path):
    assert_exports_run_alone(TINY, tmp_path, number=4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"blocks": 0}, "blocks"), ({"stem": "svhn"}, "stem"), ({"cells": 0}, "cells")],
)
def test_sizes_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=f"nasnet: .*{says}"):
        NasNet(**arguments)
