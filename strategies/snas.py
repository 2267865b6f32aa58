"""SNAS: soft samples of every edge, and one loss for weights and architecture.

Xie et al., "SNAS: Stochastic Neural Architecture Search", ICLR 2019. Gates are a sample of the
concrete distribution at a falling temperature. Both kinds of parameters descend the loss of the
same batch, of the whole training set; with ``penalty``, the expected cost of the sampled gates
is part of it (the paper's resource constraint, by its reparameterised form).

What differs from the paper: the temperature falls along a line step by step, from 1 to the 0.03
of the official code; what is sampled is shared by all cells of a kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from strategies.differentiable import DifferentiableStrategy
from strategies.gdas import Temperature, gumbel_softmax
from strategies.gradient import GradientSearch, GradientSettings, jointly
from strategies.relaxation import OptionRelaxation

SETTINGS = GradientSettings(epochs=150)
"""The paper's."""


@dataclass(eq=False, repr=False)
class Snas(DifferentiableStrategy):
    """SNAS: concrete samples, and a single level: the same batches for weights and architecture.

    Args:
        tau_max, tau_min: the temperature at the start and at the end.
    """

    settings: GradientSettings = SETTINGS
    tau_max: float = 1.0
    tau_min: float = 0.03

    def search(self) -> GradientSearch:
        temperature = Temperature(self.tau_max, self.tau_min)

        def gate(logits: torch.Tensor, progress: float) -> torch.Tensor:
            return gumbel_softmax(logits, temperature(progress))

        return self.gradient_search(OptionRelaxation(gate), steps=jointly, share=1.0)
