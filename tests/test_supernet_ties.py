"""Which channels a forward pass ties, on small networks: each is sorted soundly or left alone."""

from __future__ import annotations

import re

import pytest
import torch
from test_supernet import inputs, randomised
from torch import nn
from torch.nn import functional as F

from nas.described import described
from nas.space import from_picks
from nas.supernet import Supernet
from nas.supernet.importance import sort_channels
from nas.supernet.ties import Ties


class Runs(nn.Module):
    """Layers by name, and a function that runs them."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


def between(run, **layers):
    """A network of 3×3 images: a convolution, what is tried, and a classifier."""

    def describe(builder):
        width = builder.number("width", (4, 12))
        made = {name: layer(width) for name, layer in layers.items()}
        out = run(Runs(run, **made), torch.zeros(2, width, 3, 3)).flatten(1).shape[1]
        return nn.Sequential(
            nn.Conv2d(2, width, 1), Runs(run, **made), nn.Flatten(), nn.Linear(out, 3)
        )

    return describe


def conv(width):
    return nn.Conv2d(width, width, 3, padding=1)


def tokens(run):
    """What works on tokens, from images and back."""
    return lambda m, x: run(m, x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


def standardised(m, x):
    weight = m.a.weight - m.a.weight.mean(dim=(1, 2, 3), keepdim=True)
    return F.conv2d(x, weight, m.a.bias, padding=1)


def gated(m, x):
    a, b = m.a(x).chunk(2, dim=1)
    return a * b


def attended(m, x):
    scores = (m.a(x) @ m.b(x).transpose(-2, -1)).softmax(dim=-1)
    return scores @ x


SORTED = {
    "flattened": between(lambda m, x: x),
    "residual": between(lambda m, x: x + m.a(x), a=conv),
    "depthwise": between(lambda m, x: m.a(x), a=lambda w: nn.Conv2d(w, w, 3, padding=1, groups=w)),
    "squeezed": between(lambda m, x: x * m.a(x.mean((2, 3), keepdim=True)).sigmoid(), a=conv),
    "prelu": between(lambda m, x: m.a(x), a=nn.PReLU),
    "one prelu": between(lambda m, x: m.a(x), a=lambda w: nn.PReLU()),
    "instance norm": between(lambda m, x: m.a(x), a=lambda w: nn.InstanceNorm2d(w, affine=True)),
    "one group": between(lambda m, x: m.a(x), a=lambda w: nn.GroupNorm(1, w)),
    "pool": between(lambda m, x: F.max_pool2d(F.pad(x, (1, 1)), 2)),
    "layer norm": between(tokens(lambda m, x: m.a(x)), a=nn.LayerNorm),
    "rms norm": between(tokens(lambda m, x: m.a(x)), a=nn.RMSNorm),
    "perceptron": between(
        tokens(lambda m, x: m.b(m.a(x).relu())),
        a=lambda w: nn.Linear(w, 2 * w),
        b=lambda w: nn.Linear(2 * w, w),
    ),
    "embedded places": between(
        tokens(lambda m, x: x + m.a(torch.arange(9, device=x.device))),
        a=lambda w: nn.Embedding(9, w),
    ),
    "used twice": between(lambda m, x: m.a(m.a(x).relu()), a=conv),
    "first token": between(lambda m, x: x[..., 0]),
    "unflattened": between(lambda m, x: x.flatten(1).unflatten(1, (-1, 3, 3))),
}

UNREAD = {
    "one head": between(tokens(attended), a=lambda w: nn.Linear(w, w), b=lambda w: nn.Linear(w, w)),
    "fused attention": between(
        tokens(lambda m, x: F.scaled_dot_product_attention(m.a(x), m.b(x), x)),
        a=lambda w: nn.Linear(w, w),
        b=lambda w: nn.Linear(w, w),
    ),
    "computed weights": between(standardised, a=conv),
}

ALONE = {
    "groups": (
        between(lambda m, x: m.a(x), a=lambda w: nn.Conv2d(w, w, 1, groups=2)),
        "in 2 groups",
    ),
    "group norm": (between(lambda m, x: m.a(x), a=lambda w: nn.GroupNorm(2, w)), "group_norm"),
    "halves": (
        between(gated, a=lambda w: nn.Conv2d(w, 2 * w, 1)),
        "chunk tells its entries by their positions",
    ),
    "joined": (between(lambda m, x: torch.cat((x, m.a(x)), dim=1), a=conv), "cat tells"),
    "shuffled": (
        between(lambda m, x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)),
        r"reshaped to \(2, 6\)",
    ),
    "first half": (between(lambda m, x: x[:, : x.shape[1] // 2]), "taken by position"),
    "divided by its norm": (
        between(lambda m, x: x / x.norm(2, 1, keepdim=True)),
        "norm may tell its entries",
    ),
    "rolled": (between(lambda m, x: x.roll(1, dims=1)), "roll may tell its entries"),
    "constant": (
        between(lambda m, x: x * torch.arange(x.shape[1], device=x.device).view(-1, 1, 1)),
        "arange may tell",
    ),
    "flattened behind": (between(lambda m, x: x.transpose(1, 2)), "flattened behind"),
}


def supernet_of(describe):
    describe.__name__ = "tried"
    space = described(describe, input=(2, 3, 3), classes=3)
    return randomised(Supernet(space)).double().eval()


def sort(supernet):
    """The result, and how far the largest network is from what it was."""
    largest = from_picks(supernet.space, {"width": 12})
    x = inputs(supernet.space, n=4).double()
    with torch.no_grad():
        before = supernet.network(largest)(x)
        done = sort_channels(supernet, largest)
        return done, float((supernet.extract(largest)(x) - before).abs().max() / before.abs().max())


@pytest.mark.parametrize("name", sorted(SORTED))
def test_what_is_understood_is_sorted(name):
    supernet = supernet_of(SORTED[name])
    done, difference = sort(supernet)
    assert difference < 1e-10
    assert [group.reason for group in done.groups if group.reason] == []
    # In front of what is tried and behind it, or in between.
    assert {"0.weight", "3.weight"} <= set(done.permutations)
    assert not sort(supernet)[0].permutations


@pytest.mark.parametrize("name", sorted(ALONE))
def test_what_tells_channels_apart_is_left_alone_with_the_reason(name):
    describe, reason = ALONE[name]
    supernet = supernet_of(describe)
    done, difference = sort(supernet)
    assert difference < 1e-10
    place = ("1.a.weight" if name == "halves" else "0.weight", 0)
    (group,) = (group for group in done.groups if place in group.inner)
    assert re.search(reason, group.reason), group.reason
    assert place not in {(name, d) for name, moved in done.permutations.items() for d, _ in moved}


@pytest.mark.parametrize("name", sorted(UNREAD))
def test_what_only_values_read_is_left_alone(name):
    supernet = supernet_of(UNREAD[name])
    done, difference = sort(supernet)
    assert difference < 1e-10
    assert {group.reason for group in done.groups if group.reason} == {"no weights read it"}


def test_a_network_that_cannot_be_followed_is_left_alone_whole():
    def describe(builder):
        width = builder.number("width", (4, 12))
        switch = Runs(lambda m, x: x * float(x.sum() > 0))
        return nn.Sequential(nn.Conv2d(2, width, 3), switch, nn.Flatten(), nn.Linear(width, 3))

    supernet = supernet_of(describe)
    done, difference = sort(supernet)
    assert difference == 0
    assert done.groups
    assert not done.permutations
    assert all("cannot be listed" in group.reason for group in done.groups)


def test_channels_of_several_entries_are_tied_to_channels_of_more():
    ties = Ties()
    image, flat, wide = ties.at(("conv", 0)), ties.at(("linear", 1)), ties.at(("scale", 0))
    ties.tie(flat, image._replace(inner=9))
    ties.tie(wide, flat)
    ((inner, reason),) = ties.groups()
    assert inner == {("conv", 0): 1, ("linear", 1): 9, ("scale", 0): 9}
    assert reason == ""
    # The same 36 entries as four of nine and as nine of four have no order in common.
    ties.tie(flat, image._replace(inner=4))
    ((_, reason),) = ties.groups()
    assert "another order" in reason


def test_a_reason_holds_for_all_that_is_tied_later():
    ties = Ties()
    one, other = ties.at(("a", 0)), ties.at(("b", 1))
    ties.fix(one, "first")
    ties.fix(one, "second")
    ties.tie(other, one)
    ties.tie(ties.at(("c", 0)), "an order of its own")
    assert dict(_by_name(ties)) == {"a": "first", "b": "first", "c": "an order of its own"}


def _by_name(ties):
    for inner, reason in ties.groups():
        for name, _ in inner:
            yield name, reason
