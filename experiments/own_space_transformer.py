"""A search space of one's own, a Transformer encoder that reads digits row by row.

docs/own_space.md is the tutorial.

    python experiments/own_space_transformer.py
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from evaluators.cost import CostEvaluator
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas import Budget, History, Serial, maximize, minimize, retrain_and_export, watch
from nas.builder import Builder
from nas.data import digits
from nas.described import Described, described
from strategies.random_search import RandomSearch


class Rows(nn.Module):
    """The rows of an image as tokens, each with what was learnt of its place."""

    def __init__(self, rows: int, pixels: int, dim: int) -> None:
        super().__init__()
        self.rows = rows
        self.pixels = pixels
        self.dim = dim
        self.embed = nn.Linear(pixels, dim)
        self.places = nn.Parameter(0.02 * torch.randn(rows, dim))

    def layouts(self) -> dict[str, tuple[object, ...]]:
        return {"places": (self.rows, self.dim)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed(x.flatten(1, 2)) + self.places


class Attention(nn.Module):
    """Every token takes from all others what its queries ask for."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def layouts(self) -> dict[str, tuple[object, ...]]:
        return {"qkv.weight": ((3, self.dim), self.dim), "qkv.bias": ((3, self.dim),)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers, of each token on its own."""

    def __init__(self, dim: int, ratio: int, act: nn.Module) -> None:
        super().__init__()
        self.dim = dim
        self.ratio = ratio
        self.up = nn.Linear(dim, ratio * dim)
        self.act = act
        self.down = nn.Linear(ratio * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(x)))


class Residual(nn.Module):
    """A module on normalised tokens, added to them."""

    def __init__(self, norm: nn.Module, inner: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(self.norm(x))


class TokenMean(nn.Module):
    """The mean over all tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1)


def digits_transformer(builder: Builder) -> nn.Module:
    dim = builder.number("dim", (16, 24, 32))
    norms = {"layer": partial(nn.LayerNorm, dim), "rms": partial(nn.RMSNorm, dim)}

    def layer(i: int) -> nn.Module:
        attention = Attention(dim, builder.number(f"heads{i}", (1, 2, 4)))
        act = builder.slot(f"act{i}", {"relu": nn.ReLU, "gelu": nn.GELU})
        mlp = MLP(dim, builder.number(f"ratio{i}", (1, 2, 4)), act)
        return nn.Sequential(
            Residual(builder.slot("norm", norms), attention),
            Residual(builder.slot("norm", norms), mlp),
        )

    layers = nn.Sequential(*builder.depth("depth", layer, (1, 2, 3, 4)))
    norm = builder.slot("norm", norms)
    return nn.Sequential(Rows(8, 8, dim), layers, norm, TokenMean(), nn.Linear(dim, 10))


def space() -> Described:
    return described(digits_transformer, input=(1, 8, 8), classes=10)


def main() -> None:
    own, data, history = space(), digits(), History("runs/own_space_transformer")
    objectives = (maximize("accuracy"), minimize("macs", limit=150_000))
    strategy = RandomSearch(own, objectives, seed=0)
    evaluator = Staged([CostEvaluator(own), TrainingEvaluator(own, data, epochs=10)], objectives)
    for trial in watch(strategy, evaluator, Serial(), Budget(trials=20), history):
        print(trial)
    best = history.best("accuracy")
    folder, facts = retrain_and_export(own, best.arch, data, "runs/transformer", epochs=60)
    print(f"{best.arch}\n{facts}\nwritten: {folder}")


if __name__ == "__main__":
    main()
