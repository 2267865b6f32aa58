"""The single-path one-shot space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exporting import export_and_run
from small_spaces import SMALL

from nas.cost import architecture_cost
from nas.cost import count as cost_of
from nas.errors import ConfigError, InvalidArchitecture
from nas.points import published
from nas.space import count, enumerate_architectures, format_architecture, network, parse, sample
from nas.supernet import Supernet
from nas.testing import SpaceContract
from search_spaces.spos import OPERATIONS, Spos

FACTORS = tuple(tenths / 10 for tenths in range(2, 21, 2))
PAPERS = Spos(factors=FACTORS)


class TestSpos(SpaceContract):
    def space(self):
        return SMALL["spos"]()

    def small(self):
        return Spos(4, (8, 12), (2, 1), 8, (0.5, 1.0), 0.0, 3, (3, 12, 12))


class TestSposWithoutChannels(SpaceContract):
    def space(self):
        return Spos(4, (8, 12), (2, 3), 8, input=(1, 9, 11), classes=5)

    def small(self):
        return self.space()


def test_published_network_costs_what_is_published():
    space, arch = published("spos:spos_330m")
    with torch.device("meta"):
        built = network(space, arch)
    counted = cost_of(built, space.input)
    assert (counted.parameters, counted.macs) == (3_558_464, 322_918_720)
    analytic = architecture_cost(space, arch)
    assert (analytic.parameters, analytic.macs) == (3_558_464, 322_918_720)


def test_sizes_are_the_papers():
    assert count(Spos()) == 4**20
    assert count(PAPERS) == (4 * 10) ** 20
    small = TestSpos().small()
    assert len(list(enumerate_architectures(small))) == count(small) == 8**3


def conv(c_in, c_out, kernel, size, groups=1):
    """Parameters with the norm's, and multiply-accumulates."""
    weights = c_in // groups * c_out * kernel**2
    return np.array([weights + 2 * c_out, weights * size**2])


def reference_cost(kinds, factors):
    """The network from the paper's table, without any of the space's code."""
    size = 112
    total, c, block = conv(3, 16, 3, size), 16, 0
    for c_out, depth in ((64, 4), (160, 4), (320, 8), (640, 4)):
        for index in range(depth):
            kernel = (3, 5, 7, 3)[kinds[block]]
            inside = int(c_out // 2 * factors[block] + 1e-6)
            before, c_in = size, c if index == 0 else c // 2
            made = c_out - c_in
            if index == 0:
                size = size // 2
                total += conv(c_in, c_in, kernel, size, c_in) + conv(c_in, c_in, 1, size)
            if kinds[block] == 3:
                total += conv(c_in, c_in, 3, size, c_in) + conv(c_in, inside, 1, size)
                for c_next in (inside, made):
                    total += conv(inside, inside, 3, size, inside) + conv(inside, c_next, 1, size)
            else:
                total += conv(c_in, inside, 1, before) + conv(inside, inside, kernel, size, inside)
                total += conv(inside, made, 1, size)
            c, block = c_out, block + 1
    total += conv(640, 1024, 1, size)
    total += 1024 * 1000  # the classifier, without a bias
    return tuple(total.tolist())


def test_costs_are_those_of_the_paper_with_channels_searched():
    rng = np.random.default_rng(0)
    for _ in range(8):
        kinds, factors = rng.integers(4, size=20).tolist(), rng.choice(FACTORS, 20).tolist()
        arch = parse(PAPERS, f"{tuple(kinds)} {tuple(factors)}")
        cost = architecture_cost(PAPERS, arch)
        assert (cost.parameters, cost.macs) == reference_cost(kinds, factors)


# --------------------------------------------------------------------------------- notation


def test_notation_is_the_papers():
    text = "(2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)"
    arch = parse(Spos(), text)
    assert arch["block1/op"] == "shuffle_7x7"
    assert arch["block2/op"] == "shuffle_5x5"
    assert arch["block3/op"] == "shuffle_3x3"
    assert arch["block12/op"] == "xception"
    assert format_architecture(Spos(), arch) == text
    assert parse(Spos(), "[2,1,0,1,2,0,2,0,2,0,2,3,0,0,0,0,3,2,3,3]") == arch


def test_notation_with_factors_is_read_back():
    kinds = (0, 1, 2, 3) * 5
    arch = parse(PAPERS, f"{kinds}, {FACTORS * 2}")
    assert arch["block1/channels"] == int(32 * 0.2)
    assert arch["block5/channels"] == 80
    assert arch["block20/channels"] == 640
    text = format_architecture(PAPERS, arch)
    assert text == f"{kinds}, {FACTORS * 2}"
    assert parse(PAPERS, text) == arch


@pytest.mark.parametrize(
    ("space", "text", "says"),
    [
        (Spos(), "(0, 1)", "expected 20 numbers"),
        (Spos(), f"{(4,) * 20}", "block 1: expected 0"),
        (Spos(), f"{(0.5,) * 20}", "block 1: expected 0"),
        (Spos(), f"({'x, ' * 20})", "expected numbers"),
        (Spos(), f"{(0,) * 20} {(1.0,) * 20}", "one tuple"),
        (Spos(), f"{(0,) * 20} and more", "one tuple"),
        (PAPERS, f"{(0,) * 20}", "two tuples"),
        (PAPERS, f"{(0,) * 20} {(0.3,) * 20}", r"block 1: no factor 0\.3"),
    ],
)
def test_other_notation_is_refused(space, text, says):
    with pytest.raises(InvalidArchitecture, match=says):
        parse(space, text)


# -------------------------------------------------------------------------------- networks


def test_exported_files_run_alone_and_are_clean(tmp_path):
    export_and_run(SMALL["spos"](), tmp_path)


def test_paths_of_the_supernet_are_the_stand_alone_networks():
    space = TestSposWithoutChannels().space()
    torch.manual_seed(0)
    supernet = Supernet(space).eval()
    rng = np.random.default_rng(0)
    x = torch.randn(2, *space.input)
    for _ in range(5):
        arch = sample(space, rng)
        alone = supernet.extract(arch).eval()
        with torch.no_grad():
            assert torch.equal(supernet(x, supernet.gates(arch)), alone(x))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_half_of_the_channels_pass_untouched(operation):
    space = Spos(4, (8,), (2,), 8, input=(3, 12, 12))
    arch = parse(space, f"block1/op=shuffle_3x3 block2/op={operation}")
    block = network(space, arch).eval().layers["block2"]
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x)[:, :4], x[:, 0::2])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"stem": 0}, "stem"),
        ({"channels": (64, 160)}, "2 channels"),
        ({"channels": (64, 160, 321, 640)}, "even"),
        ({"channels": (64, 160, 160, 640)}, "grow"),
        ({"channels": (16, 160, 320, 640)}, "grow"),
        ({"depths": (4, 4, 0, 4)}, "depths must be positive"),
        ({"factors": ()}, "factors must be positive"),
        ({"factors": (1.0, 1.01)}, "different numbers of channels"),
        ({"factors": (0.001, 1.0)}, "at least 1"),
        ({"dropout": -0.1}, "dropout"),
        ({"input": (224, 224)}, "channels, height, width"),
    ],
)
def test_spos_refuses(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Spos(**arguments)
