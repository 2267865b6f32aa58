"""The Shuffle blocks of the single-path one-shot space: ShuffleNetV2's, with larger kernels.

At stride 1 half of the channels (every other one) pass untouched and the branch works on the
rest. At stride 2 the branch works on all, beside a depthwise and a 1×1 convolution of all.

Ma et al., ShuffleNet V2, ECCV 2018; Guo et al., Single Path One-Shot, ECCV 2020.
"""

from __future__ import annotations

import torch
from torch import nn

from nas.layers.convolutions import conv_bn


def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The even channels and the odd ones."""
    return x[:, 0::2], x[:, 1::2]


class ShuffleBranch(nn.Module):
    """1×1 convolution to ``hidden`` channels, depthwise convolution, 1×1 convolution."""

    def __init__(
        self, c_in: int, hidden: int, c_out: int, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.expand = conv_bn(c_in, hidden, 1)
        self.depthwise = conv_bn(hidden, hidden, kernel_size, stride, groups=hidden)
        self.project = conv_bn(hidden, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.expand(x).relu())
        return self.project(x).relu()


class XceptionBranch(nn.Module):
    """Three times a 3×3 depthwise and a 1×1 convolution, the first with the stride."""

    def __init__(self, c_in: int, hidden: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.stride = stride
        self.depthwise1 = conv_bn(c_in, c_in, 3, stride, groups=c_in)
        self.pointwise1 = conv_bn(c_in, hidden, 1)
        self.depthwise2 = conv_bn(hidden, hidden, 3, groups=hidden)
        self.pointwise2 = conv_bn(hidden, hidden, 1)
        self.depthwise3 = conv_bn(hidden, hidden, 3, groups=hidden)
        self.pointwise3 = conv_bn(hidden, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pointwise1(self.depthwise1(x)).relu()
        x = self.pointwise2(self.depthwise2(x)).relu()
        return self.pointwise3(self.depthwise3(x)).relu()


class ShuffleShortcut(nn.Module):
    """What stands beside the branch at stride 2: depthwise and 1×1 convolution."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        self.depthwise = conv_bn(channels, channels, kernel_size, stride=2, groups=channels)
        self.pointwise = conv_bn(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(x)).relu()


class ShuffleBlock(nn.Module):
    """Every other channel as it is, joined by a ``ShuffleBranch`` of the rest."""

    def __init__(self, channels: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.channels = channels
        self.hidden = hidden
        self.kernel_size = kernel_size
        self.branch = ShuffleBranch(channels // 2, hidden, channels // 2, kernel_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, rest = halves(x)
        return torch.cat([kept, self.branch(rest)], dim=1)


class ShuffleReduction(nn.Module):
    """Halves the size: a ``ShuffleBranch`` makes the channels that ``c_out`` has more."""

    def __init__(self, c_in: int, hidden: int, c_out: int, kernel_size: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.shortcut = ShuffleShortcut(c_in, kernel_size)
        self.branch = ShuffleBranch(c_in, hidden, c_out - c_in, kernel_size, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.shortcut(x), self.branch(x)], dim=1)


class ShuffleXception(nn.Module):
    """Every other channel as it is, joined by an ``XceptionBranch`` of the rest."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.channels = channels
        self.hidden = hidden
        self.branch = XceptionBranch(channels // 2, hidden, channels // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, rest = halves(x)
        return torch.cat([kept, self.branch(rest)], dim=1)


class ShuffleXceptionReduction(nn.Module):
    """Halves the size: an ``XceptionBranch`` makes the channels that ``c_out`` has more."""

    def __init__(self, c_in: int, hidden: int, c_out: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.shortcut = ShuffleShortcut(c_in, 3)
        self.branch = XceptionBranch(c_in, hidden, c_out - c_in, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.shortcut(x), self.branch(x)], dim=1)
