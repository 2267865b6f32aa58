"""The weighted sum of a slot's options, with their last batch norms taken in.

The backward pass keeps the values before the norms, which the norms' own would keep, and neither
the norms' outputs nor the weighted terms. The gradient of a weight is the inner product of the
output's gradient with the option's output; of a norm's output that is what the gradient of the
norm's scale is. It is computed only where it is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from nas.supernet.kernels.once import Once
from nas.supernet.kernels.terms import Term, term


def value(module: nn.Module, x: torch.Tensor, once: Once) -> torch.Tensor:
    """What an option gives for x."""
    found = term(module, x, once)
    out: torch.Tensor = found.value if found.norm is None else found.norm(found.value)
    return out


def weighted_sum(
    modules: Sequence[tuple[int, nn.Module]], x: torch.Tensor, weights: torch.Tensor, once: Once
) -> torch.Tensor:
    """The sum of what options give for x, each times its weight.

    Args:
        modules: the options with the positions of their weights, at least one.
        weights: (options,), of x's type.
    """
    positions = [position for position, _ in modules]
    terms = [_with_norm_of_one_value(term(module, x, once)) for _, module in modules]
    norms = [found.norm for found in terms]
    tensors: list[torch.Tensor | None] = []
    for found in terms:
        scale = None if found.norm is None else found.norm.weight
        shift = None if found.norm is None else found.norm.bias
        tensors += [found.value, scale, shift]
    out: torch.Tensor = _WeightedSum.apply(weights, positions, norms, *tensors)  # type: ignore[no-untyped-call]  # torch leaves it so
    return out


def _with_norm_of_one_value(found: Term) -> Term:
    """Leaves to the norm itself what has one value a channel, which a norm refuses."""
    if found.norm is None or found.value.numel() > found.value.shape[1]:
        return found
    return Term(found.norm(found.value))


class _WeightedSum(torch.autograd.Function):
    """Of a value, a norm's scale and its shift for each term, in this order."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: torch.Tensor,
        positions: list[int],
        norms: list[nn.BatchNorm2d | None],
        *tensors: torch.Tensor | None,
    ) -> torch.Tensor:
        total: torch.Tensor | None = None
        plain = weights.tolist()
        statistics: list[torch.Tensor | None] = []
        kept: list[torch.Tensor | None] = []
        for index, (position, norm) in enumerate(zip(positions, norms, strict=True)):
            given, scale, shift = tensors[3 * index : 3 * index + 3]
            assert given is not None
            weight = plain[position]
            if norm is None:
                total = weight * given if total is None else total.add_(given, alpha=weight)
                kept.append(given if ctx.needs_input_grad[0] else None)
                continue
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(1)
            out, *found = torch.native_batch_norm(
                given,
                given.new_full((given.shape[1],), weight) if scale is None else weight * scale,
                None if shift is None else weight * shift,
                norm.running_mean,
                norm.running_var,
                True,
                norm.momentum or 0.0,
                norm.eps,
            )
            total = out if total is None else total.add_(out)
            statistics += found
            kept += [given, scale, shift]
        ctx.save_for_backward(weights, *kept, *statistics)
        ctx.positions, ctx.norms = positions, [None if n is None else n.eps for n in norms]
        assert total is not None
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        wants_weights, _, _, *wanted = ctx.needs_input_grad
        weights, *saved = ctx.saved_tensors
        kept = iter(saved)
        statistics = iter(saved[sum(1 if eps is None else 3 for eps in ctx.norms) :])
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_weights: list[torch.Tensor | None] = [None] * len(weights)
        found: list[torch.Tensor | None] = []
        for index, (position, eps) in enumerate(zip(ctx.positions, ctx.norms, strict=True)):
            weight = weights[position]
            wants_value, wants_scale, wants_shift = wanted[3 * index : 3 * index + 3]
            given = next(kept)
            if eps is None:
                if wants_weights:
                    of_weights[position] = torch.dot(_flat(gradient), _flat(given))
                found += [weight * gradient if wants_value else None, None, None]
                continue
            scale, shift = next(kept), next(kept)
            mean, spread = next(statistics), next(statistics)
            factor = weight.expand(given.shape[1]) if scale is None else weight * scale
            wants_sums = wants_weights or wants_scale or wants_shift
            of_value, along, across = torch.ops.aten.native_batch_norm_backward(
                gradient,
                given,
                factor.contiguous(),
                None,
                None,
                mean,
                spread,
                True,
                eps,
                [wants_value, wants_sums, wants_sums],
            )
            if wants_weights:
                along_weight = along if scale is None else along * scale
                of_weight = along_weight.sum()
                if shift is not None:
                    of_weight = of_weight + (across * shift).sum()
                of_weights[position] = of_weight
            found.append(of_value if wants_value else None)
            found.append(weight * along if wants_scale else None)
            found.append(weight * across if wants_shift else None)
        of_all = None
        if wants_weights:
            zero = weights.new_zeros(())
            of_all = torch.stack([zero if part is None else part for part in of_weights])
        return of_all, None, None, *found


def _flat(x: torch.Tensor) -> torch.Tensor:
    """All numbers of (N, C, H, W) in one row: a view where the channels are last."""
    return x.permute(0, 2, 3, 1).reshape(-1)
