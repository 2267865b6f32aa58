"""Blocks with many branches in training that are one convolution at inference.

Each has ``merged()``, which gives the inference form as a module of its own: the same function
in eval mode, of torch's plain layers. The arithmetic of merging is done in float64.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.activations import make_activation
from nas.layers.attention import SqueezeExcitation, divisible
from nas.layers.convolutions import conv_bn
from nas.layers.mobile import Shortcut


def scale_and_bias(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What a batch norm multiplies by and adds in eval mode, a channel, in float64."""
    assert isinstance(norm, nn.BatchNorm2d)
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be merged")
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def kernel_and_bias(layers: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernel and bias of a convolution and its norm (``conv_bn``) as one, in float64."""
    conv, norm = layers.children()
    assert isinstance(conv, nn.Conv2d)
    scale, bias = scale_and_bias(norm)
    return conv.weight.double() * scale[:, None, None, None], bias


def biased(layers: nn.Module, kernel: torch.Tensor, bias: torch.Tensor) -> nn.Conv2d:
    """The convolution of ``conv_bn``, with this kernel and bias."""
    conv = next(layers.children())
    assert isinstance(conv, nn.Conv2d)
    merged = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        kernel.shape[-1],
        conv.stride[0],
        padding=kernel.shape[-1] // 2,
        groups=conv.groups,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    merged.weight.copy_(kernel)
    assert merged.bias is not None
    merged.bias.copy_(bias)
    return merged


def folded(layers: nn.Module) -> nn.Conv2d:
    """A convolution and its norm (``conv_bn``) as one convolution."""
    return biased(layers, *kernel_and_bias(layers))


class RepVGGBlock(nn.Module):
    """A 3×3 and a 1×1 convolution and, where the shape stays, the input, each normed; summed.

    Merged it is one 3×3 convolution with bias, and the activation.

    Ding et al., RepVGG, CVPR 2021.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int = 1, groups: int = 1, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.stride = stride
        self.groups = groups
        self.activation = activation
        self.branches = nn.ModuleList(
            [conv_bn(c_in, c_out, 3, stride, groups), conv_bn(c_in, c_out, 1, stride, groups)]
        )
        if stride == 1 and c_in == c_out:
            self.branches.append(nn.BatchNorm2d(c_in))
        self.act = make_activation(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *others = (branch(x) for branch in self.branches)
        return self.act(sum(others, start=first))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """One convolution with bias, and the activation."""
        dense, point, *identity = self.branches
        kernel, bias = kernel_and_bias(dense)
        kernel_1, bias_1 = kernel_and_bias(point)
        kernel, bias = kernel + F.pad(kernel_1, [1, 1, 1, 1]), bias + bias_1
        for norm in identity:
            scale, shift = scale_and_bias(norm)
            channel = torch.arange(self.c_in, device=kernel.device)
            # The input as a kernel: each channel takes its own place within its group.
            kernel[channel, channel % kernel.shape[1], 1, 1] += scale
            bias = bias + shift
        return nn.Sequential(biased(dense, kernel, bias), make_activation(self.activation))


class RepGhostModule(nn.Module):
    """A 1×1 convolution, then a depthwise one and its input, each normed; summed.

    The sum stands for the Ghost module's concatenation. Merged it is two convolutions.

    Chen et al., RepGhost, 2022.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel_size: int = 3, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.activation = activation
        self.primary = conv_bn(c_in, c_out, 1)
        self.cheap = conv_bn(c_out, c_out, kernel_size, groups=c_out)
        self.fusion = nn.BatchNorm2d(c_out)
        self.act = make_activation(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.primary(x))
        return self.act(self.cheap(x) + self.fusion(x))

    @torch.no_grad()
    def merged(self) -> nn.Sequential:
        """Two convolutions with bias, each with its activation where it has one."""
        kernel, bias = kernel_and_bias(self.cheap)
        scale, shift = scale_and_bias(self.fusion)
        middle = self.kernel_size // 2
        kernel[:, 0, middle, middle] += scale
        layers = nn.Sequential()
        for merged in (folded(self.primary), biased(self.cheap, kernel, bias + shift)):
            layers.append(merged)
            if self.activation != "identity":
                layers.append(make_activation(self.activation))
        return layers


class RepGhostBottleneck(nn.Module):
    """Two RepGhost modules, the second linear; between them a depthwise convolution at stride 2
    and squeeze-and-excitation; a shortcut around all.

    ``expansion`` times ``c_in`` channels lie inside, and ``se_ratio`` of those (a multiple of 4)
    in the squeeze; 0 is none.

    Chen et al., RepGhost, 2022.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int = 3,
        stride: int = 1,
        expansion: float = 1.5,
        se_ratio: float = 0.0,
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.expansion = expansion
        self.se_ratio = se_ratio
        inside = round(expansion * c_in)
        layers: list[nn.Module] = [RepGhostModule(c_in, inside)]
        if stride > 1:
            layers.append(conv_bn(inside, inside, kernel_size, stride, groups=inside))
        if se_ratio:
            squeezed = divisible(se_ratio * inside, 4)
            layers.append(SqueezeExcitation(inside, squeezed, gate="hsigmoid"))
        layers.append(RepGhostModule(inside, c_out, activation="identity"))
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Sequential()
        if stride > 1 or c_in != c_out:
            self.shortcut.append(conv_bn(c_in, c_in, kernel_size, stride, groups=c_in))
            self.shortcut.append(conv_bn(c_in, c_out, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.layers(x)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The same with every norm inside its convolution."""
        layers: list[nn.Module] = []
        for layer in self.layers:
            if isinstance(layer, RepGhostModule):
                layers += layer.merged()
            elif isinstance(layer, SqueezeExcitation):
                layers.append(copy.deepcopy(layer))
            else:
                layers.append(folded(layer))
        return Shortcut(nn.Sequential(*layers), nn.Sequential(*map(folded, self.shortcut)))
