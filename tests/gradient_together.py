"""Searches by gradients for several processes, and one process that does the work of all."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from gradient_workloads import EDGES, Edges, Triangle, described, quick
from torch import nn

from nas.errors import WorkerError
from nas.layers import GlobalAveragePool
from nas.objective import maximize
from nas.supernet.parallel import ALONE, Group
from strategies.beta_darts import BetaDarts
from strategies.darts import Darts
from strategies.differentiable import DifferentiableStrategy, _further
from strategies.drnas import DrNas
from strategies.fbnet import Fbnet
from strategies.gdas import Gdas
from strategies.guards import Guards
from strategies.hardware import Penalty
from strategies.pc_darts import PcDarts
from strategies.proxyless import Proxyless
from strategies.snas import Snas

EPOCHS = 3


class Convolution(nn.Sequential):
    def __init__(self, c_in: int, c_out: int, kernel_size: int) -> None:
        padding = kernel_size // 2
        super().__init__(nn.ReLU(), nn.Conv2d(c_in, c_out, kernel_size, padding=padding))


@dataclass(frozen=True)
class Plain(Edges):
    """The same cell without batch norms."""

    name = "plain-edges/v1"

    def build(self, builder: Any) -> nn.Module:
        c = self.channels
        conv = functools.partial(Convolution, c_in=c, c_out=c)
        options = {
            "none": None,
            "skip_connect": nn.Identity,
            "pool": functools.partial(nn.AvgPool2d, 3, stride=1, padding=1),
            "conv_1x1": functools.partial(conv, kernel_size=1),
            "conv_3x3": functools.partial(conv, kernel_size=3),
        }
        edges = nn.ModuleDict()
        for label in EDGES:
            edge = builder.edge(label, options)
            if edge is not None:
                edges[label.replace("->", "_")] = edge
        head = (GlobalAveragePool(), nn.Linear(c, self.classes))
        return nn.Sequential(
            nn.Conv2d(self.input[0], c, 3, padding=1, bias=False), Triangle(edges), *head
        )


# Strategy, space and arguments. The halves have 27 examples, in batches of 7 and 6.
KINDS: dict[str, tuple[type[DifferentiableStrategy], Any, dict[str, Any]]] = {
    "darts": (Darts, Plain(), {"penalty": Penalty(macs=0.5)}),
    "second order": (Darts, Plain(), {"order": 2, "penalty": Penalty(macs=0.5)}),
    "pc_darts": (PcDarts, Plain(), {"parts": 2}),
    "gdas": (Gdas, Plain(), {}),
    "snas": (Snas, Plain(), {"penalty": Penalty(macs=0.5)}),
    "drnas": (DrNas, Plain(), {}),
    "beta_darts": (BetaDarts, Plain(), {}),
    "fbnet": (Fbnet, Plain(), {"every": 2}),
    "proxyless": (Proxyless, Plain(), {"every": 2, "share": 0.5, "form": "add"}),
    "batch norms": (Darts, Edges(), {}),
}


def strategy(kind: str, **changes: Any) -> DifferentiableStrategy:
    made, space, arguments = KINDS[kind]
    settings = quick(made.settings, epochs=EPOCHS, batch_size=7)
    data = described(examples=54)
    given = {"settings": settings, "device": "cpu", **arguments, **changes}
    return made(space, (maximize("score"),), data, 5, **given)


GUARDS = Guards(max_skips=1, growth=50.0, window=1, delta=1, start=1)


def trained(kind: str, group: Group = ALONE, synchronise: bool = False) -> dict[str, Any]:
    """The state of a search at its end.

    Args:
        synchronise: whether batch norms see the rows of all ranks.
    """
    search = strategy(kind)._run.search
    search.group = group
    if synchronise:
        search.supernet.fast = False  # which has batch norms of its own
        for module in search.supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.forward = functools.partial(normalised, module, group)
    while not search.done:
        search.advance()
    return search.state_dict()


class Everywhere(torch.autograd.Function):
    """A sum over all ranks, through which gradients go to all of them."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        return group.sum([x])[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.group.sum([gradients[0].contiguous()])[0], None


def normalised(norm: nn.BatchNorm2d, group: Group, x: torch.Tensor) -> torch.Tensor:
    """A batch norm over the rows of all ranks, written out; keeps no statistics."""
    count = float(Everywhere.apply(torch.tensor(float(x.numel() / x.shape[1])), group))
    mean = Everywhere.apply(x.sum((0, 2, 3)), group) / count
    centred = x - mean[:, None, None]
    variance = Everywhere.apply(centred.square().sum((0, 2, 3)), group) / count
    out = centred * (variance + norm.eps).rsqrt()[:, None, None]
    if norm.affine:
        out = out * norm.weight[:, None, None] + norm.bias[:, None, None]
    return out


# ------------------------------------------------------------------------ what workers run


def all_kinds(folder: Path, group: Group, report: Callable[..., None]) -> None:
    """Every search on each rank; what came of it lands in the folder."""
    found: dict[str, Any] = {kind: trained(kind, group) for kind in KINDS}
    found["synchronised"] = trained("batch norms", group, synchronise=True)
    found["guarded"] = guarded(group)
    search = strategy("darts")._run.search
    search.group = group
    with torch.no_grad():
        next(iter(search.parameters.values())).add_(group.rank / 100)
    try:
        search.advance()
    except WorkerError as error:
        found["apart"] = str(error)
    torch.save(found, folder / f"{group.rank}.pt")


def guarded(group: Group) -> dict[str, Any]:
    """The state of a run with guards, as workers make it."""
    made = strategy("darts", guards=GUARDS)
    given = {f.name: getattr(made, f.name) for f in fields(made)}
    kept: list[tuple[bytes, int]] = []
    begun = pickle.dumps(made._run.state_dict())
    state = _further(type(made), given, EPOCHS, begun, group, lambda *one: kept.append(one))
    assert [epoch for _, epoch in kept] == ([1, 2, 3] if group.rank == 0 else [])
    assert not kept or kept[-1][0] == state
    found: dict[str, Any] = pickle.loads(state)
    return found
