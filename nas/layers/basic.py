"""Convolutions with norm and activation, and pooling to a vector."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class ReLUConvBN(nn.Module):
    """ReLU, convolution that keeps the size at stride 1, batch norm."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.conv = nn.Conv2d(
            c_in, c_out, kernel_size, stride, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(F.relu(x)))


class ConvBNReLU(nn.Module):
    """Convolution that keeps the size at stride 1, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.conv = nn.Conv2d(
            c_in, c_out, kernel_size, stride, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)))


class ResidualReduction(nn.Module):
    """Halves the size: two ReLU-conv-norms beside an average pool and a 1×1 convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.conv_a = ReLUConvBN(c_in, c_out, kernel_size=3, stride=2)
        self.conv_b = ReLUConvBN(c_out, c_out, kernel_size=3)
        # Rounding up, as the strided convolution does, so that odd sizes fit too.
        self.pool = nn.AvgPool2d(2, stride=2, ceil_mode=True)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(self.pool(x)) + self.conv_b(self.conv_a(x))


class GlobalAveragePool(nn.Module):
    """The mean over height and width: (N, C, H, W) to (N, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))
