"""What controllers trained by reinforcement share: a policy, what it drew, and rewards that come
back in any order.

A batch is the next so many *measured* trials to come back, whatever their numbers: workers never
wait for one another, and a trial that comes late is learnt from late. Failed and infeasible
trials are in no batch. A failure says nothing of the architecture, and any score given to it would
be made up. What breaks a limit could be given a penalty, but its size would be in the objective's
unit, which is anybody's guess, and it would drown the differences among the measured: they are
left out, and the policy comes to like what keeps the limits because only that is rewarded.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from nas.architecture import Architecture
from nas.errors import ConfigError, nearest
from nas.objective import Objective, check_objectives, scalarize
from nas.space import SearchSpace
from nas.strategy import proposal_rng, proposal_seed
from nas.training import reproducible
from nas.trial import Measured, Proposal, Trial
from strategies.policy import Policy, PolicySettings, load_moments, moments

Rewards = Literal["values", "quantiles"]


@dataclass(frozen=True)
class ControllerSettings:
    """How a controller is built and trained.

    Attributes:
        policy: of the network.
        lr: of Adam.
        batch: measured trials an update.
        baseline_decay: of the moving average of rewards.
        entropy_weight: of the policy's entropy (in nats), added to the expected reward.
        rewards: ``"values"`` are the scalarised objectives themselves; ``"quantiles"`` the share
            of all values so far that lie below (equal ones count half): without a unit, and the
            differences among good architectures are not drowned by those from bad ones.
        redraws: how often a proposal is drawn again that was proposed before; 0 for never.
    """

    policy: PolicySettings = PolicySettings(tanh_constant=None)  # noqa: RUF009  # frozen
    lr: float = 0.01
    batch: int = 10
    baseline_decay: float = 0.9
    entropy_weight: float = 0.03
    rewards: Rewards = "quantiles"
    redraws: int = 20

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("redraws", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"settings: {name} must be at least {least}, got {getattr(self, name)!r}"
                )
        ranges = {
            "lr": (self.lr > 0, "above 0"),
            "entropy_weight": (self.entropy_weight >= 0, "0 or more"),
            "baseline_decay": (0 <= self.baseline_decay < 1, "from 0 to below 1"),
        }
        for name, (holds, expected) in ranges.items():
            value = getattr(self, name)
            if not holds or not math.isfinite(value):
                raise ConfigError(f"settings: {name} must be {expected}, got {value!r}")
        if self.rewards not in get_args(Rewards):
            raise ConfigError(
                f"settings: no rewards {self.rewards!r}: {nearest(self.rewards, get_args(Rewards))}"
            )


@dataclass(frozen=True, slots=True)
class Batch:
    """What an update learns from.

    Attributes:
        log_probs: of the architectures when they were drawn, (N).
        advantages: rewards above the baseline, (N).
    """

    archs: Sequence[Architecture]
    log_probs: torch.Tensor
    advantages: torch.Tensor


class Controller:
    """A policy and its optimiser, its proposals in flight, and the batch that is coming together.

    Attributes:
        baseline: the moving average of rewards; ``None`` before the first batch, of which it is
            the mean.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int,
        settings: ControllerSettings,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.settings = settings
        with reproducible(seed, 1):
            self.policy = Policy(space, settings.policy)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=settings.lr)
        self.baseline: float | None = None
        self._number = 0
        self._proposed: set[str] = set()
        self._flying: dict[int, float] = {}
        self._waiting: list[tuple[Architecture, float, float]] = []
        self._values: list[float] = []  # ascending

    def ask(self, n: int) -> list[Proposal]:
        """Proposals drawn under the weights of the moment, each by its own generator."""
        numbers = range(self._number, self._number + n)
        rngs = {number: proposal_rng(self.seed, number) for number in numbers}
        drawn: dict[int, tuple[Architecture, float]] = {}
        left = list(numbers)
        # Drawn again all at once: in a batch that costs little, also where nothing new is left.
        for draws in (1, self.settings.redraws):
            repeats = []
            found = self._draw([rngs[number] for number in left for _ in range(draws)])
            for place, number in enumerate(left):
                mine = found[place * draws : (place + 1) * draws] or [drawn[number]]
                new = (pair for pair in mine if pair[0].digest() not in self._proposed)
                drawn[number] = next(new, None) or mine[-1]
                digest = drawn[number][0].digest()
                if digest in self._proposed:
                    repeats.append(number)
                self._proposed.add(digest)
            left = repeats
        self._number += n
        self._flying |= {number: drawn[number][1] for number in numbers}
        return [
            Proposal(number, drawn[number][0], seed=proposal_seed(self.seed, number))
            for number in numbers
        ]

    def _draw(self, rngs: Sequence[np.random.Generator]) -> list[tuple[Architecture, float]]:
        """Architectures, with the logarithms of their probabilities."""
        if not rngs:
            return []
        with reproducible(self.seed, 1), torch.no_grad():
            decisions = self.policy.sample_many(rngs)
        return list(zip(decisions.archs, decisions.log_probs.tolist(), strict=True))

    def tell(self, trial: Trial) -> Batch | None:
        """The batch that this trial completes, if it does."""
        log_prob = self._flying.pop(trial.number, None)
        if log_prob is None or not isinstance(trial.outcome, Measured):
            return None
        value = scalarize(self.objectives, trial.values)
        bisect.insort(self._values, value)
        self._waiting.append((trial.arch, log_prob, value))
        if len(self._waiting) < self.settings.batch:
            return None
        archs, log_probs, values = zip(*self._waiting, strict=True)
        self._waiting = []
        rewards = [self._reward(value) for value in values]
        if self.baseline is None:
            self.baseline = sum(rewards) / len(rewards)
        advantages = torch.tensor([reward - self.baseline for reward in rewards])
        for reward in rewards:
            self.baseline += (1 - self.settings.baseline_decay) * (reward - self.baseline)
        return Batch(archs, torch.tensor(log_probs), advantages)

    def _reward(self, value: float) -> float:
        if self.settings.rewards == "values":
            return value
        below = bisect.bisect_left(self._values, value)
        return (below + bisect.bisect_right(self._values, value)) / (2 * len(self._values))

    def descend(self, loss: torch.Tensor) -> None:
        """A step of the policy down the gradient of a loss."""
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "proposed": sorted(self._proposed),
            "flying": [[number, log_prob] for number, log_prob in sorted(self._flying.items())],
            "waiting": [[arch.to_json(), *rest] for arch, *rest in self._waiting],
            "values": list(self._values),
            "baseline": self.baseline,
            "policy": {k: v.detach().clone() for k, v in self.policy.state_dict().items()},
            "moments": moments(self.policy, self.optimiser),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = int(state["number"])
        self._proposed = set(state["proposed"])
        self._flying = {int(number): float(log_prob) for number, log_prob in state["flying"]}
        self._waiting = [
            (Architecture.from_json(text), log_prob, value)
            for text, log_prob, value in state["waiting"]
        ]
        self._values = list(state["values"])
        self.baseline = state["baseline"]
        self.policy.load_state_dict(state["policy"])
        load_moments(self.policy, self.optimiser, state["moments"])
