"""GDAS: one sampled operation an edge, by a hard Gumbel-softmax.

Dong & Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR 2019. The
temperature falls along a line. Only what is sampled is computed; straight-through weights give
every option's parameter its gradient.

What differs from the paper: the temperature falls step by step instead of epoch by epoch. The
settings are those of the authors' NAS-Bench-201 code, but for the 250 epochs, which are the
paper's (the code has 240).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from nas.errors import ConfigError
from nas.supernet import HardSample
from strategies.differentiable import DifferentiableStrategy
from strategies.gradient import GradientSearch, GradientSettings
from strategies.relaxation import OptionRelaxation

SETTINGS = GradientSettings(epochs=250, weight_decay=5e-4, nesterov=True)


class HardGumbel:
    """A slot's gate: a sample of the Gumbel-softmax of its parameters, made hard.

    Args:
        tau_max, tau_min: the temperature at the start and at the end.
    """

    def __init__(self, tau_max: float, tau_min: float) -> None:
        self.temperature = Temperature(tau_max, tau_min)

    def __call__(self, logits: torch.Tensor, progress: float) -> HardSample:
        soft = gumbel_softmax(logits, self.temperature(progress))
        sampled = int(soft.argmax())
        hard = torch.zeros_like(soft)
        hard[sampled] = 1.0
        return HardSample(hard - soft.detach() + soft, sampled)


def gumbel_softmax(logits: torch.Tensor, tau: float) -> torch.Tensor:
    """A sample of the concrete distribution (Maddison et al., ICLR 2017; Jang et al., 2017)."""
    noise = -torch.empty_like(logits).exponential_().log()
    return ((logits.log_softmax(0) + noise) / tau).softmax(0)


@dataclass(frozen=True)
class Temperature:
    """A temperature that falls along a line, from ``tau_max`` to ``tau_min``."""

    tau_max: float
    tau_min: float

    def __post_init__(self) -> None:
        if not 0 < self.tau_min <= self.tau_max < math.inf:
            raise ConfigError(
                "temperatures must be above 0, and tau_max at least tau_min; got tau_max "
                f"{self.tau_max} and tau_min {self.tau_min}"
            )

    def __call__(self, progress: float) -> float:
        return self.tau_max - (self.tau_max - self.tau_min) * progress


@dataclass(eq=False, repr=False)
class Gdas(DifferentiableStrategy):
    """GDAS: a hard sample of every edge's options a step, at a falling temperature.

    Args:
        tau_max, tau_min: the temperature at the start and at the end.
    """

    settings: GradientSettings = SETTINGS
    tau_max: float = 10.0
    tau_min: float = 0.1

    def search(self) -> GradientSearch:
        return self.gradient_search(OptionRelaxation(HardGumbel(self.tau_max, self.tau_min)))
