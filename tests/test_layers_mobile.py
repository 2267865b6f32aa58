"""The mobile blocks: what they compute, and what they cost, from plain layers."""

from __future__ import annotations

import functools

import pytest
import torch
from exporting import assert_clean, export_one, isolated, unused
from torch import nn
from torch.nn import functional as F

from nas.cost import count
from nas.layers import mobile, shuffle

BLOCKS = {
    "conv": mobile.ConvBNAct,
    "squeezed conv": functools.partial(mobile.SqueezedConv, squeezed=2),
    "separable": mobile.SeparableBottleneck,
    "squeezed separable": functools.partial(mobile.SqueezedSeparableBottleneck, squeezed=2),
    "inverted": functools.partial(mobile.InvertedBottleneck, hidden=12),
    "squeezed inverted": functools.partial(
        mobile.SqueezedInvertedBottleneck, hidden=12, squeezed=3, gate="hsigmoid"
    ),
    "grouped": functools.partial(mobile.GroupedInvertedBottleneck, hidden=12, groups=2),
    "fused": functools.partial(mobile.FusedInvertedBottleneck, hidden=12),
    "universal": functools.partial(mobile.UniversalInvertedBottleneck, hidden=12, start_kernel=5),
}


def norms_drawn(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", list(BLOCKS))
def test_blocks_keep_the_size_but_for_the_stride(name, stride):
    block = BLOCKS[name](c_in=4, c_out=6, kernel_size=5, stride=stride, activation="hswish")
    out = block(torch.randn(2, 4, 9, 7))
    assert out.shape == (2, 6, -(-9 // stride), -(-7 // stride))


def norm(x, layer):
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)


def squeeze(x, module):
    _, reduce, _, widen, _ = module.weigh
    small = F.relu(F.conv2d(x.mean((2, 3), keepdim=True), reduce.weight, reduce.bias))
    return F.conv2d(small, widen.weight, widen.bias)


def test_squeezed_inverted_bottleneck_is_what_the_papers_draw():
    torch.manual_seed(0)
    block = norms_drawn(
        mobile.SqueezedInvertedBottleneck(4, 12, 6, 3, squeezed=3, stride=2, gate="hsigmoid")
    )
    x = torch.randn(2, 4, 9, 9)
    h = F.relu(norm(F.conv2d(x, block.expand[0].weight), block.expand[1]))
    h = F.conv2d(h, block.depthwise[0].weight, stride=2, padding=1, groups=12)
    h = F.relu(norm(h, block.depthwise[1]))
    h = h * F.hardsigmoid(squeeze(h, block.squeeze))
    expected = norm(F.conv2d(h, block.project[0].weight), block.project[1])
    torch.testing.assert_close(block(x), expected)


def test_grouped_bottleneck_shuffles_after_its_first_convolution():
    torch.manual_seed(0)
    block = norms_drawn(mobile.GroupedInvertedBottleneck(4, 8, 4, 3, groups=2))
    x = torch.randn(2, 4, 5, 5)
    h = F.relu(norm(F.conv2d(x, block.expand[0].weight, groups=2), block.expand[1]))
    h = h[:, [0, 4, 1, 5, 2, 6, 3, 7]]
    h = F.conv2d(h, block.depthwise[0].weight, padding=1, groups=8)
    h = F.relu(norm(h, block.depthwise[1]))
    expected = norm(F.conv2d(h, block.project[0].weight, groups=2), block.project[1])
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(
    ("start", "inner", "stride", "convolutions"),
    [
        (0, 0, 1, [(1, 1), (1, 1)]),
        (0, 5, 2, [(1, 1), (5, 2), (1, 1)]),
        (3, 0, 2, [(3, 2), (1, 1), (1, 1)]),
        (3, 5, 2, [(3, 1), (1, 1), (5, 2), (1, 1)]),
    ],
)
def test_universal_bottleneck_has_four_forms(start, inner, stride, convolutions):
    block = mobile.UniversalInvertedBottleneck(4, 8, 4, start, inner, stride)
    found = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.stride[0]) for m in found] == convolutions
    # Only the expansion and the inner convolution are activated.
    assert sum(isinstance(m, nn.ReLU) for m in block.modules()) == 1 + bool(inner)


def test_universal_bottleneck_without_depthwise_convolutions_has_no_stride():
    with pytest.raises(ValueError, match="stride of 2"):
        mobile.UniversalInvertedBottleneck(4, 8, 4, 0, 0, stride=2)


def test_what_is_added_to_a_body():
    body = nn.Conv2d(4, 4, 3, padding=1)
    pool = nn.AvgPool2d(3, stride=1, padding=1)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(mobile.Residual(body)(x), x + body(x))
    assert torch.equal(mobile.Shortcut(body, pool)(x), pool(x) + body(x))
    assert torch.equal(mobile.NoShortcut(body)(x), body(x))


def test_layers_in_order():
    one, other = nn.Conv2d(4, 4, 3), nn.ReLU()
    x = torch.randn(2, 4, 5, 5)
    layers = mobile.InOrder(nn.ModuleDict({"b": one, "a": other}))
    assert torch.equal(layers(x), other(one(x)))
    assert list(layers.state_dict()) == ["layers.b.weight", "layers.b.bias"]


def test_resize_is_exact_where_it_can_be():
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert mobile.Resize(2)(x).equal(x)
    assert mobile.Resize(1)(x).item() == 1.5
    assert mobile.Resize(3)(x)[0, 0, 1].tolist() == [1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("block", "parameters", "macs"),
    [
        # 1×1, 3×3 depthwise, 1×1, and twice their outputs for the norms.
        (
            mobile.InvertedBottleneck(4, 24, 6, 3),
            4 * 24 + 9 * 24 + 24 * 6 + 2 * (24 + 24 + 6),
            (4 * 24 + 9 * 24 + 24 * 6) * 64,
        ),
        (
            mobile.FusedInvertedBottleneck(4, 24, 6, 3),
            9 * 4 * 24 + 24 * 6 + 2 * (24 + 6),
            (9 * 4 * 24 + 24 * 6) * 64,
        ),
        (
            shuffle.ShuffleBlock(8, 6, 5),
            4 * 6 + 25 * 6 + 6 * 4 + 2 * (6 + 6 + 4),
            (4 * 6 + 25 * 6 + 6 * 4) * 64,
        ),
    ],
)
def test_costs_by_hand(block, parameters, macs):
    cost = count(block, (8 if isinstance(block, shuffle.ShuffleBlock) else 4, 8, 8))
    assert (cost.parameters, cost.macs) == (parameters, macs)


@pytest.mark.parametrize(
    "block",
    [
        shuffle.ShuffleReduction(4, 5, 10, 7),
        shuffle.ShuffleXceptionReduction(4, 5, 10),
    ],
)
def test_shuffle_reductions_keep_their_shortcut_in_front(block):
    norms_drawn(block)
    x = torch.randn(2, 4, 9, 7)
    out = block(x)
    assert out.shape == (2, 10, 5, 4)
    assert torch.equal(out[:, :4], block.shortcut(x))
    assert torch.equal(out[:, 4:], block.branch(x))


def test_blocks_export_word_for_word(tmp_path):
    def make():
        blocks = [
            block(c_in=4, c_out=4, kernel_size=3, stride=1, activation="swish")
            for block in BLOCKS.values()
        ]
        return nn.Sequential(
            mobile.Resize(6),
            *map(mobile.Residual, blocks),
            mobile.InOrder(nn.ModuleDict({"only": mobile.NoShortcut(nn.ReLU())})),
            mobile.Shortcut(nn.Identity(), nn.AvgPool2d(3, stride=1, padding=1)),
            shuffle.ShuffleBlock(4, 3, 5),
            shuffle.ShuffleXception(4, 3),
            shuffle.ShuffleReduction(4, 3, 6, 7),
            shuffle.ShuffleXceptionReduction(6, 3, 8),
        )

    folder = export_one(make, tmp_path / "out", input=(4, 5, 5))
    done = isolated(str(folder / "model.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "largest difference from the stored output: 0 (" in done.stdout
    assert unused((folder / "model.py").read_text()) == set()
    assert_clean(folder)
