"""The cost reading on descriptions that are not plain: exact, or counted, never wrong."""

from __future__ import annotations

import copy
import functools
import threading
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.architecture import Architecture, Choice
from nas.cost import NetworkCost, architecture_cost, count, reading, slot_table, standin
from nas.cost.recorder import NotPlain
from nas.errors import InvalidArchitecture, UnsupportedRequest
from nas.space import network, next_choice


@dataclass(frozen=True)
class Space:
    """One choice, described by the function of the same name below."""

    description: str
    input: tuple[int, ...] = (4, 6, 6)
    classes: int = 2

    name = "described/v1"
    choices = (Choice("op", ("a", "b")), Choice("n", (1, 2)))

    def legal(self, prefix):
        return next_choice(self.choices, prefix)

    def canonical(self, arch):
        return arch

    def slots(self, arch):
        return {"op": str(arch["op"])}

    def build(self, builder):
        return globals()[self.description](builder)


def _arch(op="a", n=1):
    return Architecture(Space.name, (("op", op), ("n", n)))


def _counted(space, arch):
    cost = count(network(space, arch), space.input)
    return cost.parameters, cost.macs, cost.peak_memory_bytes, cost.weight_bytes


class Block(nn.Module):
    def __init__(self, c, kernel_size=3):
        super().__init__()
        self.c = c
        self.conv = nn.Conv2d(c, c, kernel_size, padding=kernel_size // 2)
        self.norm = nn.BatchNorm2d(c)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


OPTIONS = {"a": functools.partial(Block, 4), "b": functools.partial(Block, 4, kernel_size=5)}


class Twice(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x):
        y = self.first(x)
        return self.second(y) + x


# ------------------------------------------------------------- what the reading follows


def placed_anew(builder):
    return Twice(builder.slot("op", OPTIONS), builder.slot("op", OPTIONS))


def placed_twice(builder):
    module = builder.slot("op", OPTIONS)
    return Twice(module, module)


class AsksClass(nn.Module):
    def __init__(self, op):
        super().__init__()
        self.op = op
        self.wide = nn.Conv2d(op.c, 2 * op.c, 1) if isinstance(op, Block) else nn.Identity()

    def forward(self, x):
        return self.wide(self.op(x))


def shows_its_class_and_arguments(builder):
    return AsksClass(builder.slot("op", OPTIONS))


class InPlace(nn.Module):
    def forward(self, x):
        y = F.max_pool2d(x, 3, stride=1, padding=1)
        y += x
        y[:, :2].relu_()
        z, index = y.flatten(2).max(dim=2)
        parts = torch.cat([z, index.float()], dim=1).split([3, 5], dim=1)
        grid = torch.arange(3, dtype=torch.float32).expand_as(parts[0])
        return {"out": parts[0] * grid, "all": [parts[1], x.shape[1] * x.new_ones(1)]}


def views_and_structures(builder):
    return nn.Sequential(builder.slot("op", OPTIONS), InPlace())


def attention(builder):
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    return nn.Sequential(builder.slot("op", OPTIONS), nn.Flatten(2), Swap(), layer)


class Swap(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def _cell(builder, c):
    blocks = builder.depth("n", lambda index: builder.slot("op", OPTIONS))
    return nn.Sequential(*blocks, nn.Conv2d(c, c, 1))


def in_parts(builder):
    return nn.Sequential(*[builder.part(_cell, 4) for _ in range(3)])


def closures(builder):
    c = 4
    return nn.Sequential(builder.slot("op", {key: lambda: Block(c) for key in "ab"}))


def opaque_values(builder):
    # 1 and True are equal, and mean different layers here.
    return nn.Sequential(
        builder.slot("op", {"a": functools.partial(Typed, 1), "b": functools.partial(Typed, True)})
    )


class Typed(nn.Module):
    def __init__(self, flag):
        super().__init__()
        self.conv = nn.Conv2d(4, 8 if flag is True else 2, 1)

    def forward(self, x):
        return self.conv(x)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(4, 4))
        self.register_buffer("mask", torch.ones(4, 1, 1))

    def forward(self, x):
        mixed = torch.einsum("oc,nchw->nohw", self.scale.t() * 2, x)
        return (mixed * self.mask).mean((2, 3)), x


def own_parameters(builder):
    return nn.Sequential(builder.slot("op", OPTIONS), Own())


FOLLOWED = [
    "placed_anew",
    "placed_twice",
    "shows_its_class_and_arguments",
    "views_and_structures",
    "attention",
    "in_parts",
    "closures",
    "opaque_values",
    "own_parameters",
]


@pytest.mark.parametrize("description", FOLLOWED)
def test_the_reading_equals_counting(description):
    space = Space(description)
    for _ in range(2):  # new, then from memory
        for op in "ab":
            for n in (1, 2):
                arch = _arch(op, n)
                assert reading.read(space, arch) == _counted(space, arch)
    reading.forget()
    assert reading.read(space, _arch()) == _counted(space, _arch())


def test_memory_is_of_the_shape_met():
    for input in ((4, 6, 6), (4, 9, 5), (4, 6, 6)):
        space = Space("in_parts", input)
        assert reading.read(space, _arch()) == _counted(space, _arch())


# ------------------------------------------------------- what it does not, and is counted


def changes_what_is_inside(builder):
    module = builder.slot("op", OPTIONS)
    module.conv = nn.Conv2d(4, 4, 1)
    return nn.Sequential(module)


def looks_inside(builder):
    module = builder.slot("op", OPTIONS)
    return nn.Sequential(module.conv, nn.ReLU())


def walks_over_modules(builder):
    net = nn.Sequential(builder.slot("op", OPTIONS))
    for module in list(net.modules()):
        if isinstance(module, nn.Conv2d):
            module.bias = None
    return net


class Shared(nn.Module):
    def __init__(self, op):
        super().__init__()
        self.op = op

    def forward(self, x):
        return F.conv2d(self.op(x), self.op.conv.weight, padding=1)


def ties_weights(builder):
    return Shared(builder.slot("op", {"a": OPTIONS["a"], "b": OPTIONS["a"]}))


class ReadsValues(nn.Module):
    def forward(self, x):
        return x if float(x.sum()) > 1e9 else F.avg_pool2d(x, 2)


def reads_values(builder):
    return nn.Sequential(builder.slot("op", OPTIONS), ReadsValues())


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.values = torch.ones(4, 1, 1, device="cpu")

    def forward(self, x):
        return x * self.values


def keeps_a_constant(builder):
    return nn.Sequential(builder.slot("op", OPTIONS), Constant())


def copies(builder):
    module = builder.slot("op", OPTIONS)
    return nn.Sequential(module, copy.deepcopy(module))


class Squeezes(nn.Module):
    def forward(self, x):
        y = x.mean((2, 3), keepdim=True)
        y.squeeze_(-1)
        return y @ y.transpose(1, 2)


def changes_a_shape_in_place(builder):
    return nn.Sequential(builder.slot("op", OPTIONS), Squeezes())


class Operator(nn.Module):
    def forward(self, x):
        return torch.ops.aten.mm.default(x.flatten(1).t(), x.flatten(1))


COUNTED = [
    "changes_what_is_inside",
    "looks_inside",
    "walks_over_modules",
    "ties_weights",
    "reads_values",
    "keeps_a_constant",
    "changes_a_shape_in_place",
    "copies",
]


@pytest.mark.parametrize("description", COUNTED)
def test_what_cannot_be_followed_is_counted(description):
    space = Space(description)
    for op in "ab":
        assert architecture_cost(space, _arch(op)) == NetworkCost(*_counted(space, _arch(op)))
        with pytest.raises(Exception) as raised:  # noqa: PT011  # anything but a wrong number
            reading.read(space, _arch(op))
        assert not isinstance(raised.value, AssertionError)


def operators(builder):
    return nn.Sequential(builder.slot("op", OPTIONS), Operator())


def test_operators_past_the_functions_are_not_missed():
    space = Space("operators")
    assert architecture_cost(space, _arch()) == NetworkCost(*_counted(space, _arch()))


def test_errors_are_those_of_the_built_network():
    with pytest.raises(UnsupportedRequest, match="does not take an input"):
        architecture_cost(Space("placed_anew", (3, 6, 6)), _arch())
    with pytest.raises(InvalidArchitecture, match="'c' is not an option"):
        architecture_cost(Space("placed_anew"), _arch("c"))
    # Equal to a remembered one in Python, but not an architecture.
    architecture_cost(Space("placed_anew"), _arch(n=1))
    with pytest.raises(InvalidArchitecture):
        architecture_cost(Space("placed_anew"), _arch(n=1.0))


def test_a_stand_in_in_training_is_refused():
    module = standin.stand_in(OPTIONS["a"])
    assert isinstance(module, Block)
    assert module.c == 4
    with pytest.raises(NotPlain, match="training"):
        module(torch.empty(1, 4, 6, 6))
    with pytest.raises(NotPlain, match="conv is asked for"):
        _ = module.conv


def test_nothing_of_torch_is_left_changed():
    state, fused = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    for description in ("attention", "reads_values", "own_parameters"):
        architecture_cost(Space(description, (4, 7, 7)), _arch())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled() is fused
    assert torch.is_grad_enabled()
    assert not torch.empty(1).is_meta


def test_threads_read_one_after_the_other():
    found = {}

    def work(index):
        arch = _arch("ab"[index % 2])
        found[index] = [reading.read(Space("in_parts"), arch) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, costs in found.items():
        assert set(costs) == {_counted(Space("in_parts"), _arch("ab"[index % 2]))}
    assert len(found) == 4


# ---------------------------------------------------------------------- tables refused


def shapes_differ(builder):
    return nn.Sequential(
        builder.slot("op", {"a": OPTIONS["a"], "b": functools.partial(nn.Conv2d, 4, 4, 3)})
    )


def depends(builder):
    op = builder.edge("op", {"a": OPTIONS["a"], "b": None})
    return nn.Sequential(*([nn.Conv2d(4, 4, 1)] if op is None else [op]))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("shapes_differ", "slot 'op' give different shapes"),
        ("in_parts", "'n' is a depth"),
        ("depends", "is no sum over slots"),
        ("shows_its_class_and_arguments", "asked for 'c'|is no sum"),
    ],
)
def test_there_is_no_table_where_costs_are_no_sum(description, message):
    with pytest.raises(UnsupportedRequest, match=message):
        slot_table(Space(description))


def test_the_table_adds_up_all_places_of_a_slot():
    table = slot_table(Space("placed_anew"))
    for op in "ab":
        parameters, macs, _, weight_bytes = _counted(Space("placed_anew"), _arch(op))
        assert table.total({"op": op}) == (parameters, macs, weight_bytes)
