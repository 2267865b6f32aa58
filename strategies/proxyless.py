"""ProxylessNAS: two sampled paths for the architecture, one for the weights.

Cai, Zhu & Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR
2019. A step of the weights runs one path, sampled from the softmax of α. A step of the
architecture samples two paths of every slot without replacement and, of the two, one that is open:
its binary gate is 1 and the other's 0. With p the softmax of the two alphas alone, their gradient
is ∂L/∂αᵢ = Σⱼ ∂L/∂gⱼ · pⱼ (δᵢⱼ − pᵢ); after the step both are shifted so that the probabilities
of all other paths stay what they were. The expected latency is that of the two under p.

What differs from the paper and its code: latency is the sum of a table rather than a predictor;
the weights' learning rate falls down one cosine over warm-up and search, from the search's rate,
and without label smoothing; their gradients are cut to length; a slot whose open path is a skip
learns too. As published, the target of ``"mul"`` scales the loss by a constant, which Adam does
not notice: what must be kept is said as the limit of an objective.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from nas.errors import ConfigError, nearest
from nas.supernet import Gates, Sparse
from strategies.differentiable import DifferentiableStrategy
from strategies.gradient import Batch, GradientSearch, GradientSettings
from strategies.hardware import Limits
from strategies.periodic import Periodic, check_period, check_share
from strategies.relaxation import OptionRelaxation
from strategies.resource import ExpectedResource, check_logarithm, resource_table

SETTINGS = GradientSettings(
    epochs=160,
    batch_size=256,
    weight_lr=0.025,
    weight_lr_min=0.0,
    weight_decay=4e-5,
    nesterov=True,
    arch_lr=1e-3,
    arch_beta1=0.0,
    arch_beta2=0.999,
    arch_weight_decay=0.0,
    warmup_epochs=40,
)
"""Those of the official code on ImageNet: 40 epochs of warm-up and 120 of search."""

SHARE = 1 - 50_000 / 1_281_167
"""Part of ImageNet's training set that trains the weights in the official code."""

FORMS = ("mul", "add")


@dataclass(frozen=True)
class Paths:
    """Two sampled paths of a slot, or the one it has.

    Attributes:
        gate: over all options; 1 for the open path in value, with the gradients of the binary
            gates; only the sampled paths are computed.
        probabilities: (options,), the softmax of the sampled alphas, zero elsewhere.
        sampled: their positions.
    """

    gate: Sparse
    probabilities: torch.Tensor
    sampled: tuple[int, ...]


def two_paths(alpha: torch.Tensor) -> Paths:
    """Samples two paths of a slot, and which of them is open; draws from torch's generator."""
    # An option whose probability is zero in single precision can be drawn all the same.
    everywhere = alpha.detach().softmax(0).clamp_min(1e-30)
    sampled = torch.multinomial(everywhere, min(2, len(alpha)))
    among = alpha[sampled].softmax(0)
    probabilities = torch.zeros_like(alpha).index_put((sampled,), among)
    opened = sampled[torch.multinomial(among.detach(), 1)]
    hard = torch.zeros_like(probabilities).index_fill(0, opened, 1.0)
    positions = tuple(sampled.tolist())
    # The difference is exactly zero, so the gates are binary; its gradient is the softmax's.
    gate = Sparse(hard + (probabilities - probabilities.detach()), positions)
    return Paths(gate, probabilities, positions)


def rescale(alpha: torch.Tensor, before: torch.Tensor, sampled: tuple[int, ...]) -> None:
    """Shifts two stepped alphas so that together they are as probable as before.

    Args:
        alpha: (options,), after the step; changed in place.
        before: (options,), before it.
    """
    positions = torch.tensor(sampled, device=alpha.device)
    offset = alpha[positions].logsumexp(0) - before[positions].logsumexp(0)
    alpha[positions] -= offset


def one_path(search: GradientSearch) -> Gates:
    """A single path, each slot's option sampled from the softmax of its parameters."""
    options = search.supernet.open_gates()
    with torch.no_grad():
        return {
            label: options[label][int(torch.multinomial(alpha.softmax(0), 1))]
            for label, alpha in search.parameters.items()
        }


@dataclass(frozen=True)
class LatencyLoss:
    """What the architecture minimises, of the cross-entropy and the probabilities of paths.

    ``mul`` is CE · α · (log E / log T)^β with the expected cost E and the target T; ``add`` is
    CE + λ (E − T) / T.
    """

    cost: ExpectedResource
    form: str
    target: float
    alpha: float
    beta: float
    strength: float
    unit: float

    def __call__(self, loss: torch.Tensor, probabilities: Gates) -> torch.Tensor:
        expected = self.cost(probabilities)
        if self.form == "add":
            excess = (expected - self.target) / self.target
            return loss + self.strength * excess.to(loss.dtype)
        ratio = (expected / self.unit).log() / math.log(self.target / self.unit)
        return loss * (self.alpha * ratio**self.beta).to(loss.dtype)


@dataclass(eq=False, repr=False)
class Proxyless(DifferentiableStrategy):
    """ProxylessNAS: weights trained on single paths, the architecture on two, with latency.

    Args:
        resource: what is expected to be small: ``"macs"``, ``"parameters"``, or a table of
            milliseconds by slot and option, or the JSON file that holds one
            (``strategies.resource``). With a table, a limit on the objective ``latency_ms`` is
            kept by its sums in all that is proposed.
        target: of the loss, in the resource's unit; that of equal probabilities where it is
            ``None``.
        form: of the loss: ``"mul"`` (with a logarithm) or ``"add"``.
        alpha, beta: of ``"mul"``.
        strength: λ of ``"add"``, in nats where the expected cost is twice the target.
        unit: what the logarithm of ``"mul"`` counts the resource in (1 is a multiply-accumulate, a
            parameter or a millisecond); below the cheapest network's.
        share: part of the training set that trains the weights; the rest trains α.
        every: steps of the weights for one of α.
    """

    settings: GradientSettings = SETTINGS
    resource: str | Mapping[str, Any] = "macs"
    target: float | None = None
    form: Literal["mul", "add"] = "mul"
    alpha: float = 0.2
    beta: float = 0.3
    strength: float = 0.1
    unit: float = 1.0
    share: float = SHARE
    every: int = 5

    def search(self) -> GradientSearch:
        self._check()

        def update(search: GradientSearch, batch: Batch) -> None:
            search.arch_optimiser.zero_grad()
            paths = {label: two_paths(alpha) for label, alpha in search.parameters.items()}
            gates = {label: one.gate for label, one in paths.items()}
            with search.frozen_weights():
                loss = search.cross_entropy(batch, gates)
                loss = latency(loss, {label: one.probabilities for label, one in paths.items()})
                search.architecture_loss(loss, gates).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            before = {label: alpha.detach().clone() for label, alpha in search.parameters.items()}
            search.step_architecture()
            with torch.no_grad():
                for label, alpha in search.parameters.items():
                    rescale(alpha, before[label], paths[label].sampled)

        steps = Periodic(self.every, one_path, update)
        search = self.gradient_search(OptionRelaxation(), steps=steps, share=self.share)
        check_period(search, self.every, self.share)
        latency = self._latency(search)
        return search

    def limits(self) -> Limits:
        return Limits(self.space, self.objectives, {self._table.metric: self._table})

    def _latency(self, search: GradientSearch) -> LatencyLoss:
        slots = search.supernet.slots
        self._table = resource_table(self.space, self.resource, slots)
        cost = ExpectedResource(self._table, slots)
        target = cost.even() if self.target is None else self.target
        if self.form == "mul":
            check_logarithm(self._table, self.unit)
            if target <= self.unit:
                raise ConfigError(f"target must be above unit ({self.unit:g}), got {target:g}")
        return LatencyLoss(cost, self.form, target, self.alpha, self.beta, self.strength, self.unit)

    def _check(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"no form {self.form!r}: {nearest(self.form, FORMS)}")
        for name in ("alpha", "beta", "strength", "target"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be above 0, got {value!r}")
        check_share(self.share)
