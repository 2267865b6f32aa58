"""What an option gives, as a value or as a batch norm of a value, of the layers known here.

Each function computes what its layer's ``forward`` says, over the same parameters, and leaves out
the last norm: the sum of a mixture takes that in. Layers of a user's own are called as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.basic import ReLUConvBN
from nas.layers.cells import DilConv, FactorizedReduction, SepConv
from nas.supernet.kernels.convolutions import convolve
from nas.supernet.kernels.once import Once


@dataclass(frozen=True, slots=True)
class Term:
    """A value, and the batch norm of it that is still to come."""

    value: torch.Tensor
    norm: nn.BatchNorm2d | None = None


_LAST = torch.channels_last

Reading = Callable[[Any, torch.Tensor, Once], Term]


def term(module: nn.Module, x: torch.Tensor, once: Once) -> Term:
    """What an option gives for x."""
    reading = READINGS.get(type(module))
    if reading is None or not all(_plain(part) for part in module.modules()):
        return Term(module(x))
    return reading(module, x, once)


def _plain(module: nn.Module) -> bool:
    """Whether calling a module does what its class says, in training, and nothing else."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    if any(hooks) or not module.training:
        return False
    if isinstance(module, nn.BatchNorm2d):
        counted = module.track_running_stats and module.momentum is not None
        return type(module) is nn.BatchNorm2d and counted
    if isinstance(module, nn.Conv2d):
        return type(module) is nn.Conv2d
    return True


def _relu(x: torch.Tensor, once: Once) -> torch.Tensor:
    return once(x, "relu", lambda: F.relu(x))


def _identity(module: nn.Identity, x: torch.Tensor, once: Once) -> Term:
    return Term(x)


def _sep_conv(module: SepConv, x: torch.Tensor, once: Once) -> Term:
    y = convolve(module.pointwise_a, convolve(module.depthwise_a, _relu(x, once), once), once)
    y = F.relu_(module.norm_a(y))
    y = convolve(module.pointwise_b, convolve(module.depthwise_b, y, once), once)
    return Term(y, module.norm_b)


def _dil_conv(module: DilConv, x: torch.Tensor, once: Once) -> Term:
    y = convolve(module.depthwise, _relu(x, once), once)
    return Term(convolve(module.pointwise, y, once), module.norm)


def _relu_conv(module: ReLUConvBN, x: torch.Tensor, once: Once) -> Term:
    return Term(convolve(module.conv, _relu(x, once), once), module.norm)


def _factorized(module: FactorizedReduction, x: torch.Tensor, once: Once) -> Term:
    if x.shape[2] % 2 or x.shape[3] % 2:
        return Term(module(x))
    x = _relu(x, once)
    shifted = once(x, "shifted", lambda: x[:, :, 1:, 1:].contiguous(memory_format=_LAST))
    parts = [convolve(module.conv_a, x, once), convolve(module.conv_b, shifted, once)]
    return Term(torch.cat(parts, dim=1), module.norm)


def _pool(module: nn.Module, x: torch.Tensor, once: Once) -> Term:
    return Term(once(x, _pool_key(module), lambda: module(x)))


_POOL = (
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "ceil_mode",
    "count_include_pad",
    "divisor_override",
    "return_indices",
)


def _pool_key(pool: nn.Module) -> tuple[object, ...]:
    return (type(pool), *(getattr(pool, name, None) for name in _POOL))


def _sequence(module: nn.Sequential, x: torch.Tensor, once: Once) -> Term:
    *body, last = module
    if type(last) is not nn.BatchNorm2d:
        return Term(module(x))
    if len(body) == 1 and type(body[0]) in (nn.MaxPool2d, nn.AvgPool2d) and not last.affine:
        return Term(_shared_norm(body[0], last, x, once))
    for layer in body:
        x = layer(x)
    return Term(x, last)


def _shared_norm(
    pool: nn.Module, norm: nn.BatchNorm2d, x: torch.Tensor, once: Once
) -> torch.Tensor:
    """A norm without scale and shift behind a pool: the same for all slots that read x.

    Each slot's norm has running statistics of its own, which take their step here.
    """
    key = (_pool_key(pool), norm.eps)
    pooled = once(x, _pool_key(pool), lambda: pool(x))
    count = pooled.numel() // pooled.shape[1]
    if count == 1:
        return norm(pooled)  # which refuses
    found: list[torch.Tensor] = []

    def compute() -> torch.Tensor:
        out, mean, spread = torch.native_batch_norm(
            pooled, None, None, None, None, True, 0.0, norm.eps
        )
        found.extend((mean, spread))
        return out

    out = once(x, (key, "out"), compute)
    mean = once(x, (key, "mean"), lambda: found[0].detach())
    variance = once(
        x,
        (key, "variance"),
        lambda: (found[1].detach().pow(-2) - norm.eps) * (count / (count - 1)),
    )
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance, norm.momentum)
        norm.num_batches_tracked.add_(1)
    return out


READINGS: dict[type[nn.Module], Reading] = {
    nn.Identity: _identity,
    nn.MaxPool2d: _pool,
    nn.AvgPool2d: _pool,
    nn.Sequential: _sequence,
    SepConv: _sep_conv,
    DilConv: _dil_conv,
    FactorizedReduction: _factorized,
    ReLUConvBN: _relu_conv,
}
"""By exact class: a subclass may compute something else."""
