"""Batch-norm statistics of a sub-network, estimated anew.

The statistics of shared weights are an average over whatever paths were trained, and belong to
none of them (Bender et al., "Understanding and Simplifying One-Shot Architecture Search",
ICML 2018; Guo et al., SPOS, ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrate(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Sets the running statistics of every batch norm to the average over these inputs.

    Every batch counts the same. Nothing else is changed; a network without batch norms is not
    even run.

    Args:
        network: runs on the batches as they are; its training mode is restored.
        batches: inputs, (N, …) each, on the network's device.

    Raises:
        ValueError: there is no batch.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    modes = [(module, module.training) for module in network.modules()]
    momenta = [(norm, norm.momentum) for norm in norms]
    seen = 0
    try:
        network.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
            norm.train()
        with torch.no_grad():
            for batch in batches:
                network(batch)
                seen += 1
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    if not seen:
        raise ValueError("recalibration needs at least one batch")
