"""The networks that searches by gradients train: search forms, partial channels, edge weights."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from gradient_workloads import EDGES, OPTIONS, Edges
from small_spaces import SMALL
from test_supernet import SHARED, inputs, randomised
from torch import nn
from torch.nn import functional as F

from nas.errors import ConfigError, UnsupportedRequest
from nas.space import network, sample
from nas.supernet import (
    EdgeGate,
    Form,
    Sparse,
    Supernet,
    discretize,
    nodes,
    partial_channels,
    search_form,
)
from nas.supernet.discretize import one_hot_weights
from nas.supernet.mixture import Current, Mixed
from nas.supernet.partial import PartialChannels
from search_spaces.darts import Darts
from search_spaces.nasbench201 import NasBench201


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_of_the_published_supernets():
    space = Darts(channels=16, cells=8)
    assert parameters(Supernet(space, search_form(space))) == 1_930_618
    assert parameters(Supernet(space, search_form(space, partial_channels(4)))) == 299_578


@pytest.mark.parametrize("name", SHARED)
def test_discretizing_an_architecture_gives_it_back(name):
    space = SMALL[name]()
    slots = Supernet(space).slots
    rng = np.random.default_rng(0)
    for _ in range(30):
        arch = sample(space, rng)
        assert discretize(space, one_hot_weights(space, arch, slots)) == arch


@pytest.mark.parametrize("space", [SMALL["darts"](), SMALL["nasbench201"]()], ids=lambda s: s.name)
def test_a_search_form_has_norms_without_scale_in_cells_alone(space):
    supernet = Supernet(space, search_form(space))
    cells = [module for module in supernet.modules() if type(module).__name__ == "Cell"]
    inside = {norm for cell in cells for norm in cell.modules() if isinstance(norm, nn.BatchNorm2d)}
    outside = {n for n in supernet.modules() if isinstance(n, nn.BatchNorm2d)} - inside
    assert inside
    assert outside
    assert all(not norm.affine and norm.weight is None for norm in inside)
    assert all(norm.affine and norm.weight is not None for norm in outside)


def test_the_search_form_of_darts_has_a_norm_behind_each_pool():
    space = SMALL["darts"]()
    supernet = Supernet(space, search_form(space))
    seen = 0
    for slot in [module for module in supernet.modules() if isinstance(module, Mixed)]:
        for name in slot.options:
            if "pool" in name:
                pool, norm = slot.option(name)
                assert isinstance(pool, nn.MaxPool2d | nn.AvgPool2d)
                assert norm.num_features == slot.option("sep_conv_3x3").c_out
                seen += 1
    assert seen == 2 * 14 * space.cells


@pytest.mark.parametrize("space", [SMALL["darts"](), SMALL["nasbench201"]()], ids=lambda s: s.name)
def test_networks_inherit_from_a_search_form_all_but_scale_and_shift(space):
    supernet = randomised(Supernet(space, search_form(space))).eval()
    shared = supernet.state_dict()
    rng = np.random.default_rng(2)
    for _ in range(4):
        arch = sample(space, rng)
        extracted = supernet.extract(arch)
        assert list(extracted.state_dict()) == list(network(space, arch).state_dict())
        ones = zeros = 0
        for path, module in extracted.named_modules():
            if isinstance(module, nn.BatchNorm2d) and ("edges" in path or "prepare" in path):
                ones += bool((module.weight == 1).all())
                zeros += bool((module.bias == 0).all())
                assert not (module.running_mean == 0).any()
        assert ones == zeros > 0
        convolutions = [m.weight for m in extracted.modules() if isinstance(m, nn.Conv2d)]
        assert all(any(torch.equal(c, s) for s in shared.values()) for c in convolutions)
        x = inputs(space)
        with torch.no_grad():
            assert torch.equal(extracted(x), supernet.network(arch)(x))


def test_gradients_of_a_path_land_in_a_search_form_too():
    space = SMALL["darts"]()
    supernet = randomised(Supernet(space, search_form(space)))
    arch = sample(space, np.random.default_rng(0))
    supernet.network(arch)(inputs(space, n=4)).square().sum().backward()
    touched = [name for name, p in supernet.named_parameters() if p.grad is not None]
    assert any("edges" in name for name in touched)


# ------------------------------------------------------------------------- partial channels


def partial_slot(parts, stride=1, channels=8):
    options = {
        "none": None,
        "skip": nn.Identity if stride == 1 else functools.partial(nn.AvgPool2d, 2, stride=2),
        "conv": functools.partial(Convolution, c_in=channels, c_out=channels, stride=stride),
    }
    current = Current()
    slot = partial_channels(parts)("a->b", options, current)
    return slot, current


class Convolution(nn.Module):
    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride, padding=1)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("parts", [2, 4])
def test_partial_channels_are_what_the_paper_draws(parts, stride):
    slot, current = partial_slot(parts, stride)
    conv = slot.mixture.option("conv")
    assert conv.conv.weight.shape[:2] == (8 // parts, 8 // parts)
    x = torch.randn(3, 8, 6, 6)
    gate = torch.tensor([0.5, 0.2, 0.3])
    current.gates = {"a->b": EdgeGate(gate, torch.tensor(0.7))}
    width = 8 // parts
    seen, past = x[:, :width], x[:, width:]
    skip = seen if stride == 1 else F.avg_pool2d(seen, 2)
    joined = [*(0.2 * skip + 0.3 * conv(seen)).unbind(1)]
    joined += [*(past if stride == 1 else F.max_pool2d(past, 2)).unbind(1)]
    # Written out: channel g·width + i of the joined goes to place i·parts + g.
    shuffled = [None] * 8
    for group in range(parts):
        for index in range(width):
            shuffled[index * parts + group] = joined[group * width + index]
    expected = torch.stack(shuffled, dim=1)
    torch.testing.assert_close(slot(x), 0.7 * expected)
    current.gates = {"a->b": gate}
    torch.testing.assert_close(slot(x), expected)


def test_partial_channels_take_odd_sizes():
    space = Darts(channels=4, cells=3, input=(3, 9, 9))
    supernet = Supernet(space, search_form(space, partial_channels(2)))
    gates = {label: torch.full((len(os),), 0.1) for label, os in supernet.slots.items()}
    assert supernet(inputs(space), gates).shape == (2, 10)


@pytest.mark.parametrize(
    ("parts", "options", "says"),
    [
        (3, {"conv": functools.partial(Convolution, c_in=8, c_out=8)}, "8 channels, no multiple"),
        (2, {"conv": functools.partial(Convolution, c_in=8, c_out=4)}, "makes 4 channels of 8"),
        (2, {"conv": lambda: Convolution(8, 8)}, "'conv' of slot 'a->b' has weights, but is no"),
    ],
)
def test_options_that_cannot_be_narrower_are_refused_by_name(parts, options, says):
    with pytest.raises(UnsupportedRequest, match=says):
        partial_channels(parts)("a->b", options, None)
    with pytest.raises(ConfigError, match="at least 2, got 1"):
        partial_channels(1)


def test_weights_of_partial_channels_are_no_networks():
    space = Edges()
    supernet = Supernet(space, search_form(space, partial_channels(2)))
    assert sum(isinstance(m, PartialChannels) for m in supernet.modules()) == 3
    arch = discretize(space, {label: [0, 0, 0, 0, 1] for label in EDGES})
    with pytest.raises(UnsupportedRequest, match="no part of the shared one"):
        supernet.extract(arch)


# ----------------------------------------------------------------------------- edge weights


def test_an_edge_weight_multiplies_what_its_gate_gives():
    supernet = randomised(Supernet(Edges())).double().eval()
    x = inputs(Edges()).double()
    weights = {label: torch.rand(5, dtype=torch.float64) for label in EDGES}
    edges = {label: torch.rand((), dtype=torch.float64, requires_grad=True) for label in EDGES}
    for kind in (lambda w: w, lambda w: Sparse(w, (1, 3, 4))):
        out = supernet(x, {k: EdgeGate(kind(w), edges[k]) for k, w in weights.items()})
        scaled = supernet(x, {k: kind(w * edges[k].detach()) for k, w in weights.items()})
        torch.testing.assert_close(out, scaled, rtol=1e-12, atol=1e-12)
    out.sum().backward()
    assert all(edge.grad != 0 for edge in edges.values())


def test_edges_are_grouped_by_the_node_they_lead_to():
    assert nodes(NasBench201().slots(sample(NasBench201(), np.random.default_rng(0))), "x") == {
        "1": ["0->1"],
        "2": ["0->2", "1->2"],
        "3": ["0->3", "1->3", "2->3"],
    }
    found = nodes(Supernet(SMALL["darts"]()).slots, "x")
    assert found["reduce/3"] == [f"reduce/{source}->3" for source in range(3)]
    assert [len(edges) for edges in found.values()] == [2, 3, 4, 5] * 2
    assert nodes(["normal/4/left<-2", "normal/4/left<-0"], "x") == {
        "normal/4/left": ["normal/4/left<-2", "normal/4/left<-0"]
    }
    with pytest.raises(UnsupportedRequest, match="x: slot 'op3' is no edge"):
        nodes(["0->1", "op3"], "x")


def test_a_form_without_changes_is_the_plain_mixture():
    torch.manual_seed(0)
    plain = Supernet(Edges())
    torch.manual_seed(0)
    other = Supernet(Edges(), Form())
    assert list(plain.state_dict()) == list(other.state_dict())
    assert search_form(Edges()) == Form()
    assert len(OPTIONS) == len(plain.slots["0->1"])
