"""A moving average of the weights, which is better than the last ones.

Polyak & Juditsky, SIAM J. Control Optim. 30(4), 1992; with the settings of TensorFlow's mobile
networks (MobileNetV3, MnasNet): the decay starts low, (1 + step) / (10 + step), so that a short
training is not an average with its initial weights, and the statistics of batch norms are
averaged as the weights are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn


class Average:
    """The moving average of a network's state, beginning with what it is now.

    Args:
        decay: of what is averaged already, a step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Takes in the state after a step, counted from 0 over the whole training."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, 1.0 - decay)
            else:  # a counter has no mean
                self.state[name].copy_(tensor)

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from an average that was stored."""
        put(self.state, state)

    @contextlib.contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """The network with the average; afterwards it is as it was."""
        target = network.state_dict()
        before = {name: tensor.clone() for name, tensor in target.items()}
        put(target, self.state)
        try:
            yield
        finally:
            put(target, before)


@torch.no_grad()
def put(target: Mapping[str, torch.Tensor], source: Mapping[str, torch.Tensor]) -> None:
    """Copies tensors into those of the same names."""
    for name, tensor in target.items():
        tensor.copy_(source[name])
