"""ENAS macro: the authors' numbers, the sum of skips, and reductions of what is still read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exporting import export_and_run, randomised
from torch import nn
from torch.nn import functional as F

from nas.builder import FixedBuilder
from nas.cost import count as cost
from nas.errors import ConfigError, InvalidArchitecture
from nas.points import published
from nas.space import count, network, parse, sample
from nas.supernet import Supernet, discretize
from nas.supernet.discretize import one_hot_weights
from nas.testing import SpaceContract
from search_spaces.enas_macro import OPERATIONS, EnasMacro, ShiftedReduction

SMALL = EnasMacro(layers=6, channels=3, growth=2, input=(3, 9, 10))


class TestEnasMacro(SpaceContract):
    def space(self):
        return SMALL

    def small(self):
        return EnasMacro(layers=3, channels=4)


@pytest.mark.slow
class TestEnasMacroWithoutReductions(SpaceContract):
    def space(self):
        return EnasMacro(layers=2, channels=2, classes=3, input=(1, 4, 4))


def test_size_is_the_papers():
    assert count(EnasMacro()) == 6**12 * 2**66
    assert len(EnasMacro().choices) == 12 + 66


def test_reductions_are_at_a_third_and_two_thirds():
    assert EnasMacro().reductions == (3, 7)
    assert EnasMacro(layers=24).reductions == (7, 15)
    assert EnasMacro(layers=3).reductions == (0, 1)
    assert EnasMacro(layers=2).reductions == ()


# ------------------------------------------------------------------------------ the network


def by_hand(space, arch):
    """Parameters and MACs of a network, from its picks alone."""
    picks = arch.as_dict()
    c, (c_in, height, width) = space.channels, space.input
    parameters, macs = 9 * c_in * c + 2 * c, 9 * c_in * c * height * width
    for layer in range(space.layers):
        operation = picks[f"layer{layer}"]
        weights, norms = c * c, 1
        if operation.startswith("conv"):
            weights, norms = weights + int(operation[-1]) ** 2 * c * c, 2
        elif operation.startswith("sep"):
            weights, norms = weights + int(operation[-1]) ** 2 * c + c * c, 2
        parameters += weights + 2 * c * (norms + (layer > 0))
        macs += weights * height * width
        if layer in (space.layers // 3 - 1, 2 * (space.layers // 3) - 1):
            later = range(layer + 1, space.layers)
            read = {s for other in later for s in range(other) if picks[f"layer{other}/from{s}"]}
            halved = len({s for s in read if s <= layer} | {layer + 1})
            height, width = -(-height // 2), -(-width // 2)
            weights = c * c * space.growth * halved
            c *= space.growth
            parameters += weights + 2 * c * halved
            macs += weights * height * width
    return parameters + c * space.classes, macs + c * space.classes


def test_costs_by_hand():
    rng = np.random.default_rng(0)
    cases = [(space, sample(space, rng)) for space in [SMALL] * 8 + [EnasMacro()] * 3]
    cases.append(published("enas_macro:ENAS_macro"))
    for space, arch in cases:
        with torch.device("meta"):
            found = cost(network(space, arch), space.input)
        assert (found.parameters, found.macs) == by_hand(space, arch)
    assert (found.parameters, found.macs) == (19_796_064, 3_228_380_928)


def test_forward_is_that_of_an_independent_reading():
    rng = np.random.default_rng(1)
    for seed in range(12):
        arch = sample(SMALL, rng)
        picks = arch.as_dict()
        model = network(SMALL, arch).eval()
        model.load_state_dict(randomised(model, seed))
        x = torch.randn(2, *SMALL.input)
        states = {0: model.stem(x)}
        for layer in range(6):
            block = model.layers[layer]
            out = block.operation(states[layer])
            for state in range(layer):
                if picks[f"layer{layer}/from{state}"]:
                    out = out + states[state]
            states[layer + 1] = block.norm(out)
            if layer in (1, 3):
                halved = model.reductions[str(layer)].reductions
                # What is not halved is dropped: whoever still read it would fail here.
                states = {int(s): module(states[int(s)]) for s, module in halved.items()}
        expected = model.head[2].weight @ states[6].mean(dim=(2, 3)).T
        torch.testing.assert_close(model(x), expected.T, rtol=1e-4, atol=1e-4)


def test_operations_are_the_authors():
    # The order and what stands behind the shared 1×1 convolution.
    kernels = {0: [1, 3], 1: [1, 3, 1], 2: [1, 5], 3: [1, 5, 1], 4: [1], 5: [1]}
    for number, expected in kernels.items():
        space = EnasMacro(layers=1, channels=4, input=(3, 6, 6))
        operation = network(space, parse(space, str(number))).layers[0].operation
        convolutions = [m for m in operation.modules() if isinstance(m, nn.Conv2d)]
        assert [m.kernel_size[0] for m in convolutions] == expected
        assert [m.groups for m in convolutions] == [
            4 if i == 1 and number in (1, 3) else 1 for i in range(len(expected))
        ]
    pools = [
        network(space, parse(space, str(number))).layers[0].operation.eval() for number in (4, 5)
    ]
    x = torch.rand(1, 4, 6, 6)
    for pool, reference in zip(
        pools, (lambda m: F.avg_pool2d(m, 3, 1), lambda m: F.max_pool2d(m, 3, 1)), strict=True
    ):
        inside = reference(pool.mix(x))
        assert torch.equal(pool(x)[:, :, 1:-1, 1:-1], inside)
    # At the corner four numbers are averaged, not nine.
    corner = pools[0].mix(x)[:, :, :2, :2].mean(dim=(2, 3))
    torch.testing.assert_close(pools[0](x)[:, :, 0, 0], corner)


@pytest.mark.parametrize("size", [4, 5])
def test_reduction_sees_every_pixel(size):
    reduction = ShiftedReduction(c_in=2, c_out=5).eval()
    x = torch.randn(1, 2, size, size)
    out = reduction(x) * (1 + reduction.norm.eps) ** 0.5
    even = F.conv2d(x[:, :, ::2, ::2], reduction.even.weight)
    side = -(-size // 2)
    moved = torch.zeros(1, 2, side, side)
    moved[:, :, : size // 2, : size // 2] = x[:, :, 1::2, 1::2]
    torch.testing.assert_close(out[:, :2], even)
    torch.testing.assert_close(out[:, 2:], F.conv2d(moved, reduction.odd.weight))


def test_tensors_are_among_those_of_the_network_with_every_skip():
    rng = np.random.default_rng(2)
    everything = set()
    for operation in range(len(OPERATIONS)):
        text = " ".join(" ".join([str(operation), *["1"] * layer]) for layer in range(6))
        everything |= shared(parse(SMALL, text))
    for _ in range(20):
        assert shared(sample(SMALL, rng)) <= everything


def shared(arch):
    builder = FixedBuilder(SMALL, arch)
    with torch.device("meta"):
        model = SMALL.build(builder)
    return {(builder.shared_names(model)[name], t.shape) for name, t in model.state_dict().items()}


def test_one_set_of_weights_serves_every_network():
    supernet = Supernet(SMALL).eval()
    supernet.load_state_dict(randomised(supernet, seed=0))
    rng = np.random.default_rng(4)
    x = torch.randn(2, *SMALL.input)
    for _ in range(6):
        arch = sample(SMALL, rng)
        alone = supernet.extract(arch).eval()(x)
        assert alone.abs().max() > 1e-3
        assert torch.equal(supernet.network(arch)(x), alone)
        assert torch.equal(supernet(x, supernet.gates(arch)), alone)
        assert discretize(SMALL, one_hot_weights(SMALL, arch, supernet.slots)) == arch


# ----------------------------------------------------------------------- notation and graph


def test_notation_is_the_authors():
    space = EnasMacro(layers=3)
    arch = parse(space, "3  5 1\n 0 0 1")
    assert arch.picks == (
        ("layer0", "sep_conv_5x5"),
        ("layer1", "max_pool_3x3"),
        ("layer1/from0", 1),
        ("layer2", "conv_3x3"),
        ("layer2/from0", 0),
        ("layer2/from1", 1),
    )
    assert space.format(arch) == "3\n5 1\n0 0 1"


def test_published_network_uses_convolutions_only():
    space, arch = published("enas_macro:ENAS_macro")
    operations = [arch[f"layer{i}"] for i in range(24)]
    assert operations.count("sep_conv_3x3") == 2
    assert set(operations) == set(OPERATIONS[:4])
    assert sum(arch[f"layer{i}/from{s}"] for i in range(24) for s in range(i)) == 98
    assert space.format(arch).splitlines()[3] == "2 0 0 1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 1", "expected 6 numbers"),
        ("0 1 0 1 0 0 1", "got 7 words"),
        ("6 1 0 1 0 0", "below 6"),
        ("0 1 2 1 0 0", "'layer1/from0'"),
        ("0 1 a 1 0 0", "expected 6 numbers"),
        ("", "got 0 words"),
    ],
)
def test_bad_notation_is_refused(text, says):
    with pytest.raises(InvalidArchitecture, match=says):
        EnasMacro(layers=3).parse(text)


def test_graph_of_a_network():
    space = EnasMacro(layers=3)
    graph = space.graphs(parse(space, "3 5 1 0 0 1"))["network"]
    operations = ("input", "sep_conv_5x5", "max_pool_3x3", "conv_3x3", "output")
    assert graph.operations == operations
    assert graph.links == {(0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (1, 3)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"channels": 1}, "channels must be at least 2"),
        ({"growth": 0}, "growth"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"input": (32, 32)}, r"\(32, 32\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises((ConfigError, ValueError), match=says):
        EnasMacro(**arguments)


def test_exported_networks_run_alone(tmp_path):
    export_and_run(SMALL, tmp_path)
