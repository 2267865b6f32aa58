"""The ENAS micro space: the official arc, its count, and the two ways to join."""

from __future__ import annotations

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
from torch.nn import functional as F

from nas.errors import ConfigError, InvalidArchitecture
from nas.points import published
from nas.space import network, parse, sample
from nas.supernet import Supernet
from nas.testing import SpaceContract
from search_spaces.enas_micro import OPERATIONS, EnasMicro
from search_spaces.pairwise_cells import ProjectedSum

TINY = EnasMicro(channels=4, cells=3, input=(3, 8, 8))
PROJECTED = EnasMicro(channels=4, cells=3, input=(3, 8, 8), projected=True)


class TestEnasMicro(SpaceContract):
    networks = 4

    def space(self):
        return TINY

    def small(self):
        return EnasMicro(channels=4, cells=3, input=(3, 8, 8), blocks=1)


class TestEnasMicroProjected(SpaceContract):
    networks = 4

    def space(self):
        return EnasMicro(channels=5, cells=3, input=(2, 9, 7), blocks=3, projected=True)


def numbers():
    return [int(word) for word in EnasMicro.points["ENAS_micro"].architecture.split()]


# --------------------------------------------------------------------------- its size


def test_size():
    # k inputs twice and 5 operations twice for each node, in two cells.
    assert EnasMicro().size() == ((2 * 3 * 4 * 5 * 6) ** 2 * 5**10) ** 2
    assert EnasMicro(blocks=1).size() == 10_000
    # The paper's count with B = 7 takes one operation for all nodes of a cell.
    assert (5 * 120) ** 4 == 129_600_000_000


# ---------------------------------------------------------------------- the published cell


def test_published_arc_means_what_the_official_code_makes_of_it():
    space, arch = published("enas_micro:ENAS_micro")
    slots = space.slots(arch)
    arc = numbers()
    assert len(arc) == 40
    for index, cell in enumerate(("normal", "reduce")):
        for node in range(5):
            quad = arc[20 * index + 4 * node :][:4]
            for side, (source, operation) in (("left", quad[:2]), ("right", quad[2:])):
                labels = [f"{cell}/{node + 2}/{side}<-{state}" for state in range(node + 2)]
                expected = ["none"] * (node + 2)
                expected[source] = OPERATIONS[operation]
                assert [slots[label] for label in labels] == expected
    assert slots["normal/join"] == "2+3+4+5+6"
    assert slots["reduce/join"] == "2+4+5+6"


def test_published_cost():
    cost = published_cost("enas_micro:ENAS_micro")
    assert (cost.parameters, cost.macs) == (3_729_430, 590_384_160)
    arc = numbers()
    pairs = [(OPERATIONS[b], a) for a, b in zip(arc[::2], arc[1::2], strict=True)]
    expected = genotype_parameters(pairs[:10], 5, pairs[10:], 4, channels=36, cells=17)
    assert cost.parameters == expected


# -------------------------------------------------------------------------- how cells join


def test_projected_sum_is_a_convolution_of_the_concatenation():
    model = network(PROJECTED, published("enas_micro:ENAS_micro")[1])
    join = model.cells[0].join
    assert isinstance(join, ProjectedSum)
    projections = join.projections.edges
    assert list(projections) == ["2", "3", "4", "5", "6"]
    states = [torch.randn(2, 4, 6, 6, dtype=torch.double) for _ in range(7)]
    join = join.double().eval()
    kernel = torch.cat([projection.conv.weight for projection in projections.values()], dim=1)
    together = F.conv2d(F.relu(torch.cat(states[2:], dim=1)), kernel)
    torch.testing.assert_close(join(states), join.norm(together))


def test_projections_are_shared_between_architectures():
    # Whichever other states are joined: the path through the supernet is the network alone.
    space = EnasMicro(channels=4, cells=3, input=(3, 8, 8), blocks=3, projected=True)
    supernet = Supernet(space).eval()
    weights = randomised(supernet, 0)
    supernet.load_state_dict(weights)
    x = torch.randn(2, 3, 8, 8)
    rng = np.random.default_rng(0)
    joins = set()
    for _ in range(10):
        arch = sample(space, rng)
        joins.add(tuple(name for label, name in space.slots(arch).items() if "/join" in label))
        with torch.no_grad():
            expected = supernet.extract(arch)(x)
            assert torch.equal(supernet(x, supernet.gates(arch)), expected)
            assert torch.equal(supernet.network(arch)(x), expected)
    assert len(joins) > 5


def test_one_hot_weights_are_discretised_back():
    assert_discretised_back(PROJECTED)


@pytest.mark.parametrize("space", [TINY, PROJECTED], ids=["concatenated", "projected"])
def test_analytic_cost_is_the_counted_one(space):
    assert_analytic_cost_is_counted(space, 10)


def test_unread_inputs_of_a_reduction_are_halved():
    text = "0 0 0 4 " + "0 0 2 1 " * 4  # state 1 is not read
    for space in (TINY, PROJECTED):
        arch = parse(space, text + text)
        assert network(space, arch)(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    assert TINY.slots(arch)["reduce/join"] == "1+3+4+5+6"
    c = network(PROJECTED, arch).cells[1]
    assert parameters(c.join.projections.edges["1"]) == 8 * 8 + 2 * 8


def test_canonical_form_computes_the_same():
    # Only the sides of nodes change places: the same output for weights drawn alike by place.
    rng = np.random.default_rng(0)
    swapped = 0
    for seed in range(4):
        arch = sample(PROJECTED, rng)
        canonical = PROJECTED.canonical(arch)
        one, other = network(PROJECTED, arch).eval(), network(PROJECTED, canonical).eval()
        weights = randomised(one, seed)
        one.load_state_dict(weights)
        for before, after in zip(one.cells, other.cells, strict=True):
            for mine, theirs in zip(before.nodes, after.nodes, strict=True):
                sides = [mine.left, mine.right]
                if described(theirs.left) != described(mine.left):
                    sides.reverse()
                    swapped += 1
                theirs.left.load_state_dict(sides[0].state_dict())
                theirs.right.load_state_dict(sides[1].state_dict())
            for part in ("prepare_before", "prepare_last", "join"):
                getattr(after, part).load_state_dict(getattr(before, part).state_dict())
        other.stem.load_state_dict(one.stem.state_dict())
        other.classifier.load_state_dict(one.classifier.state_dict())
        x = torch.randn(2, 3, 8, 8)
        with torch.no_grad():
            assert torch.equal(one(x), other(x))
    assert swapped > 5


def described(side):
    return [(source, str(edge)) for source, edge in side.edges.items()]


# ----------------------------------------------------------------------------- its notation


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda arc: arc[:-1], "expected 40 numbers"),
        (lambda arc: [*arc, "0"], "got 41 words"),
        (lambda arc: ["2", *arc[1:]], "node 0 has the input 2 and the operation 2"),
        (lambda arc: [arc[0], "5", *arc[2:]], "expected at most 1 and 4"),
        (lambda arc: ["-1", *arc[1:]], "expected 40 numbers"),
    ],
)
def test_other_arcs_are_refused(change, says):
    words = EnasMicro.points["ENAS_micro"].architecture.split()
    with pytest.raises(InvalidArchitecture, match=says):
        parse(EnasMicro(), " ".join(change(words)))


def test_arc_is_written_as_it_was_read():
    text = EnasMicro.points["ENAS_micro"].architecture
    assert EnasMicro().format(parse(EnasMicro(), text)) == text


@pytest.mark.parametrize("space", [TINY, PROJECTED], ids=["concatenated", "projected"])
def test_exported_networks_run_alone(space, tmp_path):
    assert_exports_run_alone(space, tmp_path, number=3)


def test_sizes_are_refused():
    with pytest.raises(ConfigError, match="enas_micro: blocks must be at least 1, got 0"):
        EnasMicro(blocks=0)
