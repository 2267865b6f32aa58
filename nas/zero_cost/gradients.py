"""Grad-norm, SNIP and Fisher, of one forward and backward pass.

* ``grad_norm``: Σ over weight tensors of the norm of the loss's gradient. Abdelfattah et al.,
  "Zero-Cost Proxies for Lightweight NAS", ICLR 2021.
* ``snip``: Σ |w · ∂L/∂w|. Lee, Ajanthan & Torr, "SNIP: Single-shot Network Pruning based on
  Connection Sensitivity", ICLR 2019, whose normalisation by the sum is left out: a whole network
  is scored, not its weights among each other.
* ``fisher``: Σ over channels of the outputs of convolutions and linear layers of
  ½ · mean over examples (Σ over places a · ∂L/∂a)². Theis et al., "Faster gaze prediction with
  dense networks and Fisher pruning", 2018; Turner et al., "BlockSwap", ICLR 2020.

The loss is the mean cross-entropy of one labelled batch, batch norm uses the batch's statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nas.errors import UnsupportedRequest
from nas.zero_cost.probe import LAYERS, Batch, loss_of, run, weights


def gradient_scores(
    network: nn.Module, batch: Batch, wanted: frozenset[str], where: str
) -> Mapping[str, float]:
    tensors = weights(network, "/".join(sorted(wanted)), where)
    outputs: list[torch.Tensor] = []
    axes: list[int] = []
    hooks: list[Any] = []

    def keep(layer: nn.Module, _args: Any, output: torch.Tensor) -> None:
        outputs.append(output)
        axes.append(-1 if isinstance(layer, nn.Linear) else 1)

    if "fisher" in wanted:
        layers = [module for module in network.modules() if isinstance(module, LAYERS)]
        if not layers:
            raise UnsupportedRequest(
                f"fisher of {where}: it needs modules that are convolutions or linear layers "
                "(torch.nn's), and there are none"
            )
        hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        logits, _ = run(network, batch.images)
    finally:
        for hook in hooks:
            hook.remove()
    found = torch.autograd.grad(loss_of(logits, batch), [*tensors, *outputs], allow_unused=True)
    # What leads nowhere has no gradient, and counts nothing.
    of_weights = [
        (weight.detach(), gradient)
        for weight, gradient in zip(tensors, found[: len(tensors)], strict=True)
        if gradient is not None
    ]
    scores: dict[str, float] = {}
    if "grad_norm" in wanted:
        scores["grad_norm"] = sum(float(gradient.norm()) for _, gradient in of_weights)
    if "snip" in wanted:
        scores["snip"] = sum(float((weight * g).abs().sum()) for weight, g in of_weights)
    if "fisher" in wanted:
        scores["fisher"] = sum(
            _fisher(output.detach() * gradient, axis)
            for output, gradient, axis in zip(outputs, found[len(tensors) :], axes, strict=True)
            if gradient is not None
        )
    return scores


def _fisher(effect: torch.Tensor, axis: int) -> float:
    by_channel = effect.movedim(axis, 1).flatten(2) if effect.ndim > 2 else effect[..., None]
    return float(by_channel.sum(dim=2).square().mean(dim=0).sum() / 2)
