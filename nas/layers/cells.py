"""What cell-based networks are made of: operations, cells, stems, and the network around them.

The definitions are those of the DARTS code (Liu, Simonyan & Yang, "DARTS: Differentiable
Architecture Search", ICLR 2019), which its successors share. Operations take and give a state
(N, C, H, W); at stride 2 they halve height and width, rounding up.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.basic import ReLUConvBN

# ------------------------------------------------------------------------------- operations


class FactorizedReduction(nn.Module):
    """ReLU, halved size without loss: two 1×1 convolutions on shifted grids, batch norm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.conv_a = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.conv_b = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        odd_height, odd_width = x.shape[2] % 2, x.shape[3] % 2
        shifted = x[:, :, 1:, 1:]
        if odd_height or odd_width:  # the shifted grid has a row or column less: zeros for it
            shifted = F.pad(shifted, (0, odd_width, 0, odd_height))
        return self.norm(torch.cat([self.conv_a(x), self.conv_b(shifted)], dim=1))


class SepConv(nn.Module):
    """ReLU, depthwise and pointwise convolution, batch norm: twice, the stride in the first."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        padding = kernel_size // 2
        self.depthwise_a = nn.Conv2d(
            c_in, c_in, kernel_size, stride, padding, groups=c_in, bias=False
        )
        self.pointwise_a = nn.Conv2d(c_in, c_in, 1, bias=False)
        self.norm_a = nn.BatchNorm2d(c_in)
        self.depthwise_b = nn.Conv2d(
            c_in, c_in, kernel_size, padding=padding, groups=c_in, bias=False
        )
        self.pointwise_b = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm_b = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm_a(self.pointwise_a(self.depthwise_a(F.relu(x))))
        return self.norm_b(self.pointwise_b(self.depthwise_b(F.relu(x))))


class DilConv(nn.Module):
    """ReLU, dilated depthwise convolution, pointwise convolution, batch norm."""

    def __init__(
        self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, dilation: int = 2
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        padding = kernel_size // 2 * dilation
        self.depthwise = nn.Conv2d(
            c_in, c_in, kernel_size, stride, padding, dilation, groups=c_in, bias=False
        )
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.pointwise(self.depthwise(F.relu(x))))


class AsymmetricConv(nn.Module):
    """ReLU, 1×k convolution, k×1 convolution, batch norm; each strides in its own direction."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.kernel_size = kernel_size
        self.stride = stride
        padding = kernel_size // 2
        self.conv_row = nn.Conv2d(
            c_in, c_out, (1, kernel_size), (1, stride), (0, padding), bias=False
        )
        self.conv_column = nn.Conv2d(
            c_out, c_out, (kernel_size, 1), (stride, 1), (padding, 0), bias=False
        )
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv_column(self.conv_row(F.relu(x))))


class DropPath(nn.Module):
    """In training, zeroes a whole example with this probability and scales up the others.

    ``probability`` may be set between epochs. Larsson, Maire & Shakhnarovich, "FractalNet",
    ICLR 2017.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        shape = (x.shape[0], *[1] * (x.dim() - 1))
        mask = torch.bernoulli(torch.full(shape, kept, device=x.device))
        return x * (mask / kept).to(x.dtype)


# ------------------------------------------------------------------------------------ cells


class SumOfEdges(nn.Module):
    """A node: the sum of its edges, each named by the number of the state that it reads."""

    def __init__(self, edges: nn.ModuleDict) -> None:
        super().__init__()
        self.edges = edges

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        terms = [edge(states[int(source)]) for source, edge in self.edges.items()]
        return sum(terms[1:], start=terms[0])


class Concatenate(nn.Module):
    """What a cell gives on: these of its states, joined along the channels."""

    def __init__(self, joined: tuple[int, ...]) -> None:
        super().__init__()
        self.joined = joined

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([states[index] for index in self.joined], dim=1)


class Cell(nn.Module):
    """Two states in, a new one from each node, and some of them out."""

    def __init__(
        self,
        prepare_before: nn.Module,
        prepare_last: nn.Module,
        nodes: nn.ModuleList,
        join: nn.Module,
    ) -> None:
        super().__init__()
        self.prepare_before = prepare_before
        self.prepare_last = prepare_last
        self.nodes = nodes
        self.join = join

    def forward(self, before: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        states = [self.prepare_before(before), self.prepare_last(last)]
        for node in self.nodes:
            states.append(node(states))
        return self.join(states)


# --------------------------------------------------------------------------------- networks


class CifarStem(nn.Module):
    """3×3 convolution and batch norm; both states are the same."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.norm(self.conv(x))
        return x, x


class ImageNetStem(nn.Module):
    """Three 3×3 convolutions of stride 2: the states are at a quarter and an eighth of the size."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.c_out = c_out
        self.conv = nn.Conv2d(c_in, c_out // 2, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out // 2)
        self.quarter = ReLUConvBN(c_in=c_out // 2, c_out=c_out, kernel_size=3, stride=2)
        self.eighth = ReLUConvBN(c_in=c_out, c_out=c_out, kernel_size=3, stride=2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        quarter = self.quarter(self.norm(self.conv(x)))
        return quarter, self.eighth(quarter)


class AuxiliaryHead(nn.Module):
    """A second classifier on a state of at least (5 + stride)² places."""

    def __init__(self, c_in: int, classes: int, stride: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.classes = classes
        self.stride = stride
        self.pool = nn.AvgPool2d(5, stride=stride)
        self.conv_a = nn.Conv2d(c_in, 128, 1, bias=False)
        self.norm_a = nn.BatchNorm2d(128)
        self.conv_b = nn.Conv2d(128, 768, 2, bias=False)
        self.norm_b = nn.BatchNorm2d(768)
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm_a(self.conv_a(self.pool(F.relu(x)))))
        x = F.relu(self.norm_b(self.conv_b(x)))
        return self.classifier(x.mean(dim=(2, 3)))


class CellNetwork(nn.Module):
    """A stem, cells that each read the two states before them, pooling and a classifier."""

    def __init__(self, stem: nn.Module, cells: nn.ModuleList, classifier: nn.Linear) -> None:
        super().__init__()
        self.stem = stem
        self.cells = cells
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before, last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier(last.mean(dim=(2, 3)))


class AuxiliaryCellNetwork(nn.Module):
    """The same with a second classifier behind one cell.

    In training it gives a pair (logits, auxiliary logits), in eval mode the logits alone.
    """

    def __init__(
        self,
        stem: nn.Module,
        cells: nn.ModuleList,
        classifier: nn.Linear,
        auxiliary: nn.Module,
        behind: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.cells = cells
        self.classifier = classifier
        self.auxiliary = auxiliary
        self.behind = behind

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        before, last = self.stem(x)
        auxiliary = last
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if index == self.behind and self.training:
                auxiliary = self.auxiliary(last)
        logits = self.classifier(last.mean(dim=(2, 3)))
        return (logits, auxiliary) if self.training else logits
