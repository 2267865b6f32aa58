"""Cheap replacements of the convolution: Ghost, MixConv, octave, shift, partial, star."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.activations import make_activation
from nas.layers.attention import SqueezeExcitation, divisible
from nas.layers.convolutions import conv_bn

# ------------------------------------------------------------------------------------ ghost


class GhostModule(nn.Module):
    """Half of the channels by a convolution, the rest from those by a depthwise one.

    An odd number of channels is cut from the next even one, as the paper's code does.

    Han et al., GhostNet, CVPR 2020 (s 2, d 3).
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int = 1,
        stride: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.activation = activation
        half = (c_out + 1) // 2
        self.primary = conv_bn(c_in, half, kernel_size, stride)
        self.cheap = conv_bn(half, half, 3, groups=half)
        self.act = make_activation(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.primary(x))
        return torch.cat([x, self.act(self.cheap(x))], dim=1)[:, : self.c_out]


class GhostBottleneck(nn.Module):
    """Two Ghost modules, the second linear; between them a depthwise convolution at stride 2 and
    squeeze-and-excitation; a shortcut around all.

    ``expansion`` times ``c_in`` channels lie inside, and ``se_ratio`` of those (a multiple of 4)
    in the squeeze; 0 is none.

    Han et al., GhostNet, CVPR 2020.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int = 3,
        stride: int = 1,
        expansion: float = 2.0,
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
        layers: list[nn.Module] = [GhostModule(c_in, inside)]
        if stride > 1:
            layers.append(conv_bn(inside, inside, kernel_size, stride, groups=inside))
        if se_ratio:
            squeezed = divisible(se_ratio * inside, 4)
            layers.append(SqueezeExcitation(inside, squeezed, gate="hsigmoid"))
        layers.append(GhostModule(inside, c_out, activation="identity"))
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Sequential()
        if stride > 1 or c_in != c_out:
            self.shortcut.append(conv_bn(c_in, c_in, kernel_size, stride, groups=c_in))
            self.shortcut.append(conv_bn(c_in, c_out, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.layers(x)


# ---------------------------------------------------------------------------------- mixconv


class MixedDepthwise(nn.Module):
    """Depthwise convolution whose channels are parted among kernels of several sizes.

    The parts are equal; what is left over goes to the first.

    Tan & Le, MixConv, BMVC 2019.
    """

    def __init__(self, channels: int, kernel_sizes: tuple[int, ...], stride: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_sizes = kernel_sizes
        self.stride = stride
        self.parts = [channels // len(kernel_sizes)] * len(kernel_sizes)
        self.parts[0] += channels % len(kernel_sizes)
        self.convs = nn.ModuleList(
            nn.Conv2d(part, part, size, stride, padding=size // 2, groups=part, bias=False)
            for part, size in zip(self.parts, kernel_sizes, strict=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = zip(self.convs, torch.split(x, self.parts, dim=1), strict=True)
        return torch.cat([conv(part) for conv, part in parts], dim=1)


class MixBlock(nn.Module):
    """The inverted residual block with mixed kernels, squeeze-and-excitation where asked for.

    The squeeze has ``se_ratio`` of ``c_in`` channels; the input is added where the shape stays.

    Tan & Le, MixConv, BMVC 2019 (without the grouped pointwise convolutions of some blocks).
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_sizes: tuple[int, ...],
        stride: int = 1,
        expansion: float = 6.0,
        se_ratio: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_sizes = kernel_sizes
        self.stride = stride
        self.expansion = expansion
        self.se_ratio = se_ratio
        self.activation = activation
        inside = round(expansion * c_in)
        layers: list[nn.Module] = []
        if inside != c_in:
            layers += [conv_bn(c_in, inside, 1), make_activation(activation)]
        layers.append(MixedDepthwise(inside, kernel_sizes, stride))
        layers += [nn.BatchNorm2d(inside), make_activation(activation)]
        if se_ratio:
            squeezed = max(1, int(se_ratio * c_in))
            layers.append(SqueezeExcitation(inside, squeezed, activation))
        layers.append(conv_bn(inside, c_out, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return x + y if y.shape == x.shape else y


# ----------------------------------------------------------------------------------- octave


class OctaveConv(nn.Module):
    """Convolution in two resolutions: a part ``alpha`` of the channels is kept at half the size.

    As a block of its own, that ordinary tensors enter and leave: the last channels are pooled
    on entry, both parts are convolved into both, normed, activated, and the low one is brought
    back to full size on exit. A stride is an average pool before it all, as in the paper.

    Chen et al., Drop an Octave, ICCV 2019.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int = 3,
        stride: int = 1,
        alpha: float = 0.25,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.alpha = alpha
        self.activation = activation
        self.parts = [c_in - int(alpha * c_in), int(alpha * c_in)]
        made = [c_out - int(alpha * c_out), int(alpha * c_out)]
        if 0 in self.parts + made:
            raise ValueError(f"{c_in} to {c_out} channels leave none for alpha {alpha}")
        self.reduce = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.halve = nn.AvgPool2d(2, ceil_mode=True)
        high, low = (
            nn.ModuleList(
                nn.Conv2d(part, c, kernel_size, padding=kernel_size // 2, bias=False)
                for part in self.parts
            )
            for c in made
        )
        self.to_high, self.to_low = high, low
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in made)
        self.act = make_activation(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high, low = torch.split(self.reduce(x), self.parts, dim=1)
        low = self.halve(low)
        size = high.shape[2:]
        to_high = self.to_high[0](high) + F.interpolate(self.to_high[1](low), size)
        to_low = self.to_low[0](self.halve(high)) + self.to_low[1](low)
        to_high, to_low = self.norms[0](to_high), self.norms[1](to_low)
        return torch.cat([self.act(to_high), F.interpolate(self.act(to_low), size)], dim=1)


# ------------------------------------------------------------------------------------ shift


class Shift(nn.Module):
    """Moves each group of channels by one step of a kernel, zeros coming in; nothing is learnt.

    As many groups as the kernel has places; channels left over stay where they are.

    Wu et al., Shift, CVPR 2018.
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        if channels < kernel_size**2:
            raise ValueError(
                f"a shift of kernel {kernel_size} needs {kernel_size**2} channels, got {channels}"
            )
        self.channels = channels
        self.kernel_size = kernel_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        size = self.channels // self.kernel_size**2
        padded = F.pad(x, [self.kernel_size // 2] * 4)
        moved = [
            padded[:, first : first + size, row : row + height, column : column + width]
            for place in range(self.kernel_size**2)
            for first in [place * size]
            for row, column in [divmod(place, self.kernel_size)]
        ]
        return torch.cat([*moved, x[:, self.kernel_size**2 * size :]], dim=1)


class ShiftBlock(nn.Module):
    """1×1 convolution, shift, strided 1×1 convolution, with a shortcut around them.

    ``expansion`` times ``c_out`` channels are shifted.

    Wu et al., Shift, CVPR 2018 (the residual block of ShiftResNet).
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int = 3,
        stride: int = 1,
        expansion: float = 1.0,
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.expansion = expansion
        inside = round(expansion * c_out)
        self.layers = nn.Sequential(
            conv_bn(c_in, inside, 1),
            nn.ReLU(),
            Shift(inside, kernel_size),
            conv_bn(inside, c_out, 1, stride),
        )
        changes = stride > 1 or c_in != c_out
        self.shortcut = conv_bn(c_in, c_out, 1, stride) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.shortcut(x) + self.layers(x))


# ------------------------------------------------------------------------- partial and star


class PartialConvBlock(nn.Module):
    """A convolution of one ``part``-th of the channels, then two 1×1 convolutions, residual.

    Chen et al., FasterNet, CVPR 2023.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        part: int = 4,
        expansion: float = 2.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        self.part = part
        self.expansion = expansion
        self.activation = activation
        inside = round(expansion * channels)
        self.parts = [channels // part, channels - channels // part]
        self.conv = nn.Conv2d(
            channels // part,
            channels // part,
            kernel_size,
            padding=kernel_size // 2,
            bias=False,
        )
        self.mix = nn.Sequential(
            conv_bn(channels, inside, 1),
            make_activation(activation),
            nn.Conv2d(inside, channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, rest = torch.split(x, self.parts, dim=1)
        return x + self.mix(torch.cat([self.conv(first), rest], dim=1))


class StarBlock(nn.Module):
    """Two 1×1 convolutions multiplied, between depthwise ones, residual.

    The paper's convolutions before a norm have a bias, which the norm takes away again; here
    they have none.

    Ma et al., Rewrite the Stars, CVPR 2024 (the block of StarNet).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        expansion: float = 4.0,
        activation: str = "relu6",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        self.expansion = expansion
        self.activation = activation
        inside = round(expansion * channels)
        self.depthwise = conv_bn(channels, channels, kernel_size, groups=channels)
        self.gate = nn.Conv2d(channels, inside, 1)
        self.act = make_activation(activation)
        self.value = nn.Conv2d(channels, inside, 1)
        self.project = nn.Sequential(
            conv_bn(inside, channels, 1),
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(x)
        return x + self.project(self.act(self.gate(y)) * self.value(y))
