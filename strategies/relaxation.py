"""The relaxation that most differentiable strategies are: parameters to gates, slot by slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from nas.supernet import Gate, Gates, Supernet

GateOf = Callable[[torch.Tensor, float], Gate]
"""A slot's gate, of its parameters (options,) and the share of the search that is done."""


def softmax(parameters: torch.Tensor, progress: float = 1.0) -> torch.Tensor:
    """The softmax of a slot's parameters, at any time."""
    return parameters.softmax(0)


class OptionRelaxation:
    """One parameter an option, of every slot and every depth that is open.

    Args:
        gate: draws from torch's generator where it samples.
        mean: the weights that a gate stands for on average, of a slot's parameters.
        extra: what an architecture step minimises besides the loss, of all parameters and the
            share of the search that is done.
        scale: of the normal distribution that the parameters are drawn from.
    """

    def __init__(
        self,
        gate: GateOf = softmax,
        mean: Callable[[torch.Tensor], torch.Tensor] = softmax,
        extra: Callable[[Mapping[str, torch.Tensor], float], torch.Tensor] | None = None,
        scale: float = 1e-3,
    ) -> None:
        self.gate = gate
        self.mean = mean
        self.extra = extra
        self.scale = scale

    def parameters(self, supernet: Supernet) -> dict[str, nn.Parameter]:
        return {
            label: nn.Parameter(self.scale * torch.randn(len(options)))
            for label, options in supernet.open_gates().items()
        }

    def gates(self, parameters: Mapping[str, torch.Tensor], progress: float) -> Gates:
        return {label: self.gate(values, progress) for label, values in parameters.items()}

    def mean_gates(self, parameters: Mapping[str, torch.Tensor]) -> Gates:
        return {label: self.mean(values) for label, values in parameters.items()}

    def loss(
        self, loss: torch.Tensor, parameters: Mapping[str, torch.Tensor], progress: float
    ) -> torch.Tensor:
        return loss if self.extra is None else loss + self.extra(parameters, progress)

    def weights(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
        return {label: self.mean(values.detach()).tolist() for label, values in parameters.items()}
