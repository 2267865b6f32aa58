"""The search network and the first-order step of DARTS, as the paper states them.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019. Every edge computes
all of its eight operations, ``none`` too, and adds up the weighted results; each of the two
backward passes of a step reaches weights and architecture parameters alike; images are NCHW.
Written for comparison: the tensors come in the order in which the framework's supernet has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

# A script's own folder is looked into first, and ``strategies.py`` here has the name of a package:
# who imports this module first gets the package.
HERE = Path(__file__).resolve().parent
sys.path[:] = [place for place in sys.path if Path(place).resolve() != HERE]


def norm(channels: int, affine: bool = False) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=affine)


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class Reduction(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.two = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = norm(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        return self.norm(torch.cat([self.one(x), self.two(x[:, :, 1:, 1:])], dim=1))


def separable(c: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, stride, kernel // 2, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        norm(c),
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, 1, kernel // 2, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        norm(c),
    )


def dilated(c: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, stride, kernel - 1, dilation=2, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        norm(c),
    )


class MixedOperation(nn.Module):
    def __init__(self, c: int, stride: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(
            [
                Zero(stride),
                nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(c)),
                nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm(c)),
                nn.Identity() if stride == 1 else Reduction(c, c),
                separable(c, 3, stride),
                separable(c, 5, stride),
                dilated(c, 3, stride),
                dilated(c, 5, stride),
            ]
        )

    def forward(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        terms = [w * op(x) for w, op in zip(weights, self.operations, strict=True)]
        return sum(terms[1:], start=terms[0])


class Cell(nn.Module):
    def __init__(
        self, before: int, last: int, c: int, reduction: bool, after_reduction: bool
    ) -> None:
        super().__init__()
        self.before: nn.Module
        if after_reduction:
            self.before = Reduction(before, c)
        else:
            self.before = self._prepare(before, c)
        self.last = self._prepare(last, c)
        self.edges = nn.ModuleList(
            MixedOperation(c, 2 if reduction and source < 2 else 1)
            for node in range(2, 6)
            for source in range(node)
        )

    def _prepare(self, c_in: int, c_out: int) -> nn.Module:
        return nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), norm(c_out))

    def forward(self, a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        states = [self.before(a), self.last(b)]
        first = 0
        for _ in range(4):
            terms = [self.edges[first + i](x, weights[first + i]) for i, x in enumerate(states)]
            first += len(states)
            states.append(sum(terms[1:], start=terms[0]))
        return torch.cat(states[2:], dim=1)


class Network(nn.Module):
    """The supernet, with its architecture parameters: 14 edges by 8 operations a kind of cell."""

    def __init__(self, channels: int, cells: int, classes: int) -> None:
        super().__init__()
        c, last = channels, 3 * channels
        before = last
        self.stem = nn.Sequential(nn.Conv2d(3, last, 3, padding=1, bias=False), norm(last, True))
        self.cells = nn.ModuleList()
        self.reductions = (cells // 3, 2 * cells // 3)
        after_reduction = False
        for index in range(cells):
            reduction = index in self.reductions
            c = 2 * c if reduction else c
            self.cells.append(Cell(before, last, c, reduction, after_reduction))
            before, last = last, 4 * c
            after_reduction = reduction
        self.classifier = nn.Linear(last, classes)
        self.normal = nn.Parameter(1e-3 * torch.randn(14, 8))
        self.reduce = nn.Parameter(1e-3 * torch.randn(14, 8))

    def architecture(self) -> list[nn.Parameter]:
        return [self.normal, self.reduce]

    def weights(self) -> list[nn.Parameter]:
        own = {id(parameter) for parameter in self.architecture()}
        return [parameter for parameter in self.parameters() if id(parameter) not in own]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = last = self.stem(x)
        for index, cell in enumerate(self.cells):
            alpha = self.reduce if index in self.reductions else self.normal
            before, last = last, cell(before, last, F.softmax(alpha, dim=-1))
        return self.classifier(F.adaptive_avg_pool2d(last, 1).flatten(1))


class Search:
    """The first-order step: architecture parameters on one batch, then weights on another."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.of_weights = torch.optim.SGD(
            network.weights(), lr=0.025, momentum=0.9, weight_decay=3e-4
        )
        self.of_architecture = torch.optim.Adam(
            network.architecture(), lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3
        )

    def step(
        self,
        training: tuple[torch.Tensor, torch.Tensor],
        validation: tuple[torch.Tensor, torch.Tensor],
    ) -> float:
        """Gives the training loss, in nats."""
        images, labels = validation
        self.of_architecture.zero_grad()
        F.cross_entropy(self.network(images), labels).backward()
        self.of_architecture.step()

        images, labels = training
        self.of_weights.zero_grad()
        loss = F.cross_entropy(self.network(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.weights(), 5.0)
        self.of_weights.step()
        return float(loss.detach())
