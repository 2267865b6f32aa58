"""Batch norms folded into the convolutions before them, for networks that are only evaluated."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass

import torch
from torch import nn

from nas.layers.basic import ConvBNReLU, ReLUConvBN

_Trio = tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]


@dataclass(frozen=True)
class Folded:
    """A copy of a module without those of its norms that follow a convolution.

    Attributes:
        module: the copy, in eval mode.
        trios: a convolution and its norm in the original, and what does both in the copy.
    """

    module: nn.Module
    trios: tuple[_Trio, ...]

    def update(self) -> nn.Module:
        """The copy, with what the original's weights and statistics are now."""
        with torch.no_grad():
            for conv, norm, both in self.trios:
                assert norm.running_var is not None
                assert norm.running_mean is not None
                assert both.bias is not None
                scale = torch.rsqrt(norm.running_var + norm.eps)
                if norm.affine:
                    scale = scale * norm.weight
                shift = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
                both.weight.copy_(conv.weight * scale[:, None, None, None])
                both.bias.copy_(-shift * scale)
                if norm.affine:
                    both.bias.add_(norm.bias)
        return self.module


def fold(module: nn.Module) -> Folded | None:
    """A copy with folded norms; ``None`` where there are none to fold, or hooks that would see it.

    Known are a convolution and a norm that follow each other in an ``nn.Sequential``, and the
    framework's own layers of both.
    """
    if any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
        return None
    found = copy.deepcopy(module).eval()
    trios: list[_Trio] = []
    for original, own in zip(list(module.modules()), list(found.modules()), strict=True):
        if type(original) is nn.Sequential:
            names = list(original._modules)
            pairs = list(itertools.pairwise(names))
        elif type(original) in (ConvBNReLU, ReLUConvBN):
            pairs = [("conv", "norm")]
        else:
            continue
        for first, second in pairs:
            conv, norm = getattr(original, first), getattr(original, second)
            if type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d:
                continue
            if not norm.track_running_stats:
                continue
            both = getattr(own, first)
            if both.bias is None:
                both.bias = nn.Parameter(both.weight.new_zeros(both.out_channels))
            setattr(own, second, nn.Identity())
            trios.append((conv, norm, both))
    return Folded(found, tuple(trios)) if trios else None
