"""Partial channels: a mixture sees a part of the channels, and the rest goes past it.

Xu et al., "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search",
ICLR 2020.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nas.builder import Factory
from nas.errors import ConfigError, UnsupportedRequest
from nas.supernet.form import Mixture
from nas.supernet.gates import EdgeGate, Gate
from nas.supernet.mixture import Current, Mixed


class PartialChannels(nn.Module):
    """A slot of which the first 1/K of the channels go through the mixture.

    The others go past it, max-pooled 2×2 where the mixture halves the size; then the channels
    are shuffled, so that the next slot's mixture sees others.

    Args:
        mixture: of options that have 1/K of the channels.
        parts: K.
    """

    def __init__(self, mixture: Mixed, parts: int) -> None:
        super().__init__()
        self.mixture = mixture
        self.parts = parts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.mixture.current.of(self.mixture.label)
        if isinstance(gate, EdgeGate):
            return gate.weight * self._joined(x, gate.gate)
        return self._joined(x, gate)

    def _joined(self, x: torch.Tensor, gate: Gate) -> torch.Tensor:
        channels = x.shape[1] // self.parts
        once = self.mixture.current.once
        seen = x[:, :channels] if once is None else once(x, channels, lambda: leading(x, channels))
        mixed = self.mixture.mix(seen, gate)
        past = x[:, channels:]
        if mixed.shape[2:] != past.shape[2:]:
            past = F.max_pool2d(past, 2, stride=2, ceil_mode=True)
        n, c, height, width = (*x.shape[:2], *mixed.shape[2:])
        joined = torch.cat([mixed, past], dim=1).view(n, self.parts, channels, height, width)
        return joined.transpose(1, 2).reshape(n, c, height, width)


def leading(x: torch.Tensor, channels: int) -> torch.Tensor:
    """The first channels, apart from the others, so that they are read in one go."""
    return x[:, :channels].contiguous(memory_format=torch.channels_last)


def partial_channels(parts: int) -> Mixture:
    """How a slot is made whose options have 1/``parts`` of the channels.

    Options are rewritten where they are ``functools.partial`` of a module with ``c_in`` and
    ``c_out``; those without weights are taken as they are.

    Raises:
        ConfigError: ``parts`` is below 2.
    """
    if parts < 2:
        raise ConfigError(f"partial channels: parts must be at least 2, got {parts}")

    def make(label: str, options: Mapping[str, Factory | None], current: Current) -> nn.Module:
        modules = {
            name: None if factory is None else _narrow(label, name, factory, parts)
            for name, factory in options.items()
        }
        return PartialChannels(Mixed(label, modules, current), parts)

    return make


def _narrow(label: str, option: str, factory: Factory, parts: int) -> nn.Module:
    where = f"partial channels: option {option!r} of slot {label!r}"
    made: Any = factory
    if isinstance(made, functools.partial) and {"c_in", "c_out"} <= set(made.keywords):
        c_in, c_out = made.keywords["c_in"], made.keywords["c_out"]
        if c_in != c_out:
            raise UnsupportedRequest(
                f"{where} makes {c_out} channels of {c_in}; the channels that go past it need as "
                "many"
            )
        if c_in % parts:
            raise UnsupportedRequest(f"{where} has {c_in} channels, no multiple of {parts}")
        return made(c_in=c_in // parts, c_out=c_out // parts)
    module = factory()
    if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
        raise UnsupportedRequest(
            f"{where} has weights, but is no functools.partial with c_in and c_out, so it cannot "
            "be made for fewer channels"
        )
    return module
