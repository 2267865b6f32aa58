"""A score that needs no training: the norm of the gradient at initialisation."""

from __future__ import annotations

import torch

from nas.objective import Metric
from nas.space import SearchSpace, network
from nas.trial import Fidelity, Measured, Proposal


class GradientNorm:
    """The gradient's norm on a batch of noise, at random weights.

    Args:
        batch: how many examples of noise.
    """

    metrics = (Metric("gradient_norm", "1", "maximize"),)

    def __init__(self, space: SearchSpace, batch: int = 8) -> None:
        self.space = space
        self.batch = batch

    def evaluate(self, proposal: Proposal) -> Measured:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(proposal.seed)
            model = network(self.space, proposal.arch)
            x = torch.randn(self.batch, *self.space.input)
        model(x).square().mean().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return Measured({"gradient_norm": float(torch.cat(gradients).norm())})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0
