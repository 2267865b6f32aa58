"""Networks written out layer by layer, by nothing of the project, to count others against.

Activations and the additions of residuals cost nothing and are left out where they can be.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def counted(model: nn.Module, size: int) -> tuple[int, int]:
    """Parameters, and multiply-accumulates for one image as torch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        model.eval()(torch.empty(1, 3, size, size, device="meta"))
    total = flops.get_total_flops()
    assert total % 2 == 0
    return sum(parameter.numel() for parameter in model.parameters()), total // 2


def rounded(channels: float) -> int:
    """The MobileNets' rule: to a multiple of 8, by no more than a tenth down."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(c_out)]


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = rounded(channels // 4)
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inside, 1),
            nn.Conv2d(inside, channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.layers(x)


def mobile(
    stem: int,
    first: int,
    rows: list[tuple[int, int, int, int, int, bool]],
    head: int,
    dense: int = 0,
    dense_bias: bool = True,
    classes: int = 1000,
) -> nn.Module:
    """A mobile network on meta.

    Args:
        rows: of a stage each: channels, blocks, stride, kernel, expansion, whether squeezed.
    """
    with torch.device("meta"):
        layers = [*conv(3, stem, 3, 2), *conv(stem, stem, 3, 1, stem), *conv(stem, first, 1)]
        c_in = first
        for c, blocks, stride, kernel, expansion, squeezed in rows:
            for block in range(blocks):
                hidden = c_in * expansion
                layers += conv(c_in, hidden, 1)
                layers += conv(hidden, hidden, kernel, 1 if block else stride, hidden)
                layers += [Squeeze(hidden)] if squeezed else []
                layers += conv(hidden, c, 1)
                c_in = c
        layers += [*conv(c_in, head, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        layers += [nn.Linear(head, dense, bias=dense_bias)] if dense else []
        return nn.Sequential(*layers, nn.Linear(dense or head, classes))


class Bottleneck(nn.Module):
    def __init__(self, c_in: int, hidden: int, c_out: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv(c_in, hidden, 1),
            nn.ReLU(),
            *conv(hidden, hidden, 3, stride),
            nn.ReLU(),
            *conv(hidden, c_out, 1),
        )
        self.beside = nn.Sequential(*conv(c_in, c_out, 1, stride) if projects else [])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.beside(x))


def resnet(
    stem: int, rows: list[tuple[int, int, int]], classes: int = 1000, device: str = "meta"
) -> nn.Module:
    """A residual network of bottlenecks behind a 7×7 convolution and a max pool.

    Args:
        rows: of a stage each: blocks, channels inside, channels.
    """
    with torch.device(device):
        layers = [*conv(3, stem, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        c_in = stem
        for stage, (blocks, hidden, c) in enumerate(rows):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(Bottleneck(c_in, hidden, c, stride, projects=not block))
                c_in = c
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, *pool, nn.Linear(c_in, classes))
