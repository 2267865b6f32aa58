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

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from nas.data import Data
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives
from nas.space import SearchSpace
from nas.supernet import Gates, Supernet
from nas.training import Device
from nas.trial import Proposal, Trial
from strategies.epochs import propose
from strategies.gradient import (
    ArchitectureStep,
    Batch,
    GradientSearch,
    GradientSettings,
    first_order,
)

SETTINGS = GradientSettings()
"""The paper's."""


class SoftmaxRelaxation:
    """One logit an option; the gates are their softmax.

    Args:
        scale: of the normal distribution that the logits are drawn from.
    """

    def __init__(self, scale: float = 1e-3) -> None:
        self.scale = scale

    def parameters(self, supernet: Supernet) -> dict[str, nn.Parameter]:
        return {
            label: nn.Parameter(self.scale * torch.randn(len(options)))
            for label, options in supernet.open_gates().items()
        }

    def gates(self, parameters: Mapping[str, torch.Tensor], progress: float) -> Gates:
        return {label: logits.softmax(0) for label, logits in parameters.items()}

    def loss(
        self, loss: torch.Tensor, parameters: Mapping[str, torch.Tensor], progress: float
    ) -> torch.Tensor:
        return loss

    def weights(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
        return {label: logits.detach().softmax(0).tolist() for label, logits in parameters.items()}


def second_order(search: GradientSearch, training: Batch, validation: Batch) -> None:
    """The gradient of the validation loss at weights one training step further.

    The step is the weight optimiser's own: its momentum and weight decay take part.
    """
    parameters = list(search.parameters.values())
    gates = search.relaxation.gates(search.parameters, search.progress)
    names, weights = zip(*search.supernet.named_parameters(), strict=True)
    constant = {label: gate.detach() for label, gate in gates.items()}  # type: ignore[union-attr]  # second order is of plain weights

    def loss_at(values: Sequence[torch.Tensor], batch: Batch, gates: Gates) -> torch.Tensor:
        tensors = dict(zip(names, values, strict=True))
        logits = torch.func.functional_call(search.supernet, tensors, (batch.images, gates))
        return F.cross_entropy(logits, batch.labels)

    rate = search.weight_optimiser.param_groups[0]["lr"]
    descent = _gradients(loss_at(weights, training, constant), weights)
    unrolled = []
    for weight, gradient in zip(weights, descent, strict=True):
        step = gradient + search.settings.weight_decay * weight.detach()
        moving = search.weight_optimiser.state[weight].get("momentum_buffer")
        if moving is not None:
            step = step + search.settings.momentum * moving
        unrolled.append((weight.detach() - rate * step).requires_grad_())

    loss = search.relaxation.loss(
        loss_at(unrolled, validation, gates), search.parameters, search.progress
    )
    found = _gradients(loss, [*parameters, *unrolled])
    direct, vector = found[: len(parameters)], found[len(parameters) :]

    radius = 0.01 / torch.cat([part.flatten() for part in vector]).norm()
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


class Darts:
    """DARTS: a softmax over the options of every slot, trained by gradient beside the weights.

    Proposes the architecture of the moment after every ``propose_every`` epochs of the search.

    Args:
        data: the training set is cut in half, for weights and architecture.
        order: 1, or 2 for the unrolled gradient.
        settings: of the two optimisers.
        propose_every: epochs of the search a proposal.
        device: ``auto`` is a GPU where there is one.
        threads: of the CPU; more than one is not reproducible to the bit.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        data: Data,
        seed: int = 0,
        order: Literal[1, 2] = 1,
        settings: GradientSettings = SETTINGS,
        propose_every: int = 1,
        device: Device = "auto",
        threads: int = 1,
    ) -> None:
        if order not in STEPS:
            raise ConfigError(f"order must be 1 or 2, got {order!r}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.data = data
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        self.seed = seed
        self.order = order
        self.settings = settings
        self.propose_every = propose_every
        self.device = device
        self.threads = threads
        self._number = 0
        self._search = GradientSearch(
            space,
            data,
            SoftmaxRelaxation(),
            STEPS[order],
            settings,
            seed,
            device,
            threads,
        )

    def ask(self, n: int) -> Sequence[Proposal]:
        proposals = propose(self._search, self._number, self.seed, self.propose_every) if n else []
        self._number += len(proposals)
        return proposals

    def tell(self, trial: Trial) -> None:
        """Nothing: what is learnt is learnt from the data."""

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number, "search": self._search.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = int(state["number"])
        self._search.load_state_dict(state["search"])


STEPS: dict[int, ArchitectureStep] = {1: first_order, 2: second_order}
