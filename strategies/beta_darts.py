"""β-DARTS: DARTS with a decay of the softmax's output instead of its input.

Ye et al., "β-DARTS: Beta-Decay Regularization for Differentiable Architecture Search", CVPR
2022. An architecture step also minimises the mean over the slots of logsumexp(α), times a factor
that rises along a line from 0.

The settings are those of the official NAS-Bench-201 code, with 100 epochs. What differs: α has no
weight decay, whose place the decay of β takes; that code's default is 1e-3, and whether its
published runs keep it is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nas.errors import ConfigError
from strategies.differentiable import DifferentiableStrategy
from strategies.gradient import GradientSearch, GradientSettings
from strategies.relaxation import OptionRelaxation

SETTINGS = GradientSettings(epochs=100, arch_weight_decay=0.0)


class BetaDecay:
    """The term: the mean over the slots of the logsumexp of their parameters, times a factor.

    Args:
        decay: the factor at the end of the search; it rises along a line from 0.
    """

    def __init__(self, decay: float) -> None:
        if not (math.isfinite(decay) and decay >= 0):
            raise ConfigError(f"decay must be zero or more, got {decay}")
        self.decay = decay

    def __call__(self, parameters: Mapping[str, torch.Tensor], progress: float) -> torch.Tensor:
        decays = torch.stack([logits.logsumexp(0) for logits in parameters.values()])
        return self.decay * progress * decays.mean()


@dataclass(eq=False, repr=False)
class BetaDarts(DifferentiableStrategy):
    """β-DARTS: first-order DARTS with beta decay.

    Args:
        decay: the factor of the decay at the end of the search.
    """

    settings: GradientSettings = SETTINGS
    decay: float = 50.0

    def search(self) -> GradientSearch:
        return self.gradient_search(OptionRelaxation(extra=BetaDecay(self.decay)))
