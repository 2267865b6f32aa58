"""Costs: exact integers, against hand counts, published tables and two other counters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nas.architecture import Architecture
from nas.cost import NetworkCost, architecture_cost, count
from nas.errors import UnsupportedRequest
from nas.space import network, sample
from search_spaces.chain import Chain
from search_spaces.nasbench201 import NasBench201

FLOAT = 4
SPACES = [NasBench201(channels=8, cells=2, input=(3, 17, 17)), Chain(input=(3, 20, 20))]


# ------------------------------------------------------------------------- by hand


def test_chain_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    image, features = 3 * 64 * FLOAT, 8 * 64 * FLOAT
    assert count(net, (3, 8, 8)) == NetworkCost(
        parameters=3 * 8 * 9 + 8 + 512 * 10 + 10,
        macs=3 * 8 * 9 * 64 + 5120,
        # The convolution's operands; the ReLU writes in place, the flattening is a view.
        peak_memory_bytes=image + features,
        weight_bytes=4 * (3 * 8 * 9 + 8 + 512 * 10 + 10),
    )


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, x):
        return x + self.second(F.relu(self.norm(self.first(x))))


def test_residual_by_hand():
    # While the second convolution runs, its input, its output and the kept x are live.
    assert count(Residual(), (4, 6, 6)) == NetworkCost(
        parameters=2 * 144 + 8,
        macs=2 * 144 * 36,
        peak_memory_bytes=3 * 4 * 36 * FLOAT,
        # The norm keeps a mean and a variance a channel beside its parameters.
        weight_bytes=(2 * 144 + 8 + 8) * FLOAT,
    )


class Concat(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(2, 3, 1, bias=False)
        self.right = nn.Conv2d(2, 5, 1, bias=False)

    def forward(self, x):
        return torch.cat([self.left(x), self.right(x)], dim=1)


def test_concat_by_hand():
    # The concatenation needs 3 + 5 channels and the 8 it writes; x is dead by then.
    assert count(Concat(), (2, 5, 5)) == NetworkCost(
        parameters=16, macs=16 * 25, peak_memory_bytes=16 * 25 * FLOAT, weight_bytes=16 * FLOAT
    )


def test_norm_and_activation_write_in_place_and_a_pool_does_not():
    elementwise = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Hardswish(), nn.PReLU())
    assert count(elementwise, (4, 8, 8)).peak_memory_bytes == 4 * 64 * FLOAT
    pool = nn.MaxPool2d(3, stride=1, padding=1)
    assert count(pool, (4, 8, 8)).peak_memory_bytes == 2 * 4 * 64 * FLOAT


def test_what_is_needed_later_is_not_written_over():
    class Kept(nn.Module):
        def forward(self, x):
            return F.relu(x), x

    assert count(Kept(), (4, 8, 8)).peak_memory_bytes == 2 * 4 * 64 * FLOAT


def test_a_view_keeps_its_base_alive():
    class OneChannel(nn.Module):
        def forward(self, x):
            part = x[:, :1]
            pooled = F.max_pool2d(part, 2)
            return F.interpolate(pooled, scale_factor=2.0) + part

    # The slice holds all 4 channels until the sum, beside 1/4 and 1 channel.
    assert count(OneChannel(), (4, 8, 8)).peak_memory_bytes == (4 * 64 + 16 + 64) * FLOAT


def test_a_broadcast_operand_is_not_written_over():
    class Gate(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x.mean(dim=(2, 3), keepdim=True))

    assert count(Gate(), (4, 8, 8)).peak_memory_bytes == (4 * 64 + 4) * FLOAT


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4), (8, 9, 9), 25 * 12 * 2 * 9),
        (nn.ConvTranspose2d(8, 12, 3, stride=2, groups=2), (8, 5, 5), 25 * 8 * 6 * 9),
        (nn.Conv1d(2, 3, 5), (2, 11), 7 * 2 * 3 * 5),
        (nn.Linear(7, 9), (4, 7), 4 * 63),
        (nn.Linear(7, 9, bias=False), (7,), 63),
        (nn.BatchNorm2d(3), (3, 4, 4), 0),
        (nn.AvgPool2d(2), (3, 4, 4), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_macs_by_hand(layer, shape, macs):
    assert count(layer, shape).macs == macs


class Attention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x[:, :, :3], x[:, :, :3])


class Constant(nn.Module):
    """Keeps a tensor that is neither weight nor buffer, so it cannot run on meta tensors."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.constant = torch.ones(1)

    def forward(self, x):
        return self.layer(x) * self.constant


def test_attention_counts_both_products():
    # 2 heads, 5 queries, 3 keys, 4 dimensions: scores and their weighted sums.
    assert count(Attention(), (2, 5, 4)).macs == 2 * (2 * 5 * 3 * 4)
    # The same run for real goes through a fused kernel.
    assert count(Constant(Attention()), (2, 5, 4)).macs == 2 * (2 * 5 * 3 * 4)


def test_transformer_layer_equals_torch_counter():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found, run_for_real = count(layer, (5, 8)), count(Constant(layer), (5, 8))
    assert found.macs == run_for_real.macs == _torch_macs(layer, (5, 8)) > 0


def test_shared_weights_count_once_and_work_twice():
    layer = nn.Linear(4, 4, bias=False)
    found = count(nn.Sequential(layer, layer), (4,))
    assert (found.parameters, found.macs, found.weight_bytes) == (16, 32, 64)


def test_weight_bytes_are_of_what_the_state_dict_keeps_in_floats():
    class Buffers(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", torch.ones(3))
            self.register_buffer("computed", torch.ones(5), persistent=False)
            self.register_buffer("steps", torch.ones(7, dtype=torch.int64))
            self.twice = self.weight = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, x):
            return x * self.weight

    found = count(Buffers(), (2,))
    assert (found.parameters, found.weight_bytes) == (2, (2 + 3) * FLOAT)


# ------------------------------------------------------------------- what it leaves alone


def test_network_and_random_state_are_left_as_they_were():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    net[1].eval()
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    count(net, (1, 8, 8))
    assert [module.training for module in net] == [True, False, True]
    assert all(torch.equal(weights[name], tensor) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_tied_weights_stay_tied():
    layer, tied = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
    tied.weight = weight = layer.weight
    net = nn.Sequential(layer, layer, tied)
    assert count(net, (4,)).parameters == 20
    assert layer.weight is weight
    assert tied.weight is weight
    assert not weight.is_meta


def test_costs_are_of_float32_whatever_the_network_is_in():
    net = nn.Conv2d(1, 2, 3)
    assert count(net.double(), (1, 8, 8)) == count(nn.Conv2d(1, 2, 3), (1, 8, 8))


def test_counts_inside_inference_mode():
    net = nn.Linear(3, 4)
    with torch.inference_mode():
        assert count(net, (3,)).macs == 12


def test_wrong_input_is_refused_and_the_mode_restored():
    net = nn.Conv2d(3, 4, 3).train()
    with pytest.raises(UnsupportedRequest, match=r"does not take an input of shape \(5, 8, 8\)"):
        count(net, (5, 8, 8))
    assert net.training


def test_hidden_products_are_refused_by_name():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.bilinear = nn.Bilinear(3, 3, 4)

        def forward(self, x):
            return self.bilinear(x, x)

    with pytest.raises(UnsupportedRequest, match="_trilinear"):
        count(Hidden(), (3,))


# --------------------------------------------------------------------- other counters


def _torch_macs(net, shape):
    with FlopCounterMode(display=False) as counter:
        net.to("meta")(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_parity_with_torch_on_random_architectures(space):
    rng = np.random.default_rng(1)
    for _ in range(25):
        arch = sample(space, rng)
        net = network(space, arch).eval()
        found = count(net, space.input)
        assert architecture_cost(space, arch) == found
        assert found.parameters == sum(p.numel() for p in net.parameters())
        assert found.macs == _torch_macs(net, space.input)
        with torch.device("meta"):
            assert count(network(space, arch), space.input) == found


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # fvcore still traces
def test_parity_with_fvcore_on_random_architectures(space):
    from fvcore.nn import FlopCountAnalysis

    rng = np.random.default_rng(2)
    for _ in range(6):
        # Canonical, because fvcore's trace leaves out operations that lead nowhere.
        net = network(space, space.canonical(sample(space, rng))).eval()
        analysis = FlopCountAnalysis(net, torch.zeros(1, *space.input))
        # fvcore counts norms and pools by default; those are no multiply-accumulates.
        for name in ("batch_norm", "adaptive_avg_pool2d", "avg_pool2d", "mean"):
            analysis.set_op_handle(f"aten::{name}", lambda inputs, outputs: 0)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert count(net, space.input).macs == analysis.total()


# ------------------------------------------------------------- the published benchmark


@pytest.fixture(scope="module")
def table(benchmark_data):
    with np.load(benchmark_data("nb201.npz")) as archive:
        return {key: archive[key] for key in ("ops", "op_names", "params", "flops_m")}


def _architectures(table):
    names = [str(name) for name in table["op_names"]]
    labels = [choice.label for choice in NasBench201.choices]
    for row in table["ops"]:
        picks = zip(labels, (names[index] for index in row), strict=True)
        yield Architecture(NasBench201.name, tuple(picks))


@pytest.mark.parametrize(("column", "classes"), [(0, 10), (1, 100)], ids=["cifar10", "cifar100"])
def test_formula_equals_the_whole_table(table, column, classes):
    space = NasBench201(classes=classes)
    archs = list(_architectures(table))
    assert len(set(archs)) == 15_625
    found = np.array([space.parameters_and_macs(arch) for arch in archs])
    np.testing.assert_array_equal(found[:, 0], table["params"][:, column])
    # The table counts the additions of the classifier's bias as well, one a class.
    flops_m = ((found[:, 1] + classes) / 1e6).astype(np.float32)
    np.testing.assert_array_equal(flops_m, table["flops_m"][:, column].astype(np.float32))


def test_built_networks_equal_the_formula_and_the_table(table):
    archs = list(_architectures(table))
    rng = np.random.default_rng(0)
    for index in rng.choice(len(archs), 200, replace=False):
        column = int(index) % 2
        space = NasBench201(classes=(10, 100)[column])
        found = architecture_cost(space, archs[index])
        assert (found.parameters, found.macs) == space.parameters_and_macs(archs[index])
        assert found.parameters == table["params"][index, column]
