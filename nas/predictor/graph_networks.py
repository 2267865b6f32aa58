"""An ensemble of graph convolutional networks on an architecture's cells.

Wen et al., "Neural Predictor for Neural Architecture Search", ECCV 2020: three graph convolutions
of 144 units, each the mean of one along the links and one against them, vertices averaged, a
layer of 128 units; Adam with 0.0001 and weight decay 0.001, cosine schedule, batches of 10, 300
epochs, dropout 0.1, mean squared error.

What differs: targets are standardised and the last layer is linear, so that any metric can be
learnt; there are several networks, whose spread is the deviation; the cells of an architecture
are read by the same convolutions and their means put side by side. The paper's first stage, a
classifier that sorts out networks far below the others, is left out.

All members are trained at once, their weights stacked: small matrices leave a core idle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from nas.errors import ConfigError
from nas.predictor.graph_inputs import unpacked
from nas.predictor.networks import _check, _check_lr_and_seed
from nas.predictor.protocol import Floats, Prediction, checked, not_fitted

_CHUNK = 1024
_BATCH = 10


class GraphEnsemble:
    """Graph networks that differ in their first weights and the order of the data.

    Args:
        cells: graphs in a row (``nas.predictor.graph_inputs`` makes rows).
        operations: kinds of vertex.
        members: networks.
        layers: graph convolutions of each.
        units: of each convolution.
        hidden: units of the layer behind them.
        epochs: passes over the data, in batches of 10.
        lr: of Adam, falling to 0 along a cosine.
        seed: of all draws.
    """

    def __init__(
        self,
        cells: int,
        operations: int,
        members: int = 3,
        layers: int = 3,
        units: int = 144,
        hidden: int = 128,
        epochs: int = 300,
        lr: float = 0.0001,
        seed: int = 0,
    ) -> None:
        _check(
            "graph ensemble",
            cells=cells,
            operations=operations,
            members=members,
            layers=layers,
            units=units,
            hidden=hidden,
            epochs=epochs,
        )
        if members < 2:
            raise ConfigError(f"graph ensemble: members must be at least 2, got {members}")
        _check_lr_and_seed("graph ensemble", lr, seed)
        self.cells = cells
        self.operations = operations
        self.members = members
        self.layers = layers
        self.units = units
        self.hidden = hidden
        self.epochs = epochs
        self.lr = lr
        self.seed = seed
        self._network: _Stack | None = None
        self._centre, self._spread = 0.0, 1.0

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        rows, values = checked(inputs, targets)
        links, operations = self._tensors(rows)
        self._centre, self._spread = float(values.mean()), float(values.std()) or 1.0
        wanted = torch.from_numpy(((values - self._centre) / self._spread).astype(np.float32))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([self.seed, 0]).generate_state(1)[0]))
            network = self._made()
            optimizer = torch.optim.Adam(network.parameters(), lr=self.lr, weight_decay=0.001)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
            for _ in range(self.epochs):
                order = torch.stack([torch.randperm(len(rows)) for _ in range(self.members)])
                for batch in torch.split(order, _BATCH, dim=1):
                    said = network(links[batch], operations[batch])
                    # The members' losses are added up: none feels the others.
                    loss = (said - wanted[batch]).square().mean(dim=1).sum()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                schedule.step()
        self._network = network.eval()

    @torch.no_grad()
    def predict(self, inputs: ArrayLike) -> Prediction:
        if self._network is None:
            raise not_fitted(self)
        links, operations = self._tensors(np.asarray(inputs))
        said = [
            self._network(
                part.expand(self.members, *part.shape), kinds.expand(self.members, *kinds.shape)
            )
            for part, kinds in zip(
                torch.split(links, _CHUNK), torch.split(operations, _CHUNK), strict=True
            )
        ]
        each: Floats = torch.cat(said, dim=1).double().numpy()
        mean, std = each.mean(axis=0), each.std(axis=0, ddof=1)
        return Prediction(self._centre + self._spread * mean, self._spread * std)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        if self._network is None:
            raise not_fitted(self)
        weights = self._network.state_dict().items()
        targets = np.array([self._centre, self._spread])
        return {"targets": targets, **{name: w.numpy().copy() for name, w in weights}}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._centre, self._spread = state["targets"].tolist()
        with torch.random.fork_rng(devices=[]):
            self._network = self._made().eval()
        self._network.load_state_dict(
            {name: torch.from_numpy(a.copy()) for name, a in state.items() if name != "targets"}
        )

    def _made(self) -> _Stack:
        return _Stack(
            self.members, self.cells, self.operations, self.layers, self.units, self.hidden
        )

    def _tensors(self, rows: NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """The matrices along and against the links, normalised, and the operations."""
        links, operations = unpacked(rows, self.cells, self.operations)
        there = operations.sum(axis=3)
        loops = there[..., None] * np.eye(links.shape[-1], dtype=np.float32)
        both = np.stack([links + loops, links.swapaxes(-1, -2) + loops], axis=2)
        both /= np.maximum(both.sum(axis=-1, keepdims=True), 1.0)
        return torch.from_numpy(both), torch.from_numpy(operations)


class _Stack(nn.Module):
    """The members' weights side by side; the first axis of everything is the member."""

    def __init__(
        self, members: int, cells: int, operations: int, layers: int, units: int, hidden: int
    ) -> None:
        super().__init__()
        widths = [operations, *[units] * layers]
        self.along = nn.ParameterList(
            _xavier(members, c_in, units) for c_in in widths[:-1] for _ in range(2)
        )
        self.first = _xavier(members, cells * units, hidden)
        self.last = _xavier(members, hidden, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, links: torch.Tensor, operations: torch.Tensor) -> torch.Tensor:
        """(members, batch, cells, 2, v, v) and (members, batch, cells, v, o): (members, batch)."""
        members, batch, cells, vertices, _ = operations.shape
        there = operations.sum(dim=4, keepdim=True)
        state = operations
        for layer in range(0, len(self.along), 2):
            flat = state.reshape(members, batch * cells * vertices, -1)
            passed = [
                links[:, :, :, way]
                @ torch.bmm(flat, self.along[layer + way]).reshape(
                    members, batch, cells, vertices, -1
                )
                for way in range(2)
            ]
            state = self.dropout((passed[0].relu() + passed[1].relu()) / 2)
        pooled = (state * there).sum(dim=3) / there.sum(dim=3)
        read = torch.bmm(pooled.reshape(members, batch, -1), self.first)
        said: torch.Tensor = torch.bmm(self.dropout(read.relu()), self.last)[:, :, 0]
        return said


def _xavier(members: int, c_in: int, c_out: int) -> nn.Parameter:
    bound = math.sqrt(6.0 / (c_in + c_out))
    return nn.Parameter(torch.empty(members, c_in, c_out).uniform_(-bound, bound))
