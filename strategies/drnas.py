"""DrNAS: gates drawn from a Dirichlet distribution whose concentration is learnt.

Chen et al., "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021. The concentration of an
option is elu(β) + 1, one at the start; gradients go through the samples. Adam's weight decay on
β is the official code's (ℓ2) form of the pull towards the initial concentration.

What differs from the paper: no progressive stages (of more channels and fewer options). The
settings are those of the official NAS-Bench-201 code without them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.distributions import Dirichlet
from torch.nn import functional as F

from strategies.differentiable import DifferentiableStrategy
from strategies.gradient import GradientSearch, GradientSettings
from strategies.relaxation import OptionRelaxation

SETTINGS = GradientSettings(epochs=100)


def concentration(beta: torch.Tensor) -> torch.Tensor:
    """The Dirichlet concentration of a slot's parameters; never quite zero."""
    return (F.elu(beta) + 1).clamp_min(1e-6)


def draw(beta: torch.Tensor, progress: float) -> torch.Tensor:
    """Weights from the Dirichlet distribution of a slot's parameters, with gradients to them."""
    return Dirichlet(concentration(beta)).rsample()


def mean(beta: torch.Tensor) -> torch.Tensor:
    """The mean of that distribution."""
    return concentration(beta) / concentration(beta).sum()


@dataclass(eq=False, repr=False)
class DrNas(DifferentiableStrategy):
    """DrNAS: gates drawn from a learnt Dirichlet distribution, with gradients through the draws."""

    settings: GradientSettings = SETTINGS

    def search(self) -> GradientSearch:
        return self.gradient_search(OptionRelaxation(draw, mean))
