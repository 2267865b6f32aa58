"""Networks taken apart into operations: nothing lost, nothing counted twice, always the same."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from mobile_workloads import mobile
from small_spaces import SMALL
from torch import nn

from nas.cost import architecture_cost
from nas.cost.counting import Tally
from nas.described import described
from nas.errors import InvalidArchitecture, UnsupportedRequest
from nas.latency import units as taking
from nas.latency.operations import operations
from nas.latency.units import units
from nas.layers import GlobalAveragePool
from nas.space import parse, sample
from nas.testing.toys import FlatSpace
from search_spaces.nasbench201 import NasBench201


def drawn(space, many, seed=0):
    rng = np.random.default_rng(seed)
    return [sample(space, rng) for _ in range(many)]


QUICK = ("chain", "darts", "enas_macro", "mbconv", "nasbench201", "spos")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALL],
)
def test_operations_do_all_the_work_of_a_network(name):
    space = SMALL[name]()
    arch = drawn(space, 1)[0]
    tally = Tally()
    for one in units(space, arch):
        module, inputs = one.module(space), one.example()
        with torch.no_grad(), tally:
            module(*inputs)
    assert tally.macs == architecture_cost(space, arch).macs > 0


@pytest.mark.parametrize("name", ["mbconv", "nasbench201", "proxylessnas"])
def test_the_operations_of_a_space_are_those_of_its_architectures(name):
    space = SMALL[name]()
    known = operations(space)
    met = {one.key for arch in drawn(space, 20, seed=5) for one in units(space, arch)}
    assert met <= set(known)


def test_operations_of_some_architectures_are_only_those():
    space = mobile()
    archs = drawn(space, 2)
    known = operations(space, archs)
    assert set(known) == {one.key for arch in archs for one in units(space, arch)}


def test_a_mobile_block_is_one_operation():
    space = mobile()
    arch = parse(space, "stage1/block1/op=ir_k5_e4 stage1/block2/op=skip "
                        "stage2/block1/op=ir_k3_e4 stage2/block2/op=ir_k3_e4")  # fmt: skip
    kinds = [one.title.partition("(")[0] for one in units(space, arch)]
    assert kinds == [
        "ConvBNAct", "Residual", "InvertedBottleneck", "Residual", "ConvBNAct",
        "GlobalAveragePool", "Linear",
    ]  # fmt: skip


def test_a_cell_is_its_edges_and_their_sums():
    space = NasBench201(channels=3, cells=2, input=(3, 8, 8))
    arch = parse(
        space, "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"
    )
    found = Counter(one.title.partition(" @")[0].partition("(")[0] for one in units(space, arch))
    # 3 stages of 2 cells, each with two convolutions, a pool and a sum; skips are free.
    assert found["ReLUConvBN"] == 12
    assert found["AvgPool2d"] == 6
    assert found["add"] == 6
    assert "Identity" not in found


def test_an_operation_is_its_arguments_and_shapes_wherever_it_stands():
    space = NasBench201(channels=4, cells=3, input=(3, 8, 8))
    arch = drawn(space, 1)[0]
    keys = [one.key for one in units(space, arch)]
    assert len(set(keys)) < len(keys)  # the cells of a stage are the same
    wider = {one.key for one in units(NasBench201(channels=6, cells=3, input=(3, 8, 8)), arch)}
    larger = {one.key for one in units(NasBench201(channels=4, cells=3, input=(3, 9, 9)), arch)}
    pairs = {one.key for one in units(space, arch, batch=2)}
    assert not set(keys) & (wider | pairs)
    # Behind the pooling the size of the image is nothing to a layer.
    assert {key.partition("(")[0] for key in set(keys) & larger} == {"Linear"}


def test_keys_are_the_same_when_nothing_is_remembered_and_in_another_process():
    space = mobile()
    arch = drawn(space, 1)[0]
    keys = [one.key for one in units(space, arch)]
    assert [one.key for one in units(space, arch)] == keys
    taking._known.clear()
    assert [one.key for one in units(space, arch)] == keys
    code = (
        "from mobile_workloads import mobile; from nas.latency.units import units\n"
        "from nas.architecture import Architecture\n"
        f"print([one.key for one in units(mobile(), Architecture.from_json({arch.to_json()!r}))])"
    )
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(keys)


def test_random_state_is_left_alone():
    before = torch.get_rng_state()
    space = SMALL["mbconv"]()
    for one in units(space, drawn(space, 1)[0]):
        one.module(space)
        one.example()
    assert torch.equal(torch.get_rng_state(), before)


class ByValue(nn.Module):
    """Reads a value of its input, which meta tensors do not have."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(1, width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if float(x.sum()) < 1 else self.conv(2 * x)


def by_value(builder):
    width = builder.number("width", (2, 3))
    return nn.Sequential(ByValue(width), GlobalAveragePool(), nn.Linear(width, 2))


def test_a_network_that_reads_values_is_run_for_real():
    space = described(by_value, input=(1, 5, 5), classes=2)
    titles = [one.title for one in units(space, parse(space, "width=3"))]
    assert titles[0] == "ByValue(width=3) @ 1x1x5x5"
    assert len(operations(space)) == 6


def broken(builder):
    return nn.Sequential(nn.Conv2d(3, builder.number("width", (2, 3)), 3), nn.Linear(2, 2))


def test_what_cannot_be_run_is_refused():
    space = described(broken, input=(1, 5, 5), classes=2)
    with pytest.raises(UnsupportedRequest, match=r"does not take 1 examples of shape \(1, 5, 5\)"):
        units(space, parse(space, "width=2"))
    with pytest.raises(InvalidArchitecture):
        units(FlatSpace(), parse(space, "width=2"))


def outside(builder):
    return Branches(builder.number("width", (2, 3)))


class Branches(nn.Module):
    """Computes outside of its modules, with arguments that are no tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, width, 1) for _ in range(3)])
        self.head = nn.Linear(3 * width, 2)
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(8)])  # not all are called

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([layer(x) for layer in self.layers], dim=1)
        return self.head(torch.clamp(x, min=-1.0, max=0.5).mean((2, 3)))


def test_functions_outside_of_modules_are_called_as_they_were():
    space = described(outside, input=(1, 4, 4), classes=2)
    found = {one.title.partition(" @")[0]: one for one in units(space, parse(space, "width=2"))}
    assert list(found)[1:4] == ["cat", "clamp", "mean"]
    cat = found["cat"]
    assert cat.inputs == ((1, 2, 4, 4),) * 3
    assert torch.equal(cat.module(space)(*cat.example()), torch.cat(cat.example(), 1))
    clamp = found["clamp"]
    x = 3 * torch.randn(1, 6, 4, 4)
    assert torch.equal(clamp.module(space)(x), x.clamp(-1.0, 0.5))
