"""A policy over a space's choices: an LSTM that makes them one after the other.

As in Zoph & Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017, and Pham et
al., "Efficient Neural Architecture Search via Parameter Sharing" (ENAS), ICML 2018: the LSTM reads
the embedding of the previous pick and a linear layer gives the logits of the next. Every space
whose choices are ordered (``space.legal``) has one; what is not legal has probability zero.

What differs from the papers: every choice has a layer of logits and embeddings of its own, also
one that picks an earlier state, for which they use attention over the states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.errors import ConfigError, InvalidArchitecture
from nas.space import SearchSpace, validate


@dataclass(frozen=True)
class PolicySettings:
    """The network's size and how its logits are tamed; the defaults are those of ENAS.

    Logits become ``bound · tanh(logits / temperature)``, which keeps a policy from settling early.

    Attributes:
        hidden: units of the LSTM.
        temperature: what logits are divided by; the ENAS paper has 5 on language modelling.
        tanh_constant: the bound; ``None`` for none. The authors' script has 1.10 for the micro
            space and 1.5 for the macro space.
        op_tanh_reduce: what the bound is divided by where the options are names of operations,
            and not numbers.
        scale: weights are drawn uniformly from −scale to scale.
    """

    hidden: int = 100
    temperature: float = 1.0
    tanh_constant: float | None = 1.10
    op_tanh_reduce: float = 2.5
    scale: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ConfigError(f"policy: hidden must be at least 1, got {self.hidden}")
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


Pick = Callable[[Choice, Sequence[Scalar], torch.Tensor], int]
"""The position among the legal options, of their log-probabilities."""


class Policy(nn.Module):
    """A distribution over the architectures of a space, with parameters.

    Its weights are drawn from torch's generator.
    """

    def __init__(self, space: SearchSpace, settings: PolicySettings) -> None:
        super().__init__()
        self.space = space
        self.settings = settings
        sizes = [len(choice.options) for choice in space.choices]
        starts = np.cumsum([1, *sizes]).tolist()
        self._first = dict(zip((c.label for c in space.choices), starts[:-1], strict=True))
        self._position = {choice.label: index for index, choice in enumerate(space.choices)}
        self.tokens = nn.Embedding(starts[-1], settings.hidden)  # the first is the beginning's
        self.lstm = nn.LSTMCell(settings.hidden, settings.hidden)
        self.heads = nn.ModuleList(nn.Linear(settings.hidden, size) for size in sizes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-settings.scale, settings.scale)

    def sample(self, rng: np.random.Generator) -> Decision:
        """An architecture drawn from the policy."""

        def draw(choice: Choice, options: Sequence[Scalar], log_probs: torch.Tensor) -> int:
            shares = np.cumsum(log_probs.detach().double().exp().numpy())
            drawn = int(np.searchsorted(shares / shares[-1], rng.random(), side="right"))
            return min(drawn, len(options) - 1)

        return self._walk(draw)

    def likeliest(self) -> Architecture:
        """The architecture of the likeliest option at every step; the first of equals."""
        with torch.no_grad():
            return self._walk(lambda choice, options, log_probs: int(log_probs.argmax())).arch

    def of(self, arch: Architecture) -> Decision:
        """What the policy thinks of a given architecture.

        Raises:
            InvalidArchitecture: it is none of the space.
        """
        validate(self.space, arch)
        picks = arch.as_dict()

        def given(choice: Choice, options: Sequence[Scalar], log_probs: torch.Tensor) -> int:
            return list(options).index(picks[choice.label])

        return self._walk(given)

    def _walk(self, pick: Pick) -> Decision:
        made: dict[str, Scalar] = {}
        zeros = self.lstm.weight_hh.new_zeros(1, self.settings.hidden)
        state = zeros, zeros
        token = 0
        log_prob, entropy = zeros.new_zeros(()), zeros.new_zeros(())
        while (step := self.space.legal(made)) is not None:
            choice, options = step
            if choice.label not in self._position:
                raise InvalidArchitecture(
                    f"{self.space.name!r}: legal gives {choice.label!r}, which is none of its "
                    "choices"
                )
            positions = [choice.index(option) for option in options]
            state = self.lstm(self.tokens.weight[token][None], state)
            logits = self.heads[self._position[choice.label]](state[0])[0, positions]
            logits = logits / self.settings.temperature
            bound = self.settings.bound(choice)
            if bound is not None:
                logits = bound * torch.tanh(logits)
            log_probs = logits.log_softmax(0)
            taken = pick(choice, options, log_probs)
            log_prob = log_prob + log_probs[taken]
            entropy = entropy - (log_probs.exp() * log_probs).sum()
            made[choice.label] = options[taken]
            token = self._first[choice.label] + positions[taken]
        return Decision(Architecture(self.space.name, tuple(made.items())), log_prob, entropy)
