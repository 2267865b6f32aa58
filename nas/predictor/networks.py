"""Ensembles of small networks: on rows of features, and on sequences of tokens.

``MlpEnsemble`` is BANANAS' meta neural network (White et al., AAAI 2021: 5 networks of 10 layers
of 20 units, Adam 0.01, mean absolute percentage error). ``SequenceEnsemble`` is PNAS' predictor
(Liu et al., ECCV 2018, sec. 4.4 and appendix A): tokens are embedded with 100 numbers and read by
an LSTM of 100 units, or averaged and read by two layers of 100 units; 5 members that see 4/5 of
the data each; L1 loss, Adam with 0.01 on the first level and 0.002 later.

What differs: targets are standardised and the last layer is linear, so that any metric can be
learnt, where BANANAS divides by the target's distance to a bound and PNAS ends in a sigmoid.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from nas.errors import ConfigError
from nas.predictor.protocol import Floats, Prediction, checked, not_fitted

Reader = Literal["lstm", "mlp"]


class MlpEnsemble:
    """Fully connected networks that differ in their first weights and the order of the data.

    Args:
        members: networks.
        layers: hidden layers of each.
        units: of each hidden layer.
        epochs: passes over the data, in batches of 32.
        lr: of Adam.
        seed: of all draws.
    """

    def __init__(
        self,
        members: int = 5,
        layers: int = 10,
        units: int = 20,
        epochs: int = 150,
        lr: float = 0.01,
        seed: int = 0,
    ) -> None:
        _check("mlp ensemble", members=members, layers=layers, units=units, epochs=epochs)
        _check_lr_and_seed("mlp ensemble", lr, seed)
        self.members = members
        self.layers = layers
        self.units = units
        self.epochs = epochs
        self.lr = lr
        self.seed = seed
        self._trained: _Trained | None = None

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        rows, values = checked(inputs, targets)
        make = functools.partial(self._network, rows.shape[1])
        data = torch.from_numpy(rows.astype(np.float32))
        everything = [torch.arange(len(rows))] * self.members
        self._trained = _Trained(
            make, data, values, everything, epochs=self.epochs, lr=self.lr, seed=self.seed
        )

    def predict(self, inputs: ArrayLike) -> Prediction:
        if self._trained is None:
            raise not_fitted(self)
        return self._trained(torch.from_numpy(np.array(inputs, dtype=np.float32)))

    def _network(self, columns: int) -> nn.Module:
        widths = [columns, *([self.units] * self.layers), 1]
        layers: list[nn.Module] = []
        for index, (c_in, c_out) in enumerate(itertools.pairwise(widths)):
            layers += [nn.ReLU()] if index else []
            layers.append(nn.Linear(c_in, c_out))
        return nn.Sequential(*layers)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        if self._trained is None:
            raise not_fitted(self)
        return self._trained.state_dict()

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        make = functools.partial(self._network, state["0/0.weight"].shape[1])
        self._trained = _Trained.restored(make, self.members, state)


class SequenceEnsemble:
    """Networks that read an architecture as a sequence of tokens, of any length.

    A row is tokens from 0 to ``vocabulary`` − 1 and then −1 to its end. What was learnt of short
    sequences is used for longer ones: that is what progressive search asks for.

    Args:
        vocabulary: how many different tokens there are.
        reader: ``"lstm"``, or ``"mlp"`` on the mean of the embeddings (of each position of
            ``period`` tokens, one after the other, averaged over the periods).
        period: tokens that make up one part of an architecture: 4 for a block of PNAS.
        members: networks; each leaves out another ``members``-th of the data, if there is as
            much of it.
        units: of embedding and hidden layers.
        epochs: passes over the data, in batches of 32.
        lr: of Adam.
        seed: of all draws.
    """

    def __init__(
        self,
        vocabulary: int,
        reader: Reader = "lstm",
        period: int = 1,
        members: int = 5,
        units: int = 100,
        epochs: int = 30,
        lr: float = 0.01,
        seed: int = 0,
    ) -> None:
        if reader not in ("lstm", "mlp"):
            raise ConfigError(f"sequence ensemble: reader must be lstm or mlp, got {reader!r}")
        _check(
            "sequence ensemble",
            vocabulary=vocabulary,
            period=period,
            members=members,
            units=units,
            epochs=epochs,
        )
        _check_lr_and_seed("sequence ensemble", lr, seed)
        self.vocabulary = vocabulary
        self.reader = reader
        self.period = period
        self.members = members
        self.units = units
        self.epochs = epochs
        self.lr = lr
        self.seed = seed
        self._trained: _Trained | None = None

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        rows, values = checked(inputs, targets)
        data = self._tokens(rows)

        def make() -> nn.Module:
            if self.reader == "lstm":
                return _LstmReader(self.vocabulary, self.units)
            return _MeanReader(self.vocabulary, self.period, self.units)

        order = np.random.default_rng([self.seed, len(rows)]).permutation(len(rows))
        seen = []
        for member in range(self.members):
            left_out = order[member :: self.members] if len(rows) >= self.members else order[:0]
            seen.append(torch.from_numpy(np.setdiff1d(order, left_out)))
        self._trained = _Trained(
            make, data, values, seen, epochs=self.epochs, lr=self.lr, seed=self.seed
        )

    def predict(self, inputs: ArrayLike) -> Prediction:
        if self._trained is None:
            raise not_fitted(self)
        return self._trained(self._tokens(np.asarray(inputs)))

    def _tokens(self, rows: np.ndarray) -> torch.Tensor:
        tokens = rows.astype(np.int64)
        wrong = tokens[(tokens < -1) | (tokens >= self.vocabulary)]
        if rows.ndim != 2 or len(wrong) or (tokens != rows).any():
            raise ConfigError(
                f"sequence ensemble: rows are tokens from 0 to {self.vocabulary - 1}, then -1; "
                f"got {rows!r:.120}"
            )
        return torch.from_numpy(tokens)


class _LstmReader(nn.Module):
    def __init__(self, vocabulary: int, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary + 1, units, padding_idx=vocabulary)
        self.lstm = nn.LSTM(units, units, batch_first=True)
        self.head = nn.Linear(units, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        padded = tokens.masked_fill(tokens < 0, self.embedding.num_embeddings - 1)
        states, _ = self.lstm(self.embedding(padded))
        last = (tokens >= 0).sum(dim=1).clamp(min=1) - 1
        read: torch.Tensor = self.head(states[torch.arange(len(tokens)), last])
        return read


class _MeanReader(nn.Module):
    def __init__(self, vocabulary: int, period: int, units: int) -> None:
        super().__init__()
        self.period = period
        self.embedding = nn.Embedding(vocabulary + 1, units, padding_idx=vocabulary)
        self.head = nn.Sequential(
            nn.Linear(period * units, units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, 1),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        short = -tokens.shape[1] % self.period
        tokens = nn.functional.pad(tokens, (0, short), value=-1)
        there = (tokens >= 0).reshape(len(tokens), -1, self.period).any(dim=2)
        padded = tokens.masked_fill(tokens < 0, self.embedding.num_embeddings - 1)
        parts = self.embedding(padded).reshape(len(tokens), there.shape[1], -1)
        read: torch.Tensor = self.head(parts.sum(dim=1) / there.sum(dim=1, keepdim=True))
        return read


class _Trained:
    """Members trained one after the other on standardised targets, each with draws of its own."""

    def __init__(
        self,
        make: Callable[[], nn.Module],
        data: torch.Tensor,
        values: Floats,
        seen: list[torch.Tensor],
        *,
        epochs: int,
        lr: float,
        seed: int,
    ) -> None:
        self.centre = float(values.mean())
        self.spread = float(values.std()) or 1.0
        wanted = torch.from_numpy(((values - self.centre) / self.spread).astype(np.float32))
        self.members: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            for member, rows in enumerate(seen):
                torch.manual_seed(int(np.random.SeedSequence([seed, member]).generate_state(1)[0]))
                network = make()
                optimizer = torch.optim.Adam(network.parameters(), lr=lr)
                for _ in range(epochs):
                    for batch in torch.split(rows[torch.randperm(len(rows))], 32):
                        loss = (network(data[batch])[:, 0] - wanted[batch]).abs().mean()
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                self.members.append(network.eval())

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The members' weights, ``member/parameter``, and what targets were standardised by."""
        state: dict[str, NDArray[Any]] = {"targets": np.array([self.centre, self.spread])}
        for number, member in enumerate(self.members):
            for name, tensor in member.state_dict().items():
                state[f"{number}/{name}"] = tensor.numpy().copy()
        return state

    @classmethod
    def restored(
        cls, make: Callable[[], nn.Module], members: int, state: Mapping[str, NDArray[Any]]
    ) -> _Trained:
        trained = object.__new__(cls)
        trained.centre, trained.spread = state["targets"].tolist()
        trained.members = []
        for number in range(members):
            with torch.random.fork_rng(devices=[]):
                member = make()
            prefix = f"{number}/"
            tensors = {
                name.removeprefix(prefix): torch.from_numpy(array.copy())
                for name, array in state.items()
                if name.startswith(prefix)
            }
            member.load_state_dict(tensors)
            trained.members.append(member.eval())
        return trained

    @torch.no_grad()
    def __call__(self, data: torch.Tensor) -> Prediction:
        each = torch.stack(
            [torch.cat([m(part)[:, 0] for part in torch.split(data, 2048)]) for m in self.members]
        ).double()
        mean = self.centre + self.spread * each.mean(dim=0)
        std = self.spread * each.std(dim=0, unbiased=len(each) > 1)
        return Prediction(mean.numpy(), std.numpy())


def _check(what: str, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"{what}: {name} must be at least 1, got {value}")


def _check_lr_and_seed(what: str, lr: float, seed: int) -> None:
    if not 0 < lr < float("inf"):
        raise ConfigError(f"{what}: lr must be above 0 and finite, got {lr}")
    if seed < 0:
        raise ConfigError(f"{what}: seed must be zero or more, got {seed}")
