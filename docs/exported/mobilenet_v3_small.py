"""A network of the search space mbconv/v1, as plain PyTorch.

Architecture:
    width=100

Input: (N, 3, 224, 224), float32.
Parameters: 2,542,856. MACs, for one example: 56,510,400.

Run this file to check the network against the stored input and output beside it, or

    from model import build, load

    model = build()
    model.load_state_dict(load("model.safetensors"))
    model.eval()
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


class InOrder(nn.Module):
    """Named layers, one after the other."""

    def __init__(self, layers: nn.ModuleDict) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x


def conv_bn(
    c_in: int, c_out: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, and batch norm."""
    conv = nn.Conv2d(
        c_in, c_out, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "hsigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


def make_activation(name: str) -> nn.Module:
    """A new module of the activation of that name: a key of ``ACTIVATIONS``."""
    if name not in ACTIVATIONS:
        raise ValueError(f"no activation {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


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


class Residual(nn.Module):
    """The input plus what ``body`` makes of it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


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


class GlobalAveragePool(nn.Module):
    """The mean over height and width: (N, C, H, W) to (N, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def build() -> nn.Module:
    """The network, with freshly initialised weights."""
    return InOrder(
        layers=nn.ModuleDict(
            {
                "stem": ConvBNAct(c_in=3, c_out=16, kernel_size=3, stride=2, activation="hswish"),
                "stage1_block1": SqueezedSeparableBottleneck(
                    c_in=16,
                    c_out=16,
                    kernel_size=3,
                    squeezed=8,
                    stride=2,
                    activation="relu",
                    squeeze_activation="relu",
                    gate="hsigmoid",
                ),
                "stage2_block1": InvertedBottleneck(
                    c_in=16, hidden=72, c_out=24, kernel_size=3, stride=2, activation="relu"
                ),
                "stage3_block1": Residual(
                    body=InvertedBottleneck(
                        c_in=24, hidden=88, c_out=24, kernel_size=3, stride=1, activation="relu"
                    )
                ),
                "stage4_block1": SqueezedInvertedBottleneck(
                    c_in=24,
                    hidden=96,
                    c_out=40,
                    kernel_size=5,
                    squeezed=24,
                    stride=2,
                    activation="hswish",
                    squeeze_activation="relu",
                    gate="hsigmoid",
                ),
                "stage5_block1": Residual(
                    body=SqueezedInvertedBottleneck(
                        c_in=40,
                        hidden=240,
                        c_out=40,
                        kernel_size=5,
                        squeezed=64,
                        stride=1,
                        activation="hswish",
                        squeeze_activation="relu",
                        gate="hsigmoid",
                    )
                ),
                "stage6_block1": Residual(
                    body=SqueezedInvertedBottleneck(
                        c_in=40,
                        hidden=240,
                        c_out=40,
                        kernel_size=5,
                        squeezed=64,
                        stride=1,
                        activation="hswish",
                        squeeze_activation="relu",
                        gate="hsigmoid",
                    )
                ),
                "stage7_block1": SqueezedInvertedBottleneck(
                    c_in=40,
                    hidden=120,
                    c_out=48,
                    kernel_size=5,
                    squeezed=32,
                    stride=1,
                    activation="hswish",
                    squeeze_activation="relu",
                    gate="hsigmoid",
                ),
                "stage8_block1": Residual(
                    body=SqueezedInvertedBottleneck(
                        c_in=48,
                        hidden=144,
                        c_out=48,
                        kernel_size=5,
                        squeezed=40,
                        stride=1,
                        activation="hswish",
                        squeeze_activation="relu",
                        gate="hsigmoid",
                    )
                ),
                "stage9_block1": SqueezedInvertedBottleneck(
                    c_in=48,
                    hidden=288,
                    c_out=96,
                    kernel_size=5,
                    squeezed=72,
                    stride=2,
                    activation="hswish",
                    squeeze_activation="relu",
                    gate="hsigmoid",
                ),
                "stage10_block1": Residual(
                    body=SqueezedInvertedBottleneck(
                        c_in=96,
                        hidden=576,
                        c_out=96,
                        kernel_size=5,
                        squeezed=144,
                        stride=1,
                        activation="hswish",
                        squeeze_activation="relu",
                        gate="hsigmoid",
                    )
                ),
                "stage11_block1": Residual(
                    body=SqueezedInvertedBottleneck(
                        c_in=96,
                        hidden=576,
                        c_out=96,
                        kernel_size=5,
                        squeezed=144,
                        stride=1,
                        activation="hswish",
                        squeeze_activation="relu",
                        gate="hsigmoid",
                    )
                ),
                "head": ConvBNAct(c_in=96, c_out=576, kernel_size=1, stride=1, activation="hswish"),
                "pool": GlobalAveragePool(),
                "dense": nn.Linear(576, 1024),
                "dense_activation": nn.Hardswish(),
                "dropout": nn.Dropout(p=0.2),
                "classifier": nn.Linear(1024, 1000),
            }
        )
    )


DTYPES = {"F32": torch.float32, "I64": torch.int64}


def load(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file: the header's length in 8 bytes, the header in JSON, the data."""
    content = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    data = torch.frombuffer(content, dtype=torch.uint8)[start:]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def main(model: nn.Module) -> None:
    """Loads the weights beside this file, checks the model, prints its size."""
    folder = Path(__file__).parent
    try:
        model.load_state_dict(load(folder / "model.safetensors"))
        check = load(folder / "check.safetensors")
        x, expected = check["input"], check["output"]
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        sys.exit(f"FAILED: model.safetensors or check.safetensors is missing or damaged: {error}")
    model.eval()
    # In this form the counter sees the products of attention too.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = model(x)
    print(f"parameters: {sum(parameter.numel() for parameter in model.parameters()):,}")
    print(f"MACs: {counter.get_total_flops() // 2 // len(x):,}")
    difference = (output - expected).abs().max().item()
    largest = expected.abs().max().item()
    print(f"largest difference from the stored output: {difference:.3g} (of {largest:.3g})")
    if not difference <= 1e-4 * largest:  # not >, which would let NaN pass
        sys.exit("FAILED: the output is not the stored one; are the weights damaged?")


if __name__ == "__main__":
    main(build())
