"""DARTS: gates are a softmax, trained by gradient descent beside the weights.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019. First order: the
gradient of the validation loss at the present weights. Second order: at weights one training
step further, whose dependence on the architecture is a Hessian-vector product, taken by finite
differences with ε = 0.01 / ‖v‖ as published.

What differs from the paper: any space whose slots can be mixed is searched, not the DARTS space
alone; there the paper's search network is used (norms without affine parameters, a norm behind
each pool).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from nas.errors import ConfigError
from nas.supernet import Gates
from nas.supernet.parallel import mean
from strategies.differentiable import DifferentiableStrategy
from strategies.gradient import (
    ArchitectureStep,
    Batch,
    GradientSearch,
    GradientSettings,
    first_order,
)
from strategies.relaxation import OptionRelaxation

SETTINGS = GradientSettings()
"""The paper's."""


RADIUS = 0.01
"""Of the finite differences, over the norm of the vector: the paper's."""


def second_order(search: GradientSearch, training: Batch, validation: Batch) -> None:
    """The gradient of the validation loss at weights one training step further.

    The step is the weight optimiser's own, but for the bound on its gradient: momentum and weight
    decay take part. For relaxations whose gates are plain weights and draw nothing.
    """
    parameters = list(search.parameters.values())
    gates = search.relaxation.gates(search.parameters, search.progress)
    names, weights = zip(*search.supernet.named_parameters(), strict=True)
    constant = {label: gate.detach() for label, gate in gates.items()}  # type: ignore[union-attr]  # second order is of plain weights

    def loss_at(values: Sequence[torch.Tensor], batch: Batch, gates: Gates) -> torch.Tensor:
        tensors = dict(zip(names, values, strict=True))
        given = (batch.images, gates)
        return search.loss(
            batch, lambda: torch.func.functional_call(search.supernet, tensors, given)
        )

    rate = search.weight_optimiser.param_groups[0]["lr"]
    # What steps are made of is the gradient over the rows of all processes.
    descent = mean(search.group, _gradients(loss_at(weights, training, constant), weights))
    unrolled = []
    for weight, gradient in zip(weights, descent, strict=True):
        step = gradient + search.settings.weight_decay * weight.detach()
        moving = search.weight_optimiser.state.get(weight, {}).get("momentum_buffer")
        if moving is not None:
            step = step + search.settings.momentum * moving
        unrolled.append((weight.detach() - rate * step).requires_grad_())

    loss = search.architecture_loss(loss_at(unrolled, validation, gates), gates)
    found = _gradients(loss, [*parameters, *unrolled])
    direct, vector = found[: len(parameters)], mean(search.group, found[len(parameters) :])

    radius = RADIUS / torch.cat([part.flatten() for part in vector]).norm()
    sides = []
    for sign in (1.0, -1.0):
        values = [w.detach() + sign * radius * v for w, v in zip(weights, vector, strict=True)]
        gates = search.relaxation.gates(search.parameters, search.progress)
        sides.append(_gradients(loss_at(values, training, gates), parameters))
    for parameter, own, above, below in zip(parameters, direct, *sides, strict=True):
        parameter.grad = own - rate * (above - below) / (2 * radius)


def _gradients(loss: torch.Tensor, of: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients, zero where the loss does not depend on a tensor."""
    found = torch.autograd.grad(loss, of, allow_unused=True)
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(of, found, strict=True)
    ]


STEPS: dict[int, ArchitectureStep] = {1: first_order, 2: second_order}


@dataclass(eq=False, repr=False)
class Darts(DifferentiableStrategy):
    """DARTS: a softmax over the options of every slot, trained by gradient beside the weights.

    Args:
        order: 1, or 2 for the unrolled gradient.
    """

    settings: GradientSettings = SETTINGS
    order: Literal[1, 2] = 1

    def search(self) -> GradientSearch:
        if self.order not in STEPS:
            raise ConfigError(f"order must be 1 or 2, got {self.order!r}")
        return self.gradient_search(OptionRelaxation(), STEPS[self.order])
