"""Activations, norms and channel attention, each against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from nas.layers.activations import ACTIVATIONS, NORMS, make_activation, make_norm
from nas.layers.attention import (
    EfficientChannelAttention,
    SqueezeExcitation,
    divisible,
    eca_kernel_size,
)

FORMULAS = {
    "relu": lambda x: x.clamp(min=0),
    "relu6": lambda x: x.clamp(0, 6),
    "hswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "swish": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "hsigmoid": lambda x: (x + 3).clamp(0, 6) / 6,
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "identity": lambda x: x,
}


def test_every_activation_has_a_formula():
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_formula(name):
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    torch.testing.assert_close(make_activation(name)(x), FORMULAS[name](x))


def test_each_call_makes_a_module_of_its_own():
    assert make_activation("relu") is not make_activation("relu")


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no activation 'hswich', expected one of relu, .*hswish"):
        make_activation("hswich")
    with pytest.raises(ValueError, match="no norm 'bath', expected one of batch, group"):
        make_norm("bath", 8)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("channels", [1, 12, 48, 64])
def test_a_norm_norms_what_it_says(name, channels):
    x = torch.randn(4, channels, 5, 6) * 3 + 2
    y = make_norm(name, channels).train()(x)
    if name == "none":
        assert torch.equal(y, x)
        return
    together = {
        "batch": lambda t: t.transpose(0, 1).reshape(channels, -1),
        "group": lambda t: t.reshape(4 * math.gcd(32, channels), -1),
        "layer": lambda t: t.reshape(4, -1),
    }[name](y)
    torch.testing.assert_close(together.mean(1), torch.zeros(len(together)), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        together.var(1, correction=0), torch.ones(len(together)), atol=1e-3, rtol=0
    )


# -------------------------------------------------------------------------------- attention


@pytest.mark.parametrize(
    ("value", "divisor", "expected"),
    [
        (16, 8, 16),
        (18, 8, 24),  # 16 would be more than a tenth below
        (18, 4, 20),
        (17.7, 8, 16),
        (3, 8, 8),
        (4.4, 1, 4),
        (134.4, 8, 136),
        (240, 8, 240),
    ],
)
def test_channels_are_rounded_as_in_the_mobilenets(value, divisor, expected):
    assert divisible(value, divisor) == expected


@pytest.mark.parametrize("gate", ["sigmoid", "hsigmoid"])
@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_squeeze_and_excitation_is_two_layers_on_the_means(activation, gate):
    module = SqueezeExcitation(12, 4, activation, gate)
    x = torch.randn(3, 12, 5, 7)
    _, first, _, second, _ = module.weigh
    hidden = FORMULAS[activation](F.linear(x.mean((2, 3)), first.weight[..., 0, 0], first.bias))
    scale = FORMULAS[gate](F.linear(hidden, second.weight[..., 0, 0], second.bias))
    torch.testing.assert_close(module(x), torch.einsum("nchw,nc->nchw", x, scale))


def test_efficient_channel_attention_reads_the_neighbours():
    module = EfficientChannelAttention(3)
    left, middle, right = module.conv.weight.detach().flatten()
    x = torch.randn(2, 6, 4, 5)
    means = x.mean((2, 3))
    scale = torch.zeros(2, 6)
    for channel in range(6):
        scale[:, channel] = middle * means[:, channel]
        if channel > 0:
            scale[:, channel] += left * means[:, channel - 1]
        if channel < 5:
            scale[:, channel] += right * means[:, channel + 1]
    expected = x * FORMULAS["sigmoid"](scale)[:, :, None, None]
    torch.testing.assert_close(module(x), expected)


def test_the_kernel_of_efficient_channel_attention_is_the_papers():
    sizes = {64: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7}
    assert {channels: eca_kernel_size(channels) for channels in sizes} == sizes
