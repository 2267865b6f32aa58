"""SynFlow: the logarithm of Σ w · ∂R/∂w with absolute weights, R the sum of the outputs for ones.

Tanaka, Kunin, Yamins & Ganguli, "Pruning neural networks without any data by iteratively conserving
synaptic flow", NeurIPS 2020; as a score: Abdelfattah et al., ICLR 2021. All parameters are taken
by their absolute value, in double precision, and norms are left out: a batch norm would undo
what the product of the weights measures. The logarithm keeps the order of networks; the sum itself
grows exponentially with their depth. Data are not needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from nas.trial import NotFinite
from nas.zero_cost.probe import Batch, run, weights

NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def synflow_score(
    network: nn.Module, batch: Batch, wanted: frozenset[str], where: str
) -> Mapping[str, float]:
    tensors = weights(network, "synflow", where)
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.abs().double()
    norms = [module for module in network.modules() if isinstance(module, NORMS)]
    before = [vars(module).get("forward") for module in norms]
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                module._buffers[name] = buffer.double()
    try:
        for module in norms:
            module.forward = _same  # type: ignore[method-assign]  # put back below
        ones = torch.ones_like(batch.images[:1], dtype=torch.float64)
        logits, _ = run(network, ones)
    finally:
        for module, forward in zip(norms, before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward  # type: ignore[method-assign]
    found = torch.autograd.grad(logits.sum(), tensors, allow_unused=True)
    total = sum(
        float((w.detach() * g).sum()) for w, g in zip(tensors, found, strict=True) if g is not None
    )
    if not 0 < total < math.inf:
        raise NotFinite(f"synflow of {where}: the logarithm of {total}")
    return {"synflow": math.log(total)}


def _same(x: torch.Tensor, *_: object) -> torch.Tensor:
    return x
