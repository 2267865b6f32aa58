"""The bottleneck blocks of residual networks.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016. The stride is in the 3×3
convolution, as in the networks that are in use; the paper has it in the first 1×1.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.convolutions import conv_bn


class ResidualBottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution, through ``hidden`` channels; the input is added, then ReLU."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.channels = channels
        self.hidden = hidden
        self.reduce = conv_bn(channels, hidden, 1)
        self.conv = conv_bn(hidden, hidden, 3)
        self.expand = conv_bn(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.conv(F.relu(self.reduce(x))))
        return F.relu(x + self.expand(y))


class ProjectedBottleneck(nn.Module):
    """``ResidualBottleneck`` that changes the shape: a 1×1 convolution of the input is added."""

    def __init__(self, c_in: int, hidden: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.stride = stride
        self.reduce = conv_bn(c_in, hidden, 1)
        self.conv = conv_bn(hidden, hidden, 3, stride)
        self.expand = conv_bn(hidden, c_out, 1)
        self.shortcut = conv_bn(c_in, c_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.conv(F.relu(self.reduce(x))))
        return F.relu(self.shortcut(x) + self.expand(y))
