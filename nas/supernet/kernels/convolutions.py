"""Depthwise and 1×1 convolutions that keep what their backward pass needs, and no more.

A convolution of PyTorch keeps input and weights whichever gradients are wanted. Its channels-last
depthwise kernels on a CPU are fast forwards, but some of the backward ones are 3 to 30 times
slower than the forward one. They are expressed by fast ones here:

- the gradient of the input is the convolution of the output's with the kernel turned around;
- that of a kernel wider than 3 is put together from columns, three at a time;
- dilation d is no dilation on each of the d·d grids that a kernel sees; a stride of d as well is
  the first of those grids alone.

The backward passes consist of differentiable operations, so there are second derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nas.supernet.kernels.once import Once

_LAST = torch.channels_last
_NARROW = 3
"""The widest kernel whose gradient has a fast kernel."""


def convolve(conv: nn.Conv2d, x: torch.Tensor, once: Once) -> torch.Tensor:
    """What the module gives for x, by the way that is fast for it."""
    if not _same_size(conv) or not x.is_contiguous(memory_format=_LAST):
        return conv(x)
    (stride, other), (dilation, _) = conv.stride, conv.dilation
    if stride != other:
        return conv(x)
    if conv.groups == 1 and conv.kernel_size == (1, 1):
        return _apply(_Pointwise, _grid(x, stride, once), conv.weight)
    if conv.groups == conv.in_channels == conv.out_channels:
        if stride == 1:
            return _apply(_Depthwise, x, conv.weight, dilation)
        if stride == dilation:
            return _apply(_Depthwise, _grid(x, stride, once), conv.weight, 1)
    return conv(x)


def _grid(x: torch.Tensor, stride: int, once: Once) -> torch.Tensor:
    """Every so many places of x, from the first."""
    if stride == 1:
        return x
    return once(
        x,
        ("grid", stride),
        lambda: x[:, :, ::stride, ::stride].contiguous(memory_format=_LAST),
    )


def _same_size(conv: nn.Conv2d) -> bool:
    """Whether it has no bias, an odd kernel, and zeros around it that keep the size."""
    kept = tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    return (
        conv.bias is None
        and conv.padding_mode == "zeros"
        and conv.padding == kept
        and all(k % 2 for k in conv.kernel_size)
        and conv.dilation[0] == conv.dilation[1]
    )


def _apply(function: type[torch.autograd.Function], *args: Any) -> torch.Tensor:
    out: torch.Tensor = function.apply(*args)  # type: ignore[no-untyped-call]  # torch leaves it so
    return out


class _Pointwise(torch.autograd.Function):
    """A 1×1 convolution of (N, C, H, W), channels last, as one matrix product."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        wants_x, wants_weight = ctx.needs_input_grad
        ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None)
        return _image(_rows(x) @ weight[:, :, 0, 0].t(), x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        rows = _rows(gradient)
        of_x = None if weight is None else _image(rows @ weight[:, :, 0, 0], gradient)
        of_weight = None if x is None else (rows.t() @ _rows(x))[:, :, None, None]
        return of_x, of_weight


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution that keeps the size."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
        wants_x, wants_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None)
        ctx.dilation, ctx.kernel = dilation, tuple(weight.shape[2:])
        return _depthwise(x, weight, dilation)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=_LAST)
        of_x = None if weight is None else _depthwise(gradient, weight.flip(2, 3), ctx.dilation)
        of_weight = None if x is None else _of_kernel(gradient, x, ctx.kernel, ctx.dilation)
        return of_x, of_weight, None


def _depthwise(x: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
    padding = [dilation * (size // 2) for size in weight.shape[2:]]
    return F.conv2d(x, weight, None, 1, padding, dilation, x.shape[1])


def _of_kernel(
    gradient: torch.Tensor, x: torch.Tensor, kernel: tuple[int, int], dilation: int
) -> torch.Tensor:
    """The gradient of a depthwise kernel."""
    height, width = kernel
    if dilation > 1:
        if x.shape[2] % dilation or x.shape[3] % dilation:
            padding = (dilation * (height // 2), dilation * (width // 2))
            return _direct(gradient, x, kernel, padding, dilation)
        gradient, x = _grids(gradient, dilation), _grids(x, dilation)
    if width <= _NARROW:
        return _direct(gradient, x, kernel, (height // 2, width // 2), 1)
    padded = F.pad(x, (width // 2, width // 2))
    columns = []
    for start in range(0, width, _NARROW):
        first = min(start, width - _NARROW)  # the last block goes back to have three as well
        seen = padded[..., first : first + x.shape[3] + _NARROW - 1]
        block = _direct(gradient, seen, (height, _NARROW), (height // 2, 0), 1)
        columns.append(block[..., start - first :])
    return torch.cat(columns, dim=3)


def _direct(
    gradient: torch.Tensor,
    x: torch.Tensor,
    kernel: tuple[int, int],
    padding: tuple[int, int],
    dilation: int,
) -> torch.Tensor:
    channels = x.shape[1]
    found: torch.Tensor = torch.ops.aten.convolution_backward(
        gradient,
        x,
        x.new_empty(channels, 1, *kernel),  # of which the shape alone is read
        None,
        [1, 1],
        padding,
        [dilation, dilation],
        False,
        [0, 0],
        channels,
        [False, True, False],
    )[1]
    return found


def _grids(x: torch.Tensor, step: int) -> torch.Tensor:
    """(N, C, H, W) as (N·step², C, H/step, W/step): the places that are ``step`` apart."""
    n, c, height, width = x.shape
    parts = x.permute(0, 2, 3, 1).reshape(n, height // step, step, width // step, step, c)
    parts = parts.permute(0, 2, 4, 1, 3, 5).reshape(-1, height // step, width // step, c)
    return parts.permute(0, 3, 1, 2)


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) as (N·H·W, C): a view where the channels are last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _image(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    n, _, height, width = like.shape
    return rows.view(n, height, width, -1).permute(0, 3, 1, 2)
