"""Channel attention: weights of the channels from their means over the image."""

from __future__ import annotations

import math

import torch
from torch import nn

from nas.layers.activations import make_activation


def divisible(value: float, divisor: int) -> int:
    """The nearest multiple of the divisor that is not more than a tenth below the value.

    The rule of the MobileNets for channels.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate: mean, 1×1 convolution, activation, 1×1 convolution, gate.

    ``squeezed`` channels lie between the convolutions; both have a bias. The gate is ``sigmoid``
    in the paper and in EfficientNet, ``hsigmoid`` in MobileNetV3.

    Hu, Shen & Sun, Squeeze-and-Excitation Networks, CVPR 2018.
    """

    def __init__(
        self, channels: int, squeezed: int, activation: str = "relu", gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        self.channels = channels
        self.squeezed = squeezed
        self.activation = activation
        self.gate = gate
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            make_activation(activation),
            nn.Conv2d(squeezed, channels, 1),
            make_activation(gate),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weigh(x)


def eca_kernel_size(channels: int) -> int:
    """The odd kernel that the paper takes for so many channels (γ 2, b 1)."""
    size = int(abs((math.log2(channels) + 1) / 2))
    return size if size % 2 else size + 1


class EfficientChannelAttention(nn.Module):
    """Scales each channel by a gate that a 1-d convolution reads off its neighbours' means.

    Wang et al., ECA-Net, CVPR 2020.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.conv(x.mean(dim=(2, 3)).unsqueeze(1)).squeeze(1)
        return x * weights.sigmoid()[:, :, None, None]
