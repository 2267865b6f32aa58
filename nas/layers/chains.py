"""Layers of plain chains: no norms, so their weights are initialised as Xavier has it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def initialise(layer: nn.Conv2d | nn.Linear) -> None:
    """Xavier weights, no bias: without norms, torch's own would let the signal die out."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class PlainConv(nn.Module):
    """Convolution that keeps the size, ReLU; without a norm."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.conv = nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2)
        initialise(self.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv(x))


class Dense(nn.Module):
    """Flattening, linear layer, ReLU: (N, …) to (N, width)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.width = width
        self.linear = nn.Linear(features, width)
        initialise(self.linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.linear(x.flatten(1)))


class GlobalPool(nn.Module):
    """1×1 convolution to a map for each class, ReLU, the mean over each: (N, classes)."""

    def __init__(self, c_in: int, classes: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.classes = classes
        self.conv = nn.Conv2d(c_in, classes, 1)
        initialise(self.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv(x)).mean(dim=(2, 3))


class Scores(nn.Module):
    """Flattening and a linear layer: the classes' scores before the softmax."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        self.linear = nn.Linear(features, classes)
        initialise(self.linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))
