"""ENAS: a controller and shared weights, trained in turns.

Pham, Guan, Zoph, Le & Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML
2018. An epoch of the shared weights on architectures that the controller samples, one a step;
then steps of the controller by REINFORCE, the reward being the accuracy on a batch of validation
examples with the shared weights and that batch's own statistics.

What differs from the paper: any space with shared weights is searched, by the policy of
``strategies.policy``, without the macro space's term on the share of skips; gradients of the
weights are clipped together rather than each tensor's; there is no auxiliary head. Settings are
those of the authors' script for the micro space; its L2 term of 1e-4 is a weight decay of 2e-4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from nas.architecture import Architecture
from nas.budget import Cost
from nas.data import Data, split
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives
from nas.space import SearchSpace
from nas.supernet import Supernet
from nas.supernet.plans import single
from nas.supernet.training import PathSettings, PathTraining
from nas.training import Device, fetch, reproducible
from nas.trial import Proposal, Trial
from strategies.epochs import propose
from strategies.policy import Policy, PolicySettings, load_moments, moments

SHARED = PathSettings(
    epochs=150,
    batch_size=160,
    learning_rate=0.05,
    learning_rate_min=0.0005,
    schedule="restarts",
    period=10,
    momentum=0.9,
    nesterov=True,
    weight_decay=2e-4,
    label_smoothing=0.0,
    gradient_clip=5.0,
)
"""How the authors train the shared weights."""


@dataclass(frozen=True)
class EnasSettings:
    """How shared weights and controller are trained; the defaults are the authors'.

    Attributes:
        shared: of the weights; its epochs are those of the search.
        policy: of the controller's network.
        lr: of Adam on the controller.
        steps: updates of the controller an epoch.
        samples: architectures an update, whose gradients are averaged.
        entropy_weight: of a sample's entropy, added to its reward.
        baseline_decay: of the moving average of rewards, which starts at 0.
        candidates: samples of which the best on one batch is proposed.
        validation_fraction: share of the training set that rewards are measured on.
    """

    shared: PathSettings = SHARED
    policy: PolicySettings = PolicySettings()  # noqa: RUF009  # frozen
    lr: float = 0.0035
    steps: int = 30
    samples: int = 10
    entropy_weight: float = 1e-4
    baseline_decay: float = 0.99
    candidates: int = 10
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("samples", 1), ("candidates", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"settings: {name} must be at least {least}, got {getattr(self, name)!r}"
                )
        ranges = {
            "lr": (self.lr > 0, "above 0"),
            "entropy_weight": (self.entropy_weight >= 0, "0 or more"),
            "baseline_decay": (0 <= self.baseline_decay < 1, "from 0 to below 1"),
            "validation_fraction": (0 < self.validation_fraction < 1, "between 0 and 1"),
        }
        for name, (holds, expected) in ranges.items():
            value = getattr(self, name)
            if not holds or not math.isfinite(value):
                raise ConfigError(f"settings: {name} must be {expected}, got {value!r}")


SETTINGS = EnasSettings()
"""The authors', for the micro space."""


def batch_accuracy(
    supernet: Supernet, arch: Architecture, images: torch.Tensor, labels: torch.Tensor
) -> float:
    """The accuracy (fraction) of an architecture on a batch, normalised by the batch itself."""
    network = supernet.network(arch).eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()  # its statistics are the network's own: the shared ones stay
    with torch.no_grad():
        return float((network(images).argmax(dim=1) == labels).float().mean())


class EnasSearch:
    """The shared weights, the controller, and epochs of both.

    Attributes:
        epoch: how many are done.
        baseline: the moving average of rewards.
        rewards: the mean reward (accuracy alone) of the samples of each epoch.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: Data,
        settings: EnasSettings,
        seed: int,
        device: Device = "auto",
        threads: int = 1,
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.threads = threads
        examples, self._validation = split(data, settings.validation_fraction)
        plan = single(self._sampled)
        self.training = PathTraining(
            space, examples, data, settings.shared, plan, seed, device, threads
        )
        with reproducible(seed + 1, threads):
            self.policy = Policy(space, settings.policy)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=settings.lr)
        self.baseline = 0.0
        self.rewards: list[float] = []

    @property
    def epoch(self) -> int:
        return self.training.epoch

    @property
    def done(self) -> bool:
        """Whether all epochs are."""
        return self.training.done

    def advance(self) -> None:
        """An epoch of the shared weights, and the controller's steps behind it.

        Raises:
            NotFinite: the training loss is not.
        """
        self.training.advance()
        rng = np.random.default_rng([self.seed, self.epoch, 11])
        with reproducible(self.seed + self.epoch, self.threads):
            seen = [self._update(rng) for _ in range(self.settings.steps)]
        self.rewards.append(float(np.mean(seen)) if seen else 0.0)

    def _sampled(self, rng: np.random.Generator) -> list[Architecture]:
        with torch.no_grad():
            return [self.policy.sample(rng).arch]

    def _update(self, rng: np.random.Generator) -> float:
        settings = self.settings
        self.optimiser.zero_grad()
        total = 0.0
        for _ in range(settings.samples):
            decision = self.policy.sample(rng)
            accuracy = batch_accuracy(self.training.supernet, decision.arch, *self._batch(rng))
            reward = accuracy + settings.entropy_weight * float(decision.entropy.detach())
            # As the authors have it: the baseline has moved before the reward is compared to it.
            self.baseline -= (1 - settings.baseline_decay) * (self.baseline - reward)
            loss = -decision.log_prob * (reward - self.baseline) / settings.samples
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += accuracy
        self.optimiser.step()
        return total / settings.samples

    def _batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Random validation examples, without augmentation."""
        size = min(self.settings.shared.batch_size, len(self._validation))
        chosen = rng.choice(len(self._validation), size, replace=False)
        images, labels = fetch(self._validation, torch.from_numpy(chosen))
        return images.to(self.training.device), labels.to(self.training.device)

    def architecture(self) -> Architecture:
        """Of some samples of the controller the best on one batch, the first of equals."""
        rng = np.random.default_rng([self.seed, self.epoch, 13])
        with reproducible(self.seed, self.threads), torch.no_grad():
            batch = self._batch(rng)
            archs = [self.policy.sample(rng).arch for _ in range(self.settings.candidates)]
            scores = [batch_accuracy(self.training.supernet, arch, *batch) for arch in archs]
        return archs[int(np.argmax(scores))]

    def state_dict(self) -> dict[str, Any]:
        """All that the following epochs depend on."""
        return {
            "training": self.training.state_dict(),
            "policy": {k: v.detach().clone() for k, v in self.policy.state_dict().items()},
            "moments": moments(self.policy, self.optimiser),
            "baseline": self.baseline,
            "rewards": list(self.rewards),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.training.load_state_dict(state["training"])
        self.policy.load_state_dict(state["policy"])
        load_moments(self.policy, self.optimiser, state["moments"])
        self.baseline = float(state["baseline"])
        self.rewards = [float(reward) for reward in state["rewards"]]


class Enas:
    """ENAS: an LSTM controller trained by REINFORCE on shared weights, in turns with those.

    Proposes the best of some samples of the controller after every ``propose_every`` epochs.
    A proposal is charged the epochs of the shared weights; rewards, which are passes forward over
    batches of validation examples, are not charged.

    Args:
        data: a part of the training set is kept for the controller's rewards.
        settings: of weights and controller.
        propose_every: epochs of the search a proposal.
        device: of the weights; ``auto`` is a GPU where there is one.
        threads: of the CPU; more than one is not reproducible to the bit.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        data: Data,
        seed: int = 0,
        settings: EnasSettings = SETTINGS,
        propose_every: int = 1,
        device: Device = "auto",
        threads: int = 1,
    ) -> None:
        for name, value, least in (
            ("seed", seed, 0),
            ("propose_every", propose_every, 1),
            ("threads", threads, 1),
        ):
            if value < least:
                raise ConfigError(f"{name} must be {least} or more, got {value}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.data = data
        self.seed = seed
        self.settings = settings
        self.propose_every = propose_every
        self.device = device
        self.threads = threads
        self._number = 0
        self._search = EnasSearch(space, data, settings, seed, device, threads)

    def ask(self, n: int) -> Sequence[Proposal]:
        if n < 1:
            return []
        before = self._search.epoch
        proposals = propose(self._search, self._number, self.seed, self.propose_every)
        self._number += len(proposals)
        spent = Cost(epochs=float(self._search.epoch - before))
        return [replace(one, spent=spent) for one in proposals]

    def tell(self, trial: Trial) -> None:
        """Nothing: what is learnt is learnt from the data."""

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number, "search": self._search.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = int(state["number"])
        self._search.load_state_dict(state["search"])
