"""What a network keeps: how many parameters, and how many bytes a device stores for them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

BYTES = 4  # of a float32


def kept_tensors(module: nn.Module) -> Iterator[tuple[torch.Tensor, bool]]:
    """A module's own parameters (``True``) and persistent floating buffers (``False``)."""
    for parameter in module._parameters.values():
        if parameter is not None:
            yield parameter, True
    fleeting = module._non_persistent_buffers_set
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in fleeting and buffer.is_floating_point():
            yield buffer, False


def parameters_and_weight_bytes(network: nn.Module) -> tuple[int, int]:
    """Both for a whole network; a shared tensor counts once."""
    seen: set[int] = set()
    parameters = numbers = 0
    for module in network.modules():
        for tensor, learnt in kept_tensors(module):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                parameters += tensor.numel() if learnt else 0
                numbers += tensor.numel()
    return parameters, numbers * BYTES
