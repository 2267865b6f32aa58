"""The layers of cell networks: shapes, the reduction without loss, drop path, the two heads."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.basic import ReLUConvBN
from nas.layers.cells import (
    AsymmetricConv,
    AuxiliaryHead,
    Cell,
    CifarStem,
    Concatenate,
    DilConv,
    DropPath,
    FactorizedReduction,
    ImageNetStem,
    SepConv,
    SumOfEdges,
)

MAKERS = {
    "sep3": lambda stride: SepConv(4, 6, kernel_size=3, stride=stride),
    "sep7": lambda stride: SepConv(4, 6, kernel_size=7, stride=stride),
    "dil3": lambda stride: DilConv(4, 6, kernel_size=3, stride=stride),
    "dil5": lambda stride: DilConv(4, 6, kernel_size=5, stride=stride),
    "asymmetric": lambda stride: AsymmetricConv(4, 6, kernel_size=7, stride=stride),
}


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_operations_keep_or_halve_the_size(make, stride, size):
    out = make(stride)(torch.randn(2, 4, *size))
    assert out.shape == (2, 6, *(-(-edge // stride) for edge in size))


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (8, 3), (1, 1), (2, 1)])
def test_factorized_reduction_sees_every_other_place_twice(size):
    torch.manual_seed(0)
    layer = FactorizedReduction(c_in=3, c_out=5).eval()
    x = torch.randn(2, 3, *size)
    out = layer(x)
    assert out.shape == (2, 5, *(-(-edge // 2) for edge in size))
    padded = F.pad(F.relu(x), (0, 1, 0, 1))
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            even = layer.conv_a.weight[:, :, 0, 0] @ padded[0, :, 2 * row, 2 * column]
            odd = layer.conv_b.weight[:, :, 0, 0] @ padded[0, :, 2 * row + 1, 2 * column + 1]
            expected = torch.cat([even, odd]) / (1 + layer.norm.eps) ** 0.5
            torch.testing.assert_close(out[0, :, row, column], expected)


def test_separable_convolution_is_two_of_them():
    torch.manual_seed(0)
    layer = SepConv(c_in=4, c_out=6, kernel_size=5, stride=2).eval()
    x = torch.randn(2, 4, 9, 9)
    halves = [
        (layer.depthwise_a, layer.pointwise_a, 2),
        (layer.depthwise_b, layer.pointwise_b, 1),
    ]
    expected = x
    for depthwise, pointwise, stride in halves:
        # One convolution with the product of both kernels.
        kernel = pointwise.weight * depthwise.weight.transpose(0, 1)
        expected = F.conv2d(F.relu(expected), kernel, stride=stride, padding=2)
        expected = expected / (1 + layer.norm_a.eps) ** 0.5
    torch.testing.assert_close(layer(x), expected)


def test_dilated_convolution_skips_places():
    layer = DilConv(c_in=1, c_out=1, kernel_size=3).eval()
    nn.init.ones_(layer.depthwise.weight)
    nn.init.ones_(layer.pointwise.weight)
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1.0
    rows, columns = layer(x)[0, 0].nonzero().T
    assert sorted(set(rows.tolist())) == sorted(set(columns.tolist())) == [2, 4, 6]
    assert len(rows) == 9


def test_asymmetric_convolution_strides_each_way_once():
    layer = AsymmetricConv(c_in=2, c_out=3, kernel_size=7, stride=2)
    assert layer.conv_row(torch.randn(1, 2, 9, 9)).shape == (1, 3, 9, 5)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 3 * 7 + 3 * 3 * 7 + 6


def test_drop_path_zeroes_whole_examples_and_keeps_the_mean():
    layer = DropPath(probability=0.25)
    torch.manual_seed(0)
    x = torch.rand(4000, 2, 2, 2) + 0.5
    out = layer(x)
    kept = (out != 0).flatten(1)
    assert (kept.all(dim=1) | ~kept.any(dim=1)).all()
    share = kept[:, 0].float().mean().item()
    assert 0.72 < share < 0.78  # four standard deviations of a fair draw
    torch.testing.assert_close(out[kept[:, 0]], x[kept[:, 0]] / 0.75)
    layer.probability = 0.0
    assert torch.equal(layer(x), x)
    layer.probability = 0.9
    assert torch.equal(layer.eval()(x), x)
    assert layer.train()(x.half()).dtype == torch.half


def test_cell_sums_and_joins():
    prepare = ReLUConvBN(3, 2, kernel_size=1).eval()
    nodes = nn.ModuleList(
        [
            SumOfEdges(nn.ModuleDict({"0": nn.Identity(), "1": nn.Identity()})),
            SumOfEdges(nn.ModuleDict({"2": nn.MaxPool2d(3, stride=1, padding=1)})),
        ]
    )
    cell = Cell(prepare, nn.Identity(), nodes, Concatenate(joined=(1, 3)))
    before, last = torch.randn(1, 3, 4, 4), torch.randn(1, 2, 4, 4)
    node = prepare(before) + last
    expected = torch.cat([last, F.max_pool2d(node, 3, stride=1, padding=1)], dim=1)
    assert torch.equal(cell(before, last), expected)


def test_stems():
    first, second = CifarStem(c_in=3, c_out=9)(torch.randn(2, 3, 7, 7))
    assert first is second
    assert first.shape == (2, 9, 7, 7)
    first, second = ImageNetStem(c_in=3, c_out=8)(torch.randn(2, 3, 32, 24))
    assert first.shape == (2, 8, 8, 6)
    assert second.shape == (2, 8, 4, 3)


@pytest.mark.parametrize(("stride", "size"), [(3, 8), (2, 7), (3, 12)])
def test_auxiliary_head(stride, size):
    head = AuxiliaryHead(c_in=6, classes=10, stride=stride)
    assert head(torch.randn(2, 6, size, size)).shape == (2, 10)
    convolutions = 6 * 128 + 128 * 768 * 4
    norms = 2 * 128 + 2 * 768
    assert sum(p.numel() for p in head.parameters()) == convolutions + norms + 768 * 10 + 10
