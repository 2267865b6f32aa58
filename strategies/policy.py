"""A policy over a space's choices: an LSTM that makes them one after the other.

As in Zoph & Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017, and Pham et
al., "Efficient Neural Architecture Search via Parameter Sharing" (ENAS), ICML 2018: the LSTM reads
the embedding of the previous pick and a linear layer gives the logits of the next. Every space
whose choices are ordered (``space.legal``) has one; what is not legal has probability zero.

Architectures are drawn and judged many at a time, each step of all of them together; those that
are at different choices in the same step meet in the LSTM and part at the logits.

What differs from the papers: every choice has a layer of logits and embeddings of its own, also
one that picks an earlier state, for which they use attention over the states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nas.architecture import Architecture, Choice
from nas.errors import ConfigError
from nas.space import SearchSpace
from strategies.prefixes import Prefixes


@dataclass(frozen=True)
class PolicySettings:
    """The network's size and how its logits are tamed; the defaults are those of ENAS.

    Logits become ``bound · tanh(logits / temperature)``, which keeps a policy from settling early.

    Attributes:
        hidden: units of the LSTM, in each of its layers.
        layers: of the LSTM.
        temperature: what logits are divided by; the ENAS paper has 5 on language modelling.
        tanh_constant: the bound; ``None`` for none. The authors' script has 1.10 for the micro
            space and 1.5 for the macro space.
        op_tanh_reduce: what the bound is divided by where the options are names of operations,
            and not numbers.
        scale: weights are drawn uniformly from −scale to scale.
    """

    hidden: int = 100
    layers: int = 1
    temperature: float = 1.0
    tanh_constant: float | None = 1.10
    op_tanh_reduce: float = 2.5
    scale: float = 0.1

    def __post_init__(self) -> None:
        for name in ("hidden", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"policy: {name} must be at least 1, got {getattr(self, name)}")
        for name in ("temperature", "tanh_constant", "op_tanh_reduce", "scale"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"policy: {name} must be above 0, got {value!r}")

    def bound(self, choice: Choice) -> float | None:
        """The largest size of a choice's logits."""
        if self.tanh_constant is None:
            return None
        named = any(isinstance(option, str) for option in choice.options)
        return self.tanh_constant / (self.op_tanh_reduce if named else 1.0)


@dataclass(frozen=True, slots=True)
class Decision:
    """An architecture and what the policy thinks of it.

    Attributes:
        log_prob: the logarithm of its probability; has gradients.
        entropy: the sum of the entropies of its steps, in nats; has gradients.
    """

    arch: Architecture
    log_prob: torch.Tensor
    entropy: torch.Tensor


@dataclass(frozen=True, slots=True)
class Decisions:
    """Architectures and what the policy thinks of each: what ``Decision`` has, as tensors (N)."""

    archs: tuple[Architecture, ...]
    log_probs: torch.Tensor
    entropies: torch.Tensor

    def __getitem__(self, index: int) -> Decision:
        return Decision(self.archs[index], self.log_probs[index], self.entropies[index])


Columns = npt.NDArray[np.intp]
Pick = Callable[[Sequence[int], int, npt.NDArray[np.float64]], Columns]
"""Which rows are going on, at which step, and their options' probabilities, (rows, options) with
0 for what is not legal; gives the place of the option that each takes."""


class Policy(nn.Module):
    """A distribution over the architectures of a space, with parameters.

    Its weights are drawn from torch's generator.
    """

    def __init__(self, space: SearchSpace, settings: PolicySettings) -> None:
        super().__init__()
        self.space = space
        self.settings = settings
        self._prefixes = Prefixes(space)
        sizes = [len(choice.options) for choice in space.choices]
        self._first = np.cumsum([1, *sizes])[:-1]  # the token before is the beginning's
        self.tokens = nn.Embedding(1 + sum(sizes), settings.hidden)
        self.cells = nn.ModuleList(
            nn.LSTMCell(settings.hidden, settings.hidden) for _ in range(settings.layers)
        )
        self.heads = nn.ModuleList(nn.Linear(settings.hidden, size) for size in sizes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-settings.scale, settings.scale)

    def sample(self, rng: np.random.Generator) -> Decision:
        """An architecture drawn from the policy."""
        return self.sample_many([rng])[0]

    def sample_many(self, rngs: Sequence[np.random.Generator]) -> Decisions:
        """Architectures drawn from the policy, each by a generator of its own."""

        def draw(rows: Sequence[int], step: int, shares: npt.NDArray[np.float64]) -> Columns:
            drawn = np.array([rngs[row].random() for row in rows])
            below = np.cumsum(shares, axis=1)
            # The last is 1 exactly and what is drawn lies below 1: no place is past the legal.
            columns: Columns = np.sum(below / below[:, -1:] <= drawn[:, None], axis=1)
            return columns

        return self._walk(len(rngs), draw)

    def likeliest(self) -> Architecture:
        """The architecture of the likeliest option at every step; the first of equals."""
        with torch.no_grad():
            return self._walk(1, lambda rows, step, shares: shares.argmax(axis=1)).archs[0]

    def of(self, arch: Architecture) -> Decision:
        """What the policy thinks of a given architecture.

        Raises:
            InvalidArchitecture: it is none of the space.
        """
        return self.of_many([arch])[0]

    def of_many(self, archs: Sequence[Architecture]) -> Decisions:
        """What the policy thinks of given architectures.

        Raises:
            InvalidArchitecture: one is none of the space.
        """
        columns = [self._prefixes.columns(arch) for arch in archs]
        return self._walk(
            len(archs), lambda rows, step, shares: np.array([columns[row][step] for row in rows])
        )

    def _walk(self, count: int, pick: Pick) -> Decisions:
        """So many architectures, made together by ``pick``."""
        prefixes = [self._prefixes.root()] * count
        log_probs = self.tokens.weight.new_zeros(count)
        entropies = log_probs
        rows = list(range(count))
        zeros = self.tokens.weight.new_zeros(count, self.settings.hidden)
        states = [(zeros, zeros)] * self.settings.layers
        tokens = np.zeros(count, dtype=np.intp)
        step = 0
        while True:
            alive = [place for place, row in enumerate(rows) if prefixes[row].choice is not None]
            if not alive:
                break
            if len(alive) < len(rows):
                rows = [rows[place] for place in alive]
                kept = torch.tensor(alive, device=zeros.device)
                states = [(hidden[kept], cell[kept]) for hidden, cell in states]
                tokens = tokens[alive]
            states = self._advance(tokens, states)
            positions = np.array([prefixes[row].position for row in rows])
            legal = np.stack([prefixes[row].legal for row in rows])
            logs = self._logits(states[-1][0], positions, legal).log_softmax(1)
            shares = logs.exp()
            columns = pick(rows, step, shares.detach().double().cpu().numpy())
            taken = torch.from_numpy(columns).to(zeros.device)
            place = torch.tensor(rows, device=zeros.device)
            log_probs = log_probs.index_add(0, place, logs.gather(1, taken[:, None])[:, 0])
            # What is not legal is 0 · -∞ here: nothing, also to the gradient.
            finite = logs.masked_fill(shares == 0, 0.0)
            entropies = entropies.index_add(0, place, -(shares * finite).sum(1))
            tokens = self._first[positions] + columns
            for row, column in zip(rows, columns.tolist(), strict=True):
                prefixes[row] = self._prefixes.after(prefixes[row], column)
            step += 1
        archs = (Architecture(self.space.name, tuple(p.made.items())) for p in prefixes)
        return Decisions(tuple(archs), log_probs, entropies)

    def _advance(
        self, tokens: Columns, states: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The states of the LSTM's layers after one more token a row."""
        value = self.tokens(torch.from_numpy(tokens).to(self.tokens.weight.device))
        after = []
        for cell, state in zip(self.cells, states, strict=True):
            after.append(cell(value, state))
            value = after[-1][0]
        return after

    def _logits(
        self, hidden: torch.Tensor, positions: Columns, legal: npt.NDArray[np.bool_]
    ) -> torch.Tensor:
        """Of each row, those of its own choice; -∞ for what is not legal."""
        parts, order = [], []
        for position in np.unique(positions):
            places = np.flatnonzero(positions == position)
            order.append(places)
            mine = hidden if len(places) == len(positions) else hidden[torch.from_numpy(places)]
            logits = self.heads[position](mine) / self.settings.temperature
            bound = self.settings.bound(self.space.choices[position])
            if bound is not None:
                logits = bound * torch.tanh(logits)
            parts.append(nn.functional.pad(logits, (0, legal.shape[1] - logits.shape[1])))
        joined = parts[0]
        if len(parts) > 1:
            back = np.argsort(np.concatenate(order))
            joined = torch.cat(parts)[torch.from_numpy(back)]
        return joined.masked_fill(~torch.from_numpy(legal).to(joined.device), -math.inf)


def moments(policy: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimiser remembers of a policy's parameters, by their names: plain."""
    names: dict[torch.Tensor, str] = {p: name for name, p in policy.named_parameters()}
    return {
        names[parameter]: {key: value.detach().clone() for key, value in entry.items()}
        for parameter, entry in optimiser.state.items()
    }


def load_moments(
    policy: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Gives an optimiser what ``moments`` wrote."""
    parameters = dict(policy.named_parameters())
    optimiser.state.clear()
    for name, entry in state.items():
        copied = {key: value.detach().clone() for key, value in entry.items()}
        optimiser.state[parameters[name]] = copied
