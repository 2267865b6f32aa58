"""FBNet: soft samples of the blocks of every layer, and a loss that knows their latency.

Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture
Search", CVPR 2019. Gates are Gumbel-softmax samples at a temperature that falls epoch by epoch;
θ descends CE · α · log(LAT)^β, where LAT is the expected latency of the same gates from a table.

What differs from the paper: θ takes its steps between those of the weights instead of after all of
an epoch, as many; gradients of the weights are cut to length; the argmax of θ is proposed instead
of samples; and any space whose slots can be mixed is searched. The paper's loss has no target
(its α scales the loss, which Adam does not notice): what must be kept is said as the limit of an
objective.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nas.errors import ConfigError
from nas.supernet import Gates
from strategies.differentiable import DifferentiableStrategy
from strategies.gdas import gumbel_softmax
from strategies.gradient import Batch, GradientSearch, GradientSettings
from strategies.hardware import Limits
from strategies.periodic import Periodic, check_period, check_share
from strategies.relaxation import OptionRelaxation
from strategies.resource import ExpectedResource, check_logarithm, resource_table

SETTINGS = GradientSettings(
    epochs=90,
    batch_size=192,
    weight_lr=0.1,
    weight_lr_min=0.0,
    weight_decay=1e-4,
    arch_lr=0.01,
    arch_beta1=0.9,
    arch_weight_decay=5e-4,
    warmup_epochs=10,
)
"""The paper's; its search code is not public, and could not be compared."""


class SoftGumbel:
    """A slot's gate: a sample of the Gumbel-softmax of its parameters.

    Args:
        tau: the temperature of the first epoch.
        anneal: what it is multiplied with after each.
        epochs: of the search.
    """

    def __init__(self, tau: float, anneal: float, epochs: int) -> None:
        if not 0 < tau < math.inf:
            raise ConfigError(f"tau must be above 0, got {tau}")
        if not 0 < anneal <= 1:
            raise ConfigError(f"anneal must be above 0 and at most 1, got {anneal}")
        self.tau = tau
        self.anneal = anneal
        self.epochs = epochs

    def temperature(self, progress: float) -> float:
        # A share of the epochs is a little less than a whole number of them now and then.
        return self.tau * self.anneal ** math.floor(progress * self.epochs + 1e-6)

    def __call__(self, logits: torch.Tensor, progress: float) -> torch.Tensor:
        return gumbel_softmax(logits, self.temperature(progress))


@dataclass(frozen=True)
class LogLatency:
    """The paper's loss, CE · α · log(LAT)^β, of the cross-entropy and gates.

    Args:
        unit: what LAT is counted in, of the resource's own unit.
    """

    cost: ExpectedResource
    alpha: float
    beta: float
    unit: float

    def __call__(self, loss: torch.Tensor, gates: Gates) -> torch.Tensor:
        factor = self.alpha * (self.cost(gates) / self.unit).log() ** self.beta
        return loss * factor.to(loss.dtype)


def sampled_gates(search: GradientSearch) -> Gates:
    """Gates of a step that the architecture parameters take no part in."""
    with torch.no_grad():
        return search.relaxation.gates(search.parameters, search.progress)


@dataclass(eq=False, repr=False)
class Fbnet(DifferentiableStrategy):
    """FBNet: Gumbel-softmax gates at a falling temperature, and latency as a factor of the loss.

    Args:
        resource: what is expected to be small: ``"macs"``, ``"parameters"``, or a table of
            milliseconds by slot and option, or the JSON file that holds one
            (``strategies.resource``). With a table, a limit on the objective ``latency_ms`` is
            kept by its sums in all that is proposed.
        alpha: of the loss.
        beta: of the loss; the larger, the more latency counts.
        unit: what the logarithm counts the resource in (1 is a multiply-accumulate, a parameter or
            a millisecond); below the cheapest network's. The larger, the more latency counts.
        tau, anneal: the temperature at the start, and its factor after each epoch.
        share: part of the training set that trains the weights; the rest trains θ.
        every: steps of the weights for one of θ; 4 takes both through their parts once an epoch.
    """

    settings: GradientSettings = SETTINGS
    resource: str | Mapping[str, Any] = "macs"
    alpha: float = 0.2
    beta: float = 0.6
    unit: float = 1.0
    tau: float = 5.0
    anneal: float = 0.956
    share: float = 0.8
    every: int = 4

    def search(self) -> GradientSearch:
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be above 0, got {value!r}")
        check_share(self.share)

        def update(search: GradientSearch, batch: Batch) -> None:
            search.arch_optimiser.zero_grad()
            with search.frozen_weights():
                gates = search.relaxation.gates(search.parameters, search.progress)
                loss = latency(search.cross_entropy(batch, gates), gates)
                search.architecture_loss(loss, gates).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            search.step_architecture()

        gate = SoftGumbel(self.tau, self.anneal, self.settings.epochs)
        steps = Periodic(self.every, sampled_gates, update)
        search = self.gradient_search(OptionRelaxation(gate), steps=steps, share=self.share)
        check_period(search, self.every, self.share)
        slots = search.supernet.slots
        self._table = resource_table(self.space, self.resource, slots)
        check_logarithm(self._table, self.unit)
        cost = ExpectedResource(self._table, slots)
        latency = LogLatency(cost, self.alpha, self.beta, self.unit)
        return search

    def limits(self) -> Limits:
        return Limits(self.space, self.objectives, {self._table.metric: self._table})
