"""MetaQNN: the paper's rules re-derived, states that decide what may follow, the notation."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from exporting import export_and_run
from torch import nn

from nas.builder import FixedBuilder
from nas.cost import count as cost
from nas.errors import ConfigError, InvalidArchitecture, UnsupportedRequest
from nas.points import published
from nas.space import count, enumerate_architectures, network, parse, sample, validate
from nas.testing import SpaceContract
from search_spaces.metaqnn import MetaQnn

SMALL = MetaQnn(layers=5, widths=(3, 5), dense=(6, 4), input=(3, 9, 9))
TINY = MetaQnn(
    layers=4,
    kernels=(1, 3),
    widths=(2,),
    pools=((3, 2), (2, 1)),
    dense=(5, 4),
    bins=(4, 2),
    classes=3,
    input=(1, 9, 7),
)


class TestMetaQnn(SpaceContract):
    def space(self):
        return SMALL

    def small(self):
        return TINY


@pytest.mark.slow
class TestMetaQnnOnSmallImages(SpaceContract):
    networks = 20

    def space(self):
        return MetaQnn(layers=4, widths=(4,), dense=(7, 6), max_dense=3, input=(1, 6, 8))


# ------------------------------------------------------------------------------- the rules


def kinds(option):
    return option if option in ("global_pool", "softmax") else option.split("_")[0]


def allowed(chain, space):
    """Whether a whole chain of options is one of the space: written apart from it."""
    size, dense = min(space.input[1:]), []
    for index, option in enumerate(chain):
        before = kinds(chain[index - 1]) if index else "input"
        low = next((b + 1 for b in space.bins if size > b), 1)  # the bin's smallest size
        numbers = [int(text.lstrip("kos")) for text in option.split("_") if text[-1].isdigit()]
        if before in ("global_pool", "softmax"):
            return False
        if kinds(option) == "softmax":
            continue
        if before == "dense" and kinds(option) != "dense":
            return False
        if kinds(option) == "conv" and numbers[0] > low:
            return False
        if kinds(option) == "pool":
            if before in ("input", "pool") or numbers[0] > low:
                return False
            size = math.ceil((size - numbers[0] + 1) / numbers[1])
        if kinds(option) == "dense":
            dense.append(numbers[0])
            if len(dense) > space.max_dense or dense != sorted(dense, reverse=True):
                return False
            if before != "dense" and low == space.bins[0] + 1:
                return False
    ended = kinds(chain[-1]) in ("global_pool", "softmax")
    return len(chain) <= space.layers and (ended or len(chain) == space.layers)


@pytest.mark.parametrize("bins", [(4, 2), (6, 2), (3,), (7,)])
def test_exactly_the_chains_that_the_rules_allow(bins):
    space = MetaQnn(**{**vars_of(TINY), "bins": bins})
    options = [str(option) for option in space.choices[0].options]
    expected = {
        chain
        for length in range(1, space.layers + 1)
        for chain in itertools.product(options, repeat=length)
        if allowed(chain, space)
    }
    listed = [tuple(option for _, option in arch.picks) for arch in enumerate_architectures(space)]
    assert len(listed) == len(set(listed))
    assert set(listed) == expected
    assert count(space) == len(expected)


def vars_of(space):
    return {name: value for name, value in vars(space).items() if name != "choices"}


def test_size_of_the_papers_space():
    @functools.cache
    def chains(left, size, after):
        """How many ways there are to go on; a convolution after anything but dense layers."""
        if left == 0:
            return 1
        low = 9 if size > 8 else 5 if size > 4 else 1
        total = 2  # global pool, softmax
        total += 4 * sum(k <= low for k in (1, 3, 5)) * chains(left - 1, size, "conv")
        if after == "conv":
            for kernel, stride in ((5, 3), (3, 2), (2, 2)):
                if kernel <= low:
                    total += chains(left - 1, math.ceil((size - kernel + 1) / stride), "pool")
        if low < 9:
            # One of three widths, then the end, or 3, 2 or 1 that are no wider and then the end.
            total += 3 if left == 1 else (1 + 3) + (1 + 2) + (1 + 1)
        return total

    assert count(MetaQnn()) == chains(12, 32, "input") == 66_746_562_685_298


def test_states_decide_what_may_follow():
    space = MetaQnn()
    rng = np.random.default_rng(0)
    seen, sizes = {}, {}
    for _ in range(3000):
        made = {}
        while True:
            state = space.state(made)
            hash(state)
            step = space.legal(made)
            assert seen.setdefault(state, step) == step
            assert (step is None) == (
                state.layer in ("softmax", "global_pool") or state.depth == space.layers
            )
            size = 32
            for option in made.values():
                if option.startswith("pool"):
                    kernel, stride = (int(text[1:]) for text in option.split("_")[1:])
                    size = (size - kernel) // stride + 1
            sizes.setdefault(state, set()).add(size)
            if step is None:
                break
            choice, options = step
            made[choice.label] = options[int(rng.integers(len(options)))]
    # Otherwise the law above was tried on one size a state only.
    assert sum(len(several) > 1 for several in sizes.values()) > 50
    assert {state.bin for state in sizes} == {0, 1, 2}
    assert {state.dense for state in sizes} == {0, 1, 2}


def test_state_of_prefixes():
    space = MetaQnn()
    assert space.state({}) == ("input", 0, 0, 0)
    made = {"layer0": "conv_k3_o64", "layer1": "pool_k5_s3", "layer2": "conv_k1_o64"}
    assert space.state(made) == ("conv_k1_o64", 3, 0, 0)  # 32 to 10
    made |= {"layer3": "pool_k2_s2"}
    assert space.state(made) == ("pool_k2_s2", 4, 1, 0)  # 5
    made |= {"layer4": "dense_256", "layer5": "dense_128"}
    assert space.state(made) == ("dense_128", 6, 2, 2)
    assert space.legal(made) == (space.choices[6], ("softmax",))
    other = {"layer0": "conv_k1_o512", "layer1": "pool_k2_s2", "layer2": "conv_k1_o64"}
    assert space.state(other) == space.state(other | {"layer1": "pool_k3_s2"})


def test_options_of_the_authors_bins():
    # Of the authors' own rules at sizes 4 to 7: kernels below 4 and their pools, dense layers.
    space = MetaQnn(bins=(7, 3), widths=(64,), input=(3, 7, 7))
    _, options = space.legal({"layer0": "conv_k1_o64"})
    assert set(options) == {
        *("conv_k1_o64", "conv_k3_o64", "pool_k3_s2", "pool_k2_s2"),
        *("dense_512", "dense_256", "dense_128", "global_pool", "softmax"),
    }


# ----------------------------------------------------------------------- networks, notation


def test_published_network_by_hand():
    space, arch = published("metaqnn:MetaQNN_CIFAR10")
    with torch.device("meta"):
        found = cost(network(space, arch), space.input)
    weights = {32: [3 * 128 * 25, 128 * 512 * 9], 16: [512 * 128, 128 * 128 * 25]}
    weights[7] = [128 * 512 * 9]
    scores = 512 * 7 * 7 * 10
    biases = 128 + 512 + 128 + 128 + 512 + 10
    assert found.parameters == sum(map(sum, weights.values())) + scores + biases == 1_916_682
    macs = sum(side**2 * sum(several) for side, several in weights.items()) + scores
    assert found.macs == macs == 764_597_248


PUBLISHED = [
    (
        32,
        "[C(128,5,1), C(512,3,1), D(1,4), P(2,2), C(128,1,1), D(2,4), C(128,5,1), P(3,2), D(3,4), "
        "C(512,3,1), SM(10)]",
        [0.125, 0.25, 0.375],
    ),
    (
        32,
        "[C(64,3,1), C(128,3,1), D(1,5), P(5,3), C(256,3,1), D(2,5), P(3,2), FC(512), D(3,5), "
        "FC(128), D(4,5), SM(10)]",
        [0.1, 0.2, 0.3, 0.4],
    ),
    (
        28,
        "C(128, 3, 1) - P(2, 2) - C(64, 1, 1) - C(256, 1, 1) - C(256, 5, 1) - C(128, 1, 1) - "
        "C(128, 5, 1) - C(512, 3, 1) - C(256, 5, 1) - C(256, 1, 1) - C(128, 3, 1) - C(64, 1, 1) - "
        "SM(10)",
        [i / 12 for i in range(1, 7)],
    ),
    (
        28,
        "C(128, 5, 1) - C(128, 3, 1) - C(64, 5, 1) - P(5, 3) - C(128, 3, 1) - C(512, 5, 1) - "
        "C(256, 5, 1) - C(128, 5, 1) - C(128, 5, 1) - C(128, 3, 1) - SM(10)",
        [i / 10 for i in range(1, 6)],
    ),
]


@pytest.mark.parametrize(("side", "text", "rates"), PUBLISHED)
def test_networks_the_authors_published(side, text, rates):
    space = MetaQnn(input=(3, side, side))
    arch = parse(space, text)
    validate(space, arch)
    with torch.device("meta"):
        model = network(space, arch)
    found = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert found == pytest.approx(rates)
    assert parse(space, space.format(arch)) == arch


def test_notation_of_every_ending():
    space = MetaQnn(layers=2, classes=7)
    for text in ("[SM(7)]", "[GAP(7), SM(7)]", "[C(64,1,1), C(64,5,1), SM(7)]"):
        assert space.format(parse(space, text)) == text
    full = parse(space, "[C(64,1,1), C(64,5,1), SM(7)]")
    assert full.as_dict() == {"layer0": "conv_k1_o64", "layer1": "conv_k5_o64"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[C(64,3,2), SM(10)]", r"C\(width,kernel,1\)"),
        ("[C(100,3,1), SM(10)]", "conv_k3_o128"),
        ("[C(64,3,1)]", r"end with SM\(10\)"),
        ("[SM(9)]", r"SM\(10\)"),
        ("[SM(10), C(64,3,1)]", "follows SM"),
        ("[P(2,2), SM(10)]", "not legal for 'layer0'"),
        ("[C(64,3,1), D(1,2), SM(10)]", "dropouts"),
        ("[C(64,3,1), C(64,3,1), C(64,3,1), D(1,2), SM(10)]", r"D\(1,2\) behind layer 1"),
        ("[X(3), SM(10)]", r"'X\(3\)'"),
        ("[C(64,,1), SM(10)]", "whole numbers"),
        ("[" + "C(64,1,1), " * 13 + "SM(10)]", "13 layers"),
        ("", "expected layers"),
    ],
)
def test_bad_notation_is_refused(text, says):
    with pytest.raises(InvalidArchitecture, match=says):
        MetaQnn().parse(text)


def test_layers_are_what_was_picked():
    space = MetaQnn(widths=(4, 6), dense=(9, 8), input=(2, 12, 14), classes=5)
    model = network(
        space, parse(space, "[C(4,5,1), P(3,2), C(6,3,1), P(2,2), FC(9), FC(8), SM(5)]")
    ).eval()
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in convs] == [
        (2, 4, 5),
        (4, 6, 3),
    ]
    linears = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    assert linears == [(6 * 2 * 3, 9), (9, 8), (8, 5)]  # 12 × 14, 5 × 6, 2 × 3
    assert all((m.bias == 0).all() for m in convs)
    x = torch.randn(2, *space.input)
    expected = torch.relu(nn.functional.conv2d(x, convs[0].weight, padding=2))
    torch.testing.assert_close(model.layer0(x), expected)


def test_global_pool_scores_each_class():
    space = MetaQnn(classes=3, input=(2, 6, 6))
    model = network(space, parse(space, "[GAP(3), SM(3)]"))
    x = torch.randn(4, 2, 6, 6)
    maps = torch.relu(nn.functional.conv2d(x, model.layer0.conv.weight)).mean(dim=(2, 3))
    torch.testing.assert_close(model(x), maps @ model.scores.linear.weight.T)


def test_a_mixture_of_layers_is_refused_by_name():
    class Mixing(FixedBuilder):
        def edge(self, label, options):
            return nn.Identity()

    arch = sample(SMALL, np.random.default_rng(0))
    with pytest.raises(UnsupportedRequest, match="'layer0' decides the shape"):
        SMALL.build(Mixing(SMALL, arch))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"kernels": (2,)}, "odd"),
        ({"kernels": ()}, "a kernel and a width"),
        ({"widths": (0,)}, "positive"),
        ({"pools": ((2, 3),)}, "stride no larger"),
        ({"bins": (4, 8)}, "descend"),
        ({"dense": (8, 8)}, "equal options"),
        ({"max_dense": -1}, "max_dense"),
        ({"input": (32, 32)}, r"\(32, 32\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises((ConfigError, ValueError), match=says):
        MetaQnn(**arguments)


def test_exported_networks_run_alone(tmp_path):
    export_and_run(SMALL, tmp_path)
