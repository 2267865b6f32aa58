"""The breakdown by layer: its rows add up to what counting gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_spaces import SMALL
from torch import nn

from nas.cost import LayerCost, architecture_breakdown, breakdown, count
from nas.errors import UnsupportedRequest
from nas.space import network, sample


class Product(nn.Module):
    """Works in its own forward, beside a layer that it calls twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        y = self.layer(self.layer(x))
        return y @ y.transpose(1, 2)


def test_rows_by_hand():
    net = nn.Sequential(Product(), nn.ReLU()).train()
    assert breakdown(net, (5, 4)) == [
        LayerCost("", 0, "Sequential()", (1, 5, 5), 28, 260, 0),
        LayerCost("0", 1, "Product()", (1, 5, 5), 28, 260, 100),
        LayerCost(
            "0.layer",
            2,
            "Linear(in_features=4, out_features=4, bias=False)",
            (1, 5, 4),
            16,
            160,
            160,
        ),
        LayerCost("0.unused", 2, "Linear(in_features=3, out_features=3, bias=True)", (), 12, 0, 0),
        LayerCost("1", 1, "ReLU(inplace=False)", (1, 5, 5), 0, 0, 0),
    ]
    assert net.training
    assert not net[0]._forward_hooks


def test_a_shared_layer_has_one_row_and_shared_weights_count_once():
    layer = nn.Linear(4, 4)
    tied = nn.Linear(4, 4, bias=False)
    tied.weight = layer.weight
    rows = breakdown(nn.Sequential(layer, layer, tied), (4,))
    assert [(row.path, row.parameters, row.macs) for row in rows] == [
        ("", 20, 48),
        ("0", 20, 32),
        ("2", 0, 16),
    ]


def test_a_network_that_runs_for_real_is_not_counted_twice():
    class ReadsValues(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            y = self.layer(x)
            return y if float(y.sum()) > 1e9 else self.layer(y)

    rows = breakdown(ReadsValues(), (4,))
    assert [row.own_macs for row in rows] == [0, 32]


@pytest.mark.parametrize("name", SMALL)
def test_rows_add_up_to_the_counted_cost(name):
    space, rng = SMALL[name](), np.random.default_rng(4)
    for _ in range(2):
        arch = sample(space, rng)
        with torch.device("meta"):
            net = network(space, arch)
        cost, rows = count(net, space.input), architecture_breakdown(space, arch)
        assert rows == breakdown(net, space.input)
        assert (rows[0].path, rows[0].parameters, rows[0].macs) == (
            "",
            cost.parameters,
            cost.macs,
        )
        assert sum(row.own_macs for row in rows) == cost.macs
        for row in rows:
            inside = [other for other in rows if other.path.startswith(f"{row.path}.")]
            if row.path:
                assert row.macs == row.own_macs + sum(other.own_macs for other in inside)


def test_wrong_input_is_refused_and_hooks_are_gone():
    net = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(UnsupportedRequest, match="does not take an input"):
        breakdown(net, (3,))
    assert not net[0]._forward_hooks
    assert not net[0]._forward_pre_hooks
