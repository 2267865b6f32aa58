"""A child's weights by a plan: the parent's, widened and padded; identities; zeros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nas.morphism.channels import Channels, listed
from nas.morphism.layer import Grows
from nas.morphism.layouts import CONVOLUTIONS, channel_place, identity_sources, is_scalar
from nas.morphism.plan import Plan, Step
from nas.morphism.trace import Graph, Operation, Weight

Tensors = dict[str, torch.Tensor]

_NORM = ("running_mean", "running_var", "weight", "bias")


class Clash(Exception):
    """Two operations of the child want other numbers in one tensor that they share."""


@dataclass
class Writing:
    """Writes the child's weights.

    Args:
        parent, child: the networks.
        weights: the parent's.
        fresh: the child's before it inherits.
        seed: as for the plan.
        noise: how unlike the shares are that copies of a channel have in what reads them, in
            [0, 1); they add up to one all the same.

    Attributes:
        written: what the plan says, by name.
        reused: how many numbers are the parent's.
    """

    parent: Graph
    child: Graph
    weights: Mapping[str, torch.Tensor]
    fresh: Mapping[str, torch.Tensor]
    seed: int
    noise: float
    written: Tensors = field(default_factory=dict)
    reused: int = 0

    def __post_init__(self) -> None:
        self._random = torch.Generator().manual_seed(self.seed)
        self._makers = {
            number: operation
            for operation in self.parent.operations
            for number in operation.outputs
        }

    def write(self, plan: Plan) -> None:
        """Writes all that the plan says; raises ``Clash``."""
        for place, step in enumerate(plan.steps):
            if place in plan.silenced:
                self._silence(step.operation)
            elif step.way == "copy" and step.parent is not None:
                self._copy(step, step.parent)
            elif step.way == "identity":
                self._identity(step)
            else:
                for weight in step.operation.weights:
                    self._put(weight, self.fresh[weight.name])

    def _put(self, weight: Any, tensor: torch.Tensor, reused: int = 0) -> None:
        if not isinstance(weight, Weight):
            return
        tensor = tensor.to(self.fresh[weight.name].dtype)
        before = self.written.get(weight.name)
        if before is None:
            self.written[weight.name] = tensor.contiguous()
            self.reused += reused
        elif not torch.equal(before, tensor):
            raise Clash(f"{weight.name} is used in several places, which want other numbers")

    # ------------------------------------------------------------------------------- copies

    def _copy(self, step: Step, parent: Operation) -> None:
        operation = step.operation
        if operation.layer is not None:
            self._layer(step, parent)
            return
        shape = self.child.shapes[operation.inputs[0]] if operation.inputs else ()
        rank = len(shape)
        if operation.function in CONVOLUTIONS or (operation.function == "linear" and rank == 2):
            self._weighted(step, parent)
        elif operation.function == "batch_norm" and step.channels is not None:
            for name in _NORM:
                self._by_channel(operation.arguments[name], parent.arguments[name], step.channels)
        else:
            for weight, base in zip(operation.weights, parent.weights, strict=True):
                place = None
                if step.channels is not None and not is_scalar(weight):
                    place = channel_place(weight, shape)
                if place is None or step.channels is None:
                    tensor = self.weights[base.name]
                    self._put(weight, tensor.clone(), tensor.numel())
                else:
                    self._by_channel(weight, base, step.channels, place)

    def _by_channel(self, weight: Weight, base: Weight, channels: Channels, place: int = 0) -> None:
        tensor, own = self.weights[base.name], self.fresh[weight.name].clone()
        kept = [index for index, channel in enumerate(channels) if channel >= 0]
        read = torch.tensor([channels[index] for index in kept], dtype=torch.long)
        own.index_copy_(place, torch.tensor(kept), tensor.index_select(place, read))
        self._put(weight, own, len(kept))

    def _weighted(self, step: Step, parent: Operation) -> None:
        mine, theirs = step.operation.arguments, parent.arguments
        weight, base = mine["weight"], theirs["weight"]
        tensor = self.weights[base.name]
        size = self.parent.shapes[parent.inputs[0]][1]
        channels = listed(step.channels, size)
        groups = mine.get("groups", 1)
        c_in, out = len(channels) // groups, weight.shape[0] // groups
        made = listed(step.made, base.shape[0])
        rows = torch.tensor([max(channel, 0) for channel in made])
        grown = tensor[rows]
        if weight.shape[1] > 1 or base.shape[1] > 1 or groups == 1:
            parts = []
            for group in range(groups):
                read = channels[group * c_in : (group + 1) * c_in]
                local = [
                    channel - group * base.shape[1] if channel >= 0 else -1 for channel in read
                ]
                part = grown[group * out : (group + 1) * out]
                parts.append(self._read(part, local))
            grown = torch.cat(parts)
        own = torch.zeros_like(self.fresh[weight.name])
        window = own
        for dim, (outer, inner) in enumerate(
            zip(own.shape[2:], grown.shape[2:], strict=True), start=2
        ):
            window = window.narrow(dim, (outer - inner) // 2, inner)
        window.copy_(grown)
        fresh = torch.tensor([channel < 0 for channel in made])
        own[fresh] = self.fresh[weight.name][fresh]
        known = grown.numel() // max(1, grown.shape[0] * grown.shape[1])
        seen = sum(channel >= 0 for channel in channels) if groups == 1 else grown.shape[1]
        self._put(weight, own, known * seen * int((~fresh).sum()))
        if isinstance(mine["bias"], Weight):
            self._by_channel(mine["bias"], theirs["bias"], made)

    def _read(self, rows: torch.Tensor, channels: list[int]) -> torch.Tensor:
        """Rows of weights for inputs of which some are there more than once, some new.

        Copies of an input share its weight (Net2Net); new ones are not heard at first.
        """
        known = torch.tensor(channels)
        read = rows[:, known.clamp(min=0)]
        counts = torch.bincount(known[known >= 0], minlength=rows.shape[1])
        shares = torch.ones(rows.shape[0], len(channels), dtype=torch.float64)
        if self.noise and bool((counts > 1).any()):
            drawn = torch.rand(shares.shape, generator=self._random, dtype=torch.float64)
            shares += self.noise * (2 * drawn - 1)
        totals = torch.zeros(rows.shape[0], rows.shape[1], dtype=torch.float64)
        heard = (known >= 0).to(torch.float64)
        shares *= heard
        totals.index_add_(1, known.clamp(min=0), shares)
        # A channel that is there once keeps its weight to the bit.
        shares = torch.where(
            counts[known.clamp(min=0)] > 1, shares / totals[:, known.clamp(min=0)], heard
        )
        shape = (*shares.shape, *(1 for _ in rows.shape[2:]))
        return (read.to(torch.float64) * shares.reshape(shape)).to(rows.dtype)

    def _layer(self, step: Step, parent: Operation) -> None:
        layer, base = step.operation.layer, parent.layer
        assert isinstance(layer, Grows)
        assert base is not None
        theirs = {
            name: self.weights[weight.name]
            for name, weight in zip(base.state_dict(), parent.weights, strict=True)
        }
        size = self.parent.shapes[parent.inputs[0]][1]
        made = layer.grown(theirs, listed(step.channels, size))
        for name, weight in zip(layer.state_dict(), step.operation.weights, strict=True):
            if name not in made or tuple(made[name].shape) != weight.shape:
                raise Clash(f"{type(layer).__name__}.grown gives no {name!r} of {weight.shape}")
            self._put(weight, made[name], made[name].numel())

    # ------------------------------------------------------------------ identities and zeros

    def _identity(self, step: Step) -> None:
        operation = step.operation
        if operation.function in (*CONVOLUTIONS, "linear"):
            weight = operation.arguments["weight"]
            sources = identity_sources(operation, self.child, self.seed)
            assert sources is not None
            own = torch.zeros_like(self.fresh[weight.name])
            centre = tuple(size // 2 for size in weight.shape[2:])
            for row, source in enumerate(sources):
                own[(row, source % weight.shape[1], *centre)] = 1.0
            self._put(weight, own)
            bias = operation.arguments["bias"]
            if isinstance(bias, Weight):
                self._put(bias, torch.zeros(bias.shape))
        elif operation.function == "batch_norm":
            self._identity_norm(step)
        elif operation.weights:
            (weight,) = operation.weights
            value = 1.0 if operation.function == "mul" else 0.0
            self._put(weight, torch.full(weight.shape, value))

    def _identity_norm(self, step: Step) -> None:
        """Weight and bias that undo the statistics, which are those that batches will have."""
        given = step.operation.arguments
        assert step.value is not None
        size = self.parent.shapes[step.value][1]
        mean, var = self._moments(step.value, size)
        channels = torch.tensor([max(c, 0) for c in listed(step.channels, size)])
        mean, var = mean[channels], var[channels]
        self._put(given["running_mean"], mean)
        self._put(given["running_var"], var)
        self._put(given["weight"], (var.double() + given["eps"]).sqrt())
        self._put(given["bias"], mean)

    def _moments(self, value: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What is to be expected of a value's channels: their means and variances.

        Of a rectified norm those of a normal distribution that is cut at zero; where the parent's
        value is something else, 0 and 1.
        """
        maker: Operation | None = self._makers.get(value)
        rectified = False
        while maker is not None and len(maker.inputs) == 1:
            if maker.function == "batch_norm" and rectified and not maker.arguments["training"]:
                names = [maker.arguments["weight"], maker.arguments["bias"]]
                if all(isinstance(name, Weight) for name in names):
                    scale, shift = (self.weights[name.name].double() for name in names)
                    if len(scale) == size:
                        return _rectified(scale.abs().clamp(min=1e-6), shift)
                break
            if maker.function in ("relu", "relu6", "hardtanh"):
                rectified = True
            elif maker.function not in ("max_pool2d", "avg_pool2d"):
                break
            maker = self._makers.get(maker.inputs[0])
        return torch.zeros(size), torch.ones(size)

    def _silence(self, operation: Operation) -> None:
        given = operation.arguments
        if operation.function in (*CONVOLUTIONS, "linear", "batch_norm"):
            for name in ("weight", "bias"):
                if isinstance(given[name], Weight):
                    self._put(given[name], torch.zeros(given[name].shape))
            for name in ("running_mean", "running_var"):
                if isinstance(given.get(name), Weight):
                    self._put(given[name], self.fresh[given[name].name])
        else:
            for weight in operation.weights:
                self._put(weight, torch.zeros(weight.shape))


def _rectified(scale: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the positive part of normal numbers."""
    ratio = shift / scale
    density = torch.exp(-0.5 * ratio * ratio) / (2 * torch.pi) ** 0.5
    below = 0.5 * (1 + torch.erf(ratio / 2**0.5))
    mean = shift * below + scale * density
    square = (shift * shift + scale * scale) * below + shift * scale * density
    var = (square - mean * mean).clamp(min=1e-4)
    return mean.float(), var.float()
