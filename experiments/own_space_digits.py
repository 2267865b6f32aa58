"""A search space of one's own, a small CNN for digits: search it, train the best, export it.

docs/own_space.md is the tutorial.

    python experiments/own_space_digits.py
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from evaluators.cost import CostEvaluator
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas import Budget, History, Serial, maximize, minimize, retrain_and_export, watch
from nas.builder import Builder
from nas.data import digits
from nas.described import Described, described
from strategies.regularized_evolution import RegularizedEvolution


class Block(nn.Module):
    """Convolution, norm and activation, with a connection around them where there is one."""

    def __init__(
        self, channels: int, kernel_size: int, act: nn.Module, skip: nn.Module | None
    ) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = act
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.act(self.norm(self.conv(x)))
        return out if self.skip is None else out + self.skip(x)


def digits_cnn(builder: Builder) -> nn.Module:
    width = builder.number("width", (8, 16, 24))

    def block(i: int) -> nn.Module:
        kernel_size = builder.number(f"kernel{i}", (3, 5))
        act = builder.slot(f"act{i}", {"relu": nn.ReLU, "hswish": nn.Hardswish})
        skip = builder.edge(f"skip{i}", {"none": None, "identity": nn.Identity})
        return Block(width, kernel_size, act, skip)

    blocks = nn.Sequential(*builder.depth("depth", block, (1, 2, 3)))
    pools = {"max": partial(nn.AdaptiveMaxPool2d, 2), "average": partial(nn.AdaptiveAvgPool2d, 2)}
    pool = builder.slot("pool", pools)
    stem = nn.Conv2d(1, width, 3, padding=1)
    return nn.Sequential(stem, blocks, pool, nn.Flatten(), nn.Linear(4 * width, 10))


def space() -> Described:
    return described(digits_cnn, input=(1, 8, 8), classes=10)


def main() -> None:
    own, data, history = space(), digits(), History("runs/own_space_digits")
    objectives = (maximize("accuracy"), minimize("macs", limit=600_000))
    strategy = RegularizedEvolution(own, objectives, seed=0, population_size=8, sample_size=3)
    evaluator = Staged([CostEvaluator(own), TrainingEvaluator(own, data, epochs=3)], objectives)
    for trial in watch(strategy, evaluator, Serial(), Budget(trials=24), history):
        print(trial)
    best = history.best("accuracy")
    folder, facts = retrain_and_export(own, best.arch, data, "runs/digits_network", epochs=30)
    print(f"{best.arch}\n{facts}\nwritten: {folder}")


if __name__ == "__main__":
    main()
