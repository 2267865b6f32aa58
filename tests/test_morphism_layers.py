"""The rules of single layers, against what the papers say and what is worked out by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from morphing import CHAIN, Sequence, chain, child_of, difference, grow, randomised
from torch import nn

from nas.errors import UnsupportedRequest
from nas.layers import ConvBNReLU, GlobalAveragePool
from nas.layers.attention import SqueezeExcitation
from nas.morphism import Grows
from nas.morphism.plan import find_plan
from nas.morphism.trace import trace
from nas.space import network

INPUT = (3, 7, 7)


def head(channels):
    return [GlobalAveragePool(), nn.Linear(channels, 5)]


def row(*layers):
    return nn.Sequential(*layers)


def preserved(parent, child, seed=0):
    found = grow(parent, child, INPUT, seed)
    assert not isinstance(found, str), found
    one, other, plan = found
    assert difference(one, other, INPUT) <= 1e-5
    return one, other, plan


# --------------------------------------------------------------------------------- wider


def test_wider_is_net2wider():
    """Outgoing weights are divided by how often a channel is there; the rest is copied."""
    arch, wide = chain((3, 4, 1), (3, 6, 1)), chain((3, 9, 1), (3, 6, 1))
    parent = randomised(network(CHAIN, arch))
    child, _ = child_of(CHAIN, parent, arch, wide, seed=5)
    one, other = parent.state_dict(), child.state_dict()
    sources = [
        next(k for k in range(4) if torch.equal(row_, one["0.0.conv.weight"][k]))
        for row_ in other["0.0.conv.weight"]
    ]
    assert sources[:4] == [0, 1, 2, 3]
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(other[f"0.0.norm.{name}"], one[f"0.0.norm.{name}"][sources])
    counts = torch.tensor([sources.count(k) for k in sources])[None, :, None, None]
    expected = one["0.1.conv.weight"][:, sources] / counts
    torch.testing.assert_close(other["0.1.conv.weight"], expected, rtol=1e-6, atol=0)
    # The shares of copies with noise are unlike, and add up to the same.
    noisy, _ = child_of(CHAIN, parent, arch, wide, seed=5, noise=0.5)
    changed = noisy.state_dict()["0.1.conv.weight"]
    summed = torch.zeros_like(one["0.1.conv.weight"])
    summed.index_add_(1, torch.tensor(sources), changed)
    torch.testing.assert_close(summed, one["0.1.conv.weight"], rtol=1e-5, atol=1e-7)
    assert not torch.equal(changed, other["0.1.conv.weight"])
    assert difference(parent, noisy, CHAIN.input) <= 1e-5


@settings(max_examples=12, deadline=None)
@given(
    widths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    more=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    kernels=st.tuples(st.sampled_from([1, 3]), st.sampled_from([0, 2])),
    seed=st.integers(0, 99),
)
def test_any_widths_and_kernels(widths, more, kernels, seed):
    def make(a, b, k):
        return row(
            ConvBNReLU(3, a, k, 2),
            nn.Conv2d(a, a, k, padding=k // 2, groups=a, bias=True),
            nn.ReLU6(),
            SqueezeExcitation(a, max(1, a // 2)),
            ConvBNReLU(a, b, 1),
            *head(b),
        )

    kernel, larger = kernels[0], sum(kernels)
    bigger = (widths[0] + more[0], widths[1] + more[1])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        preserved(partial(make, *widths, kernel), partial(make, *bigger, larger), seed)


def test_same_padding_is_read_as_what_it_is():
    def make(kernel, depth):
        def layer(c_in):
            return (nn.Conv2d(c_in, 4, kernel, padding="same"), nn.BatchNorm2d(4), nn.ReLU())

        return row(*layer(3), *(part for _ in range(depth) for part in layer(4)), *head(4))

    preserved(partial(make, 3, 0), partial(make, 5, 0))
    preserved(partial(make, 3, 0), partial(make, 3, 2))


def test_flattened_maps_and_concatenations_are_widened():
    class Joined(nn.Module):
        def __init__(self, a, b):
            super().__init__()
            self.one, self.two = ConvBNReLU(3, a, 3), ConvBNReLU(3, b, 1)
            self.last = nn.Linear((a + b) * 49, 4)

        def forward(self, x):
            joined = torch.cat([self.one(x), self.two(x)], dim=1)
            return self.last(joined.view(joined.size(0), -1))

    preserved(partial(Joined, 3, 4), partial(Joined, 5, 4))
    preserved(partial(Joined, 3, 4), partial(Joined, 3, 7))


# -------------------------------------------------------------------------------- deeper


def test_an_inserted_layer_is_an_identity_with_the_statistics_to_be_expected():
    arch, deep = chain((3, 4, 1)), chain((3, 4, 1), (5, 4, 1))
    torch.manual_seed(0)
    parent = randomised(network(CHAIN, arch))
    child, given_ = child_of(CHAIN, parent, arch, deep)
    assert given_.preserved
    state = child.state_dict()
    kernel = torch.zeros(4, 4, 5, 5)
    kernel[range(4), range(4), 2, 2] = 1
    assert torch.equal(state["0.1.conv.weight"], kernel)
    # The mean and variance of max(0, z) for normal z, by drawing them.
    scale, shift = state["0.0.norm.weight"], state["0.0.norm.bias"]
    drawn = torch.relu(torch.randn(400_000, 4) * scale.abs() + shift)
    mean, var = state["0.1.norm.running_mean"], state["0.1.norm.running_var"]
    torch.testing.assert_close(mean, drawn.mean(0), rtol=0, atol=0.01)
    torch.testing.assert_close(var, drawn.var(0).clamp(min=1e-4), rtol=0.03, atol=0.003)
    torch.testing.assert_close(state["0.1.norm.weight"], (var + 1e-5).sqrt())
    assert torch.equal(state["0.1.norm.bias"], mean)


def test_residual_blocks_begin_as_nothing():
    def block():
        return row(ConvBNReLU(4, 6, 3), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4))

    parent = partial(lambda: row(ConvBNReLU(3, 4, 3), Sequence(block()), *head(4)))
    child = partial(lambda: row(ConvBNReLU(3, 4, 3), Sequence(block(), block()), *head(4)))
    _, other, _ = preserved(parent, child)
    last = other[1][1][-1]
    assert not last.weight.any()
    assert not last.bias.any()
    assert other[1][1][0].conv.weight.any()
    # What is zero is learnt: the gradient reaches the norm at once.
    other.train()(torch.randn(4, *INPUT)).square().sum().backward()
    assert last.weight.grad.abs().max() > 0


def test_a_gate_starts_closed():
    class Gated(nn.Module):
        def __init__(self, gated):
            super().__init__()
            self.first, self.second = ConvBNReLU(3, 4, 3), ConvBNReLU(4, 4, 3)
            self.gate = nn.Parameter(torch.ones(4, 1, 1)) if gated else None
            self.last = nn.Linear(4, 5)

        def forward(self, x):
            x = self.first(x)
            y = self.second(x)
            if self.gate is not None:
                y = y + self.gate * x
            return self.last(y.mean(dim=(2, 3)))

    _, other, _ = preserved(partial(Gated, False), partial(Gated, True))
    assert not other.gate.any()
    assert other.second.conv.weight.any()


@pytest.mark.parametrize("act", [nn.Hardswish, nn.Tanh])
def test_a_layer_is_no_identity_behind_what_its_activation_changes(act):
    def layers():
        return nn.Conv2d(3, 3, 3, padding=1), act()

    def make(depth):
        return row(*(layer for _ in range(depth) for layer in layers()), *head(3))

    found = grow(partial(make, 1), partial(make, 2), INPUT)
    assert isinstance(found, str)
    assert "the parent has no such" in found


def test_padding_that_moves_the_kernel_is_no_growth():
    def make(kernel, padding):
        return row(nn.Conv2d(3, 4, kernel, padding=padding), nn.ReLU(), *head(4))

    assert "not centred" in grow(partial(make, 3, 1), partial(make, 5, 1), INPUT)
    preserved(partial(make, 3, 0), partial(make, 5, 1))


# ---------------------------------------------------------------------- what else may come


def test_other_layers_are_taken_over_where_nothing_is_widened():
    class Odd(nn.Module):
        def __init__(self, kernel):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, kernel, padding=kernel // 2)
            self.norm = nn.GroupNorm(2, 8)
            self.last = nn.Linear(8, 5)

        def forward(self, x):
            one, two = self.norm(self.conv(x)).chunk(2, dim=1)
            x = torch.stack([one, two * two.sigmoid()], dim=2).flatten(1, 2)
            return self.last(x.amax(dim=(2, 3)))

    preserved(partial(Odd, 3), partial(Odd, 3))
    preserved(partial(Odd, 3), partial(Odd, 5))


def test_a_tensor_used_in_two_places_is_not_given_two_contents():
    class Twice(nn.Module):
        def __init__(self, repeats):
            super().__init__()
            self.first = ConvBNReLU(3, 4, 3)
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.last = nn.Linear(4, 5)
            self.repeats = repeats

        def forward(self, x):
            x = self.first(x)
            for _ in range(self.repeats):
                x = self.conv(x).relu()
            return self.last(x.mean(dim=(2, 3)))

    from nas.morphism.weights import Clash

    preserved(partial(Twice, 2), partial(Twice, 2))
    with pytest.raises(Clash, match=r"conv\.weight is used in several places"):
        grow(partial(Twice, 1), partial(Twice, 2), INPUT)


class Doubling(nn.Module):
    """A layer whose rule nobody but itself can know: its weights are kept as logarithms."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.log = nn.Parameter(torch.randn(channels))

    def forward(self, x):
        return x * torch.tensor(self.log.detach().exp().tolist())[:, None, None]

    def grows_from(self, parent, channels):
        return channels if len(channels) == self.channels else None

    def grown(self, weights, channels):
        return {"log": weights["log"][list(channels)]}


def test_a_layer_may_state_its_own_rule():
    assert isinstance(Doubling(3), Grows)

    class Meta(Doubling):
        def forward(self, x):
            return torch.empty_like(x) if x.is_meta else super().forward(x)

    def make(channels):
        return row(ConvBNReLU(3, channels, 3), Meta(channels), *head(channels))

    _, other, _ = preserved(partial(make, 4), partial(make, 7))
    assert len(set(np.round(other[1].log.tolist(), 6))) == 4


def test_networks_that_look_at_values_are_no_graph():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(3, 2)

        def forward(self, x):
            return self.last(x.mean(dim=(2, 3))) if float(x.sum()) > 0 else x

    with torch.device("meta"), pytest.raises(UnsupportedRequest, match="cannot be listed"):
        trace(Looks(), INPUT)
    with torch.device("meta"), pytest.raises(UnsupportedRequest, match="must give one tensor"):
        trace(nn.LSTM(7, 2), INPUT[1:])


def test_a_search_for_a_plan_ends(monkeypatch):
    def make(depth, kernel):
        layers = [ConvBNReLU(4, 4, kernel) for _ in range(depth)]
        return row(ConvBNReLU(3, 4, 3), *layers, *head(4))

    with torch.device("meta"):
        parent, child = (trace(make(*a).eval(), INPUT) for a in ((9, 3), (14, 1)))
    why = find_plan(parent, child)
    assert isinstance(why, str)
    assert "kernel is 1, the parent's 3" in why
    monkeypatch.setattr("nas.morphism.plan.MOST_TRIED", 30)
    assert "given up after 30 tries" in find_plan(parent, child)
