"""Activations and norms by name, so that a network's description can choose them."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "hsigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "none": lambda channels: nn.Identity(),
}


def make_activation(name: str) -> nn.Module:
    """A new module of the activation of that name: a key of ``ACTIVATIONS``."""
    if name not in ACTIVATIONS:
        raise ValueError(f"no activation {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def make_norm(name: str, channels: int) -> nn.Module:
    """A new module of the norm of that name for (N, channels, H, W): a key of ``NORMS``.

    ``group`` has 32 groups, or as many of those as divide the channels (Wu & He, ECCV 2018);
    ``layer`` norms channels and positions of an example together (Ba et al., 2016).
    """
    if name not in NORMS:
        raise ValueError(f"no norm {name!r}, expected one of {', '.join(NORMS)}")
    return NORMS[name](channels)
