"""The blocks of mobile networks: inverted bottlenecks and their kin, and the Shuffle blocks.

A bottleneck here is the way through; ``Residual`` adds its input, ``Shortcut`` what a layer
makes of it. ``hidden`` is the number of channels inside, ``squeezed`` that inside the
squeeze-and-excitation.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.activations import make_activation
from nas.layers.attention import SqueezeExcitation
from nas.layers.convolutions import channel_shuffle, conv_bn


class Residual(nn.Module):
    """The input plus what ``body`` makes of it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Shortcut(nn.Module):
    """What ``body`` makes of the input plus what ``shortcut`` makes of it."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.body(x)


class NoShortcut(nn.Module):
    """``body`` alone, where a block of another network has a shortcut around it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class InOrder(nn.Module):
    """Named layers, one after the other."""

    def __init__(self, layers: nn.ModuleDict) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x


class Resize(nn.Module):
    """Scales the image to ``size`` × ``size`` pixels, bilinearly."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = (self.size, self.size)
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


# ------------------------------------------------------------------------------ bottlenecks


class ConvBNAct(nn.Module):
    """Convolution that keeps the size at stride 1, batch norm, activation."""

    def __init__(
        self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.activation = activation
        self.conv = conv_bn(c_in, c_out, kernel_size, stride)
        self.act = make_activation(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(x))


class SqueezedConv(nn.Module):
    """Convolution, batch norm, activation, squeeze-and-excitation."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        squeezed: int,
        stride: int = 1,
        activation: str = "relu",
        squeeze_activation: str = "relu",
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.squeezed = squeezed
        self.stride = stride
        self.activation = activation
        self.squeeze_activation = squeeze_activation
        self.gate = gate
        self.conv = conv_bn(c_in, c_out, kernel_size, stride)
        self.act = make_activation(activation)
        self.squeeze = SqueezeExcitation(c_out, squeezed, squeeze_activation, gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.squeeze(self.act(self.conv(x)))


class SeparableBottleneck(nn.Module):
    """Depthwise convolution, linear 1×1 convolution: an inverted bottleneck that does not expand.

    Sandler et al., MobileNetV2, CVPR 2018.
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
        self.depthwise = conv_bn(c_in, c_in, kernel_size, stride, groups=c_in)
        self.act = make_activation(activation)
        self.project = conv_bn(c_in, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(self.act(self.depthwise(x)))


class SqueezedSeparableBottleneck(nn.Module):
    """``SeparableBottleneck`` with squeeze-and-excitation after the depthwise convolution."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        squeezed: int,
        stride: int = 1,
        activation: str = "relu",
        squeeze_activation: str = "relu",
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.squeezed = squeezed
        self.stride = stride
        self.activation = activation
        self.squeeze_activation = squeeze_activation
        self.gate = gate
        self.depthwise = conv_bn(c_in, c_in, kernel_size, stride, groups=c_in)
        self.act = make_activation(activation)
        self.squeeze = SqueezeExcitation(c_in, squeezed, squeeze_activation, gate)
        self.project = conv_bn(c_in, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(self.squeeze(self.act(self.depthwise(x))))


class InvertedBottleneck(nn.Module):
    """1×1 convolution to ``hidden`` channels, depthwise convolution, linear 1×1 convolution.

    Sandler et al., MobileNetV2, CVPR 2018.
    """

    def __init__(
        self,
        c_in: int,
        hidden: int,
        c_out: int,
        kernel_size: int,
        stride: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.activation = activation
        self.expand = conv_bn(c_in, hidden, 1)
        self.depthwise = conv_bn(hidden, hidden, kernel_size, stride, groups=hidden)
        self.act = make_activation(activation)
        self.project = conv_bn(hidden, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.expand(x))
        return self.project(self.act(self.depthwise(x)))


class SqueezedInvertedBottleneck(nn.Module):
    """``InvertedBottleneck`` with squeeze-and-excitation after the depthwise convolution.

    Tan et al., MnasNet, CVPR 2019.
    """

    def __init__(
        self,
        c_in: int,
        hidden: int,
        c_out: int,
        kernel_size: int,
        squeezed: int,
        stride: int = 1,
        activation: str = "relu",
        squeeze_activation: str = "relu",
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.squeezed = squeezed
        self.stride = stride
        self.activation = activation
        self.squeeze_activation = squeeze_activation
        self.gate = gate
        self.expand = conv_bn(c_in, hidden, 1)
        self.depthwise = conv_bn(hidden, hidden, kernel_size, stride, groups=hidden)
        self.act = make_activation(activation)
        self.squeeze = SqueezeExcitation(hidden, squeezed, squeeze_activation, gate)
        self.project = conv_bn(hidden, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.expand(x))
        return self.project(self.squeeze(self.act(self.depthwise(x))))


class GroupedInvertedBottleneck(nn.Module):
    """``InvertedBottleneck`` with grouped 1×1 convolutions and a channel shuffle after the first.

    Wu et al., FBNet, CVPR 2019.
    """

    def __init__(
        self,
        c_in: int,
        hidden: int,
        c_out: int,
        kernel_size: int,
        groups: int,
        stride: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.groups = groups
        self.stride = stride
        self.activation = activation
        self.expand = conv_bn(c_in, hidden, 1, groups=groups)
        self.depthwise = conv_bn(hidden, hidden, kernel_size, stride, groups=hidden)
        self.act = make_activation(activation)
        self.project = conv_bn(hidden, c_out, 1, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = channel_shuffle(self.act(self.expand(x)), self.groups)
        return self.project(self.act(self.depthwise(x)))


class FusedInvertedBottleneck(nn.Module):
    """One full convolution in place of the first 1×1 and the depthwise one.

    Gupta & Akin, Accelerator-aware Neural Network Design using AutoML (EfficientNet-EdgeTPU), 2020.
    """

    def __init__(
        self,
        c_in: int,
        hidden: int,
        c_out: int,
        kernel_size: int,
        stride: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.activation = activation
        self.expand = conv_bn(c_in, hidden, kernel_size, stride)
        self.act = make_activation(activation)
        self.project = conv_bn(hidden, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(self.act(self.expand(x)))


class UniversalInvertedBottleneck(nn.Module):
    """An inverted bottleneck with two optional depthwise convolutions: before it and inside.

    A kernel of 0 leaves its convolution out: ``start_kernel`` 0 gives the inverted bottleneck,
    ``kernel_size`` 0 the ConvNeXt-like block, both 0 the feed-forward one. The stride is the
    inner convolution's where there is one, else the first one's, so one of them is needed for it.

    Qin et al., MobileNetV4, ECCV 2024.
    """

    def __init__(
        self,
        c_in: int,
        hidden: int,
        c_out: int,
        start_kernel: int,
        kernel_size: int,
        stride: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if stride > 1 and not (start_kernel or kernel_size):
            raise ValueError(f"a stride of {stride} needs a depthwise convolution, got none")
        self.c_in = c_in
        self.hidden = hidden
        self.c_out = c_out
        self.start_kernel = start_kernel
        self.kernel_size = kernel_size
        self.stride = stride
        self.activation = activation
        layers: list[nn.Module] = []
        if start_kernel:
            start_stride = 1 if kernel_size else stride
            layers.append(conv_bn(c_in, c_in, start_kernel, start_stride, groups=c_in))
        layers += [conv_bn(c_in, hidden, 1), make_activation(activation)]
        if kernel_size:
            layers.append(conv_bn(hidden, hidden, kernel_size, stride, groups=hidden))
            layers.append(make_activation(activation))
        self.layers = nn.Sequential(*layers, conv_bn(hidden, c_out, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)
