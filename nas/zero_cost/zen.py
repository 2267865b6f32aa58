"""Zen-score: how much the features change with the input, corrected for what batch norm rescales.

Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", ICCV 2021. With
weights and inputs drawn from N(0, 1): ln E‖f(x) − f(x + 0.01 e)‖ + Σ over batch norms of
½ ln(mean variance of what they are given), f the last feature map before pooling. What differs:
residual connections stay (the paper takes them out of its own blocks).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nas.errors import UnsupportedRequest
from nas.trial import NotFinite
from nas.zero_cost.probe import LAYERS, Batch, run

ALPHA = 0.01


def zen_score(
    network: nn.Module, batch: Batch, wanted: frozenset[str], where: str
) -> Mapping[str, float]:
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise UnsupportedRequest(
            f"zen of {where}: it needs batch norms (the variance they take away is what it "
            "corrects for), and there are none"
        )
    for module in network.modules():
        if isinstance(module, LAYERS):
            module.weight.data = torch.randn_like(module.weight)
            if module.bias is not None:
                module.bias.data = torch.zeros_like(module.bias)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    run(network, batch.images[:2])  # raises where nothing connects input and output
    maps: list[torch.Tensor] = []
    variances: list[torch.Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim > 2 and output[0, 0].numel() > 1:
            maps[:] = [output]

    def measure(_module: nn.Module, args: Any) -> None:
        axes = [axis for axis in range(args[0].ndim) if axis != 1]
        variances.append(args[0].var(dim=axes, unbiased=False).mean())

    hooks: list[Any] = [module.register_forward_hook(keep) for module in network.modules()]
    measuring: list[Any] = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        with torch.no_grad():
            network(batch.images)
            first = list(maps)
            for hook in measuring:
                hook.remove()
            network(batch.images + ALPHA * torch.randn_like(batch.images))
    finally:
        for hook in (*hooks, *measuring):
            hook.remove()
    if not first:
        raise UnsupportedRequest(
            f"zen of {where}: it needs a feature map before the pooling, and no module gives one"
        )
    change = float((first[0] - maps[0]).flatten(1).norm(dim=1).mean())
    # The norm of a constant (of what has no input) rescales nothing.
    rescaled = sum(math.log(variance) / 2 for variance in map(float, variances) if variance > 0)
    if change <= 0:
        raise NotFinite(f"zen of {where}: the features do not change with the input")
    return {"zen": math.log(change) + rescaled}
