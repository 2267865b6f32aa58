"""The network of EAS: an encoder of layers, a wider actor, a deeper actor.

Cai, Chen, Zhang, Yu & Wang, "Efficient Architecture Search by Network Transformation", AAAI 2018.
A bidirectional LSTM reads a network's layers. The wider actor is one sigmoid classifier, shared
by all layers, on the encoder's output at each; the deeper actor is an LSTM that begins in the
encoder's last state and makes three decisions: the block, the position in it, and which layer is
inserted there (of a chain: its kernel).

What differs from the paper: a layer's embedding is the sum of those of its picks, where the
paper has one for each combination of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nas.architecture import Architecture
from nas.errors import ConfigError
from nas.space import SearchSpace
from strategies.eas_layers import Grower, Growths, Layer, most_layers, tokens_of

VARIANTS = 32
"""Of the layers that may be inserted at a place, so many are told apart; the rest is left out."""

Pick = Callable[[Sequence[float]], int]
"""Picks one of several by their probabilities, or what was picked of them before."""

_LEAST = -1e30  # in place of -∞, whose product with 0 is no number

Decide = Callable[[torch.Tensor], list[int]]
"""Decides each row of logits."""


@dataclass(frozen=True)
class EasSettings:
    """How EAS is built and trained; the defaults are its authors' code's for plain networks.

    Attributes:
        embedding: length of a pick's embedding.
        hidden: units of the encoder's LSTM, each way.
        wider_steps, deeper_steps: what an architecture is made by.
        batch: measured trials an update.
        lr: of Adam.
        baseline_decay: of the moving average of rewards.
        entropy_weight: of the mean entropy of a decision (in nats).
        stage: after so many measured trials the best so far is where the next ones start.
    """

    embedding: int = 16
    hidden: int = 50
    wider_steps: int = 4
    deeper_steps: int = 5
    batch: int = 10
    lr: float = 0.002
    baseline_decay: float = 0.95
    entropy_weight: float = 1e-5
    stage: int = 300

    def __post_init__(self) -> None:
        for name in ("embedding", "hidden", "batch", "stage"):
            if getattr(self, name) < 1:
                raise ConfigError(f"settings: {name} must be at least 1, got {getattr(self, name)}")
        if min(self.wider_steps, self.deeper_steps) < 0 or self.wider_steps + self.deeper_steps < 1:
            raise ConfigError(
                "settings: there must be a wider or a deeper step, and no fewer than 0 of either; "
                f"got wider_steps {self.wider_steps} and deeper_steps {self.deeper_steps}"
            )
        for name, holds, expected in (
            ("lr", self.lr > 0, "above 0"),
            ("baseline_decay", 0 <= self.baseline_decay < 1, "from 0 to below 1"),
            ("entropy_weight", self.entropy_weight >= 0, "0 or more"),
        ):
            if not holds or not math.isfinite(getattr(self, name)):
                raise ConfigError(
                    f"settings: {name} must be {expected}, got {getattr(self, name)!r}"
                )


@dataclass(frozen=True)
class Episode:
    """A way from one architecture to a larger one.

    Attributes:
        arch: where it ends.
        decisions: what was picked on the way, in order.
        log_prob: of all decisions together, a scalar.
        entropy: the mean entropy of a decision, a scalar, in nats.
    """

    arch: Architecture
    decisions: tuple[int, ...]
    log_prob: torch.Tensor
    entropy: torch.Tensor


class EasPolicy(nn.Module):
    """The distribution of what EAS makes of a network."""

    def __init__(self, space: SearchSpace, settings: EasSettings) -> None:
        super().__init__()
        self.space = space
        self.settings = settings
        self._grower = Grower(space)
        self._tokens = {pick: index for index, pick in enumerate(tokens_of(space))}
        units, places = 2 * settings.hidden, most_layers(space) + 1
        self.embedding = nn.EmbeddingBag(len(self._tokens), settings.embedding, mode="sum")
        self.encoder = nn.LSTM(settings.embedding, settings.hidden, bidirectional=True)
        self.wider = nn.Linear(units, 1)
        self.deeper = nn.LSTMCell(settings.embedding, units)
        # What the deeper actor reads: that it begins, the block, the position.
        sizes = (1, places, places)
        self.decided = nn.ModuleList(nn.Embedding(size, settings.embedding) for size in sizes)
        self.heads = nn.ModuleList(nn.Linear(units, size) for size in (places, places, VARIANTS))
        for embedding in (self.embedding, *self.decided):
            nn.init.uniform_(embedding.weight, -math.sqrt(3), math.sqrt(3))

    def growths(self, arch: Architecture) -> Growths:
        return self._grower.growths(arch)

    def episode(self, start: Architecture, pick: Pick) -> Episode:
        """From an architecture through all wider and deeper steps.

        Args:
            pick: is given the probabilities of each decision's options, and decides.
        """
        decisions: list[int] = []
        logs: list[torch.Tensor] = []
        entropies: list[torch.Tensor] = []

        def decide(logits: torch.Tensor) -> list[int]:
            log_probs = torch.log_softmax(logits, dim=1)
            shares = log_probs.detach().exp()
            made = [pick(row) for row in shares.tolist()]
            decisions.extend(made)
            logs.append(log_probs[range(len(made)), made])
            entropies.append(-(log_probs.exp() * log_probs.clamp(min=_LEAST)).sum(1))
            return made

        arch = start
        for _ in range(self.settings.wider_steps):
            arch = self._widened(arch, decide)
        for _ in range(self.settings.deeper_steps):
            arch = self._deepened(arch, decide)
        nothing = self.wider.bias.sum() * 0.0  # where nothing could be grown
        return Episode(
            arch,
            tuple(decisions),
            torch.cat(logs).sum() if logs else nothing,
            torch.cat(entropies).mean() if entropies else nothing,
        )

    def _encoded(
        self, layers: Sequence[Layer]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """The outputs, (layers, 2 · hidden), and the last state, both of (2 · hidden)."""
        tokens = [self._tokens[pick] for layer in layers for pick in layer.token]
        starts = itertools.accumulate((len(layer.token) for layer in layers[:-1]), initial=0)
        outputs, (hidden, cell) = self.encoder(
            self.embedding(torch.tensor(tokens), torch.tensor(list(starts)))
        )
        return outputs, (hidden.flatten(), cell.flatten())

    def _widened(self, arch: Architecture, decide: Decide) -> Architecture:
        growths = self.growths(arch)
        if not growths.wider:
            return arch
        outputs, _ = self._encoded(growths.layers)
        indices = list(growths.wider)
        logits = self.wider(outputs[indices])[:, 0]
        options = torch.stack([torch.zeros_like(logits), logits], dim=1)  # their softmax: a sigmoid
        chosen = [index for index, yes in zip(indices, decide(options), strict=True) if yes]
        return self._grower.widened(arch, chosen)

    def _deepened(self, arch: Architecture, decide: Decide) -> Architecture:
        growths = self.growths(arch)
        if not growths.deeper:
            return arch
        _, (hidden, cell) = self._encoded(growths.layers)
        state = hidden[None], cell[None]
        made: list[int] = []
        for which, (decided, head) in enumerate(zip(self.decided, self.heads, strict=True)):
            before = torch.tensor([made[-1] if made else 0])
            state = self.deeper(decided(before), state)
            if which == 0:
                legal = {block for block, _ in growths.deeper}
            elif which == 1:
                legal = {position for block, position in growths.deeper if block == made[0]}
            else:
                legal = set(range(min(VARIANTS, len(growths.deeper[made[0], made[1]]))))
            made += decide(_only(head(state[0]), legal))
        return growths.deeper[made[0], made[1]][made[2]]


def _only(logits: torch.Tensor, legal: set[int]) -> torch.Tensor:
    """-∞ for what is not legal in any row."""
    barred = [index not in legal for index in range(logits.shape[1])]
    return logits.masked_fill(torch.tensor(barred), -math.inf)
