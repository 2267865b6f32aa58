"""The grown chain: networks by hand, and edits that keep the ends of skips."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from exporting import randomised
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nas.cost import architecture_cost
from nas.errors import ConfigError
from nas.plain import plainest
from nas.space import HasEdits, count, enumerate_architectures, network, parse, sample, validate
from nas.testing import SpaceContract
from search_spaces.grown_chain import AddSkip, GrownChain

SMALL = GrownChain(3, (3, 5), (4, 6), spans=(1, 2), input=(3, 9, 9))


class TestGrownChain(SpaceContract):
    def space(self):
        return GrownChain(5, (1, 3), (4, 6, 8), input=(3, 11, 11))

    def small(self):
        return GrownChain(1, (3,), (4, 6), joins=("add", "concat"))


def test_size_is_its_formula():
    def layer(index, spans=4, joins=2):
        return (2 * 4 * 10 * 2 + 1) * (1 + joins * min(spans, index + 1))

    expected = sum(math.prod(map(layer, range(depth))) for depth in range(17))
    assert count(GrownChain()) == expected
    tiny = TestGrownChain().small()
    assert count(tiny) == sum(1 for _ in enumerate_architectures(tiny)) == 1 + 9 * 3


def test_the_plainest_is_a_linear_model_of_the_mean_colours():
    space = GrownChain()
    model = network(space, plainest(space)).eval()
    assert architecture_cost(space, plainest(space)).parameters == 3 * 10 + 10
    x = torch.randn(2, 3, 32, 32)
    head = model.head[1]
    torch.testing.assert_close(model(x), x.mean(dim=(2, 3)) @ head.weight.T + head.bias)


ARCH = (
    "depth=4 layer0/kind=conv layer0/kernel=5 layer0/width=6 layer0/stride=2 layer0/skip=0 "
    "layer1/kind=linear layer1/kernel=3 layer1/width=4 layer1/stride=2 layer1/skip=2 "
    "layer1/join=add layer2/kind=one_to_one layer2/skip=2 layer2/join=concat "
    "layer3/kind=conv layer3/kernel=3 layer3/width=6 layer3/stride=1 layer3/skip=3 layer3/join=add"
)


def test_network_is_what_was_picked():
    space = GrownChain(4, (3, 5), (4, 6), spans=(1, 2, 3), input=(3, 9, 9), classes=4)
    model = network(space, parse(space, ARCH)).eval()
    model.load_state_dict(randomised(model, seed=1))
    w = model.state_dict()

    def norm(x, name):
        stats = [w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *stats)

    x = torch.randn(2, 3, 9, 9)
    one = F.relu(norm(F.conv2d(x, w["layers.0.conv.weight"], None, 2, 2), "layers.0.norm"))
    two = F.conv2d(one, w["layers.1.conv.weight"], None, 2, 1)
    two = two + w["joins.1.scale"] * F.pad(x[:, :, ::4, ::4], (0, 0, 0, 0, 0, 1))
    three = torch.cat([F.relu(norm(two, "layers.2.norm")), one[:, :, ::2, ::2]], dim=1)
    four = F.relu(norm(F.conv2d(three, w["layers.3.conv.weight"], None, 1, 1), "layers.3.norm"))
    four = four + w["joins.3.scale"] * one[:, :, ::2, ::2]
    expected = F.linear(four.mean(dim=(2, 3)), w["head.1.weight"], w["head.1.bias"])
    assert three.shape == (2, 10, 3, 3)
    torch.testing.assert_close(model(x), expected)
    assert architecture_cost(space, parse(space, ARCH)).parameters == sum(
        parameter.numel() for parameter in model.parameters()
    )


def test_an_added_skip_of_scale_zero_changes_nothing():
    x, source = torch.randn(1, 4, 5, 5), torch.randn(1, 7, 9, 9)
    skip = AddSkip(7, 4, 2)
    torch.testing.assert_close(skip(x, source), x + source[:, :4, ::2, ::2])
    skip.scale.data.zero_()
    assert torch.equal(skip(x, source), x)


# ------------------------------------------------------------------------------------ edits


def named(arch):
    """The layers, and for each skip the names of the layers at whose outputs it begins and ends."""
    picks = arch.as_dict()
    return [
        (
            picks[f"layer{i}/kind"],
            *(picks.get(f"layer{i}/{what}") for what in ("kernel", "width", "stride", "join")),
            i - picks[f"layer{i}/skip"] if picks[f"layer{i}/skip"] else None,
        )
        for i in range(picks["depth"])
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_edits_are_of_the_space_and_what_they_are_called(seed):
    space = GrownChain(6, (1, 3), (4, 8, 16, 32), spans=(1, 2, 3))
    assert isinstance(space, HasEdits)
    arch = sample(space, np.random.default_rng(seed))
    before = named(arch)
    for name, edited in space.edits(arch).items():
        assert edited
        assert len(set(edited)) == len(edited)
        for child in edited:
            validate(space, child)
            after = named(child)
            if name.startswith(("insert", "remove_conv")):
                longer, shorter = (after, before) if name[0] == "i" else (before, after)
                assert len(longer) == len(shorter) + 1
                assert any(_without(longer, place) == shorter for place in range(len(longer)))
            else:
                changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
                assert len(changed) == 1
                ((old, new),) = changed
                column = {"filter_size": 1, "alter_channels": 2, "alter_stride": 3}.get(name)
                if column is None:
                    assert (old[-1] is None) == (name == "add_skip")
                    assert (new[-1] is None) == (name == "remove_skip")
                    assert old[:4] == new[:4]
                else:
                    assert (*old[:column], *old[column + 1 :]) == (
                        *new[:column],
                        *new[column + 1 :],
                    )
            if name == "alter_channels":
                assert 0.5 <= new[2] / old[2] <= 2


def _without(layers, gone):
    """The chain without a layer: who read its output reads what went into it."""
    kept = []
    for index, (*shape, source) in enumerate(layers):
        if index != gone:
            kept.append((*shape, source - (source >= gone) if source is not None else None))
    return kept


def test_every_insertion_can_be_taken_back():
    space = GrownChain(5, (3, 5), (4, 8), spans=(1, 2, 3, 4))
    for seed in range(10):
        arch = sample(space, np.random.default_rng(seed))
        for child in space.edits(arch).get("insert_convolution", []):
            assert arch in space.edits(child)["remove_convolution"]


def test_the_linear_model_can_only_be_grown_and_the_longest_chain_not():
    assert set(SMALL.edits(plainest(SMALL))) == {"insert_convolution", "insert_one_to_one"}
    inserted = SMALL.edits(plainest(SMALL))["insert_convolution"]
    assert {(a["layer0/kind"], a["layer0/stride"]) for a in inserted} == {
        (kind, stride) for kind in ("conv", "linear") for stride in (1, 2)
    }
    assert {(a["layer0/kernel"], a["layer0/width"]) for a in inserted} == {(3, 4)}
    longest = next(
        arch
        for seed in range(99)
        if (arch := sample(SMALL, np.random.default_rng(seed)))["depth"] == 3
    )
    assert not {"insert_convolution", "insert_one_to_one"} & set(SMALL.edits(longest))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"kernels": (1, 5)}, "3 among them"),
        ({"kernels": (2, 3)}, "odd"),
        ({"widths": (8, 4)}, "widths.*ascend"),
        ({"widths": ()}, "a width"),
        ({"strides": (2,)}, "strides from 1 on"),
        ({"spans": (0, 1)}, "spans must be positive"),
        ({"joins": ("sum",)}, "'add' and 'concat'"),
        ({"input": (8, 8)}, "channels, height, width"),
    ],
)
def test_nonsense_is_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        GrownChain(**arguments)
