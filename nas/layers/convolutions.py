"""Convolutions with norm and activation: plain, depthwise-separable, grouped with a shuffle."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.activations import make_activation, make_norm


def conv_bn(
    c_in: int, c_out: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, and batch norm."""
    conv = nn.Conv2d(
        c_in, c_out, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


class ConvNormAct(nn.Module):
    """Convolution that keeps the size at stride 1, norm, activation.

    The convolution has a bias only where the norm is ``none``.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        self.groups = groups
        self.norm = norm
        self.activation = activation
        conv = nn.Conv2d(
            c_in,
            c_out,
            kernel_size,
            stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=groups,
            bias=norm == "none",
        )
        self.layers = nn.Sequential(conv, make_norm(norm, c_out), make_activation(activation))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class DepthwiseSeparable(nn.Module):
    """Depthwise and pointwise convolution, each with norm and activation.

    Howard et al., MobileNets, 2017.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.activation = activation
        self.layers = nn.Sequential(
            conv_bn(c_in, c_in, kernel_size, stride, groups=c_in),
            make_activation(activation),
            conv_bn(c_in, c_out, 1),
            make_activation(activation),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Deals the channels out: the first of every group, the second of every group, and so on."""
    batch, channels, height, width = x.shape
    dealt = x.reshape(batch, groups, channels // groups, height, width).transpose(1, 2)
    return dealt.reshape(batch, channels, height, width)


class GroupedShuffle(nn.Module):
    """Grouped pointwise, shuffle, depthwise, grouped pointwise, around a bottleneck of a quarter.

    At stride 1 the input is added where the channels stay; at stride 2 an average pool of it is
    joined, so ``c_out`` must be larger than ``c_in``. ``c_in``, a quarter of ``c_out``, and at
    stride 2 their difference must be multiples of ``groups``.

    Zhang et al., ShuffleNet, CVPR 2018.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel_size: int = 3, stride: int = 1, groups: int = 3
    ) -> None:
        super().__init__()
        if stride > 1 and c_out <= c_in:
            raise ValueError(f"at stride {stride}, c_out must exceed c_in, got {c_out} and {c_in}")
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = groups
        made = c_out if stride == 1 else c_out - c_in
        self.compress = conv_bn(c_in, c_out // 4, 1, groups=groups)
        self.depthwise = conv_bn(c_out // 4, c_out // 4, kernel_size, stride, groups=c_out // 4)
        self.expand = conv_bn(c_out // 4, made, 1, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = channel_shuffle(F.relu(self.compress(x)), self.groups)
        y = self.expand(self.depthwise(y))
        if self.stride > 1:
            y = torch.cat([F.avg_pool2d(x, 3, self.stride, padding=1), y], dim=1)
        elif self.c_in == self.c_out:
            y = x + y
        return F.relu(y)
