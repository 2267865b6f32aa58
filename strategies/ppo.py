"""PPO: an LSTM controller trained by proximal policy optimisation.

Zoph, Vasudevan, Shlens & Le, "Learning Transferable Architectures for Scalable Image Recognition"
(NASNet), CVPR 2018, and Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for
Mobile", CVPR 2019, which follows it with several objectives (``nas.objective.scalarize``). The
update is that of Schulman et al., "Proximal Policy Optimization Algorithms", 2017: some steps on
each batch, in which the probability of an architecture against that when it was drawn is clipped.
So a reward that comes back late counts by what the policy has become since.

What the papers leave open: the clip and the steps a batch, which here are those of the PPO paper
(0.2; 4, within its 3 to 10), and what is clipped: here the probability of the whole architecture,
which is what has a reward. A batch is NASNet's minibatch of 20, with which it says it updates.
There is no value network, in NASNet neither: the baseline is a moving average.

What differs from the papers: choices are made by ``strategies.policy``. ``PUBLISHED`` has
NASNet's settings, meant for 20,000 trials; the defaults are for some hundred and differ as in
``strategies.reinforce``, for the same reasons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nas.errors import ConfigError
from nas.objective import Objective
from nas.space import SearchSpace
from nas.training import reproducible
from nas.trial import Proposal, Trial
from strategies.controller import Batch, Controller, ControllerSettings
from strategies.policy import Decisions, PolicySettings

PUBLISHED = ControllerSettings(
    policy=PolicySettings(hidden=100, layers=1, tanh_constant=None, scale=0.1),
    lr=3.5e-4,
    batch=20,
    baseline_decay=0.95,
    entropy_weight=1e-5,
    rewards="values",
    redraws=0,
)
"""NASNet's; MnasNet names none of its own."""

SETTINGS = ControllerSettings(
    policy=PUBLISHED.policy,
    lr=0.003,
    batch=10,
    baseline_decay=0.9,
    entropy_weight=0.03,
    rewards="quantiles",
    redraws=20,
)
"""For searches of some hundred trials."""


def ppo_loss(
    decisions: Decisions, batch: Batch, clip: float, entropy_weight: float
) -> torch.Tensor:
    """Downwards: min(r A, clip(r, 1 − ε, 1 + ε) A) with r = π(a) / π_then(a), and the entropy."""
    ratios = (decisions.log_probs - batch.log_probs).exp()
    clipped = ratios.clamp(1 - clip, 1 + clip)
    gain = torch.minimum(ratios * batch.advantages, clipped * batch.advantages).mean()
    return -gain - entropy_weight * decisions.entropies.mean()


class Ppo:
    """An LSTM controller trained by PPO (NASNet, MnasNet).

    Args:
        settings: of network and training.
        clip: ε, by how much the ratio of probabilities may leave 1 to a gain.
        epochs: steps on each batch.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        settings: ControllerSettings = SETTINGS,
        clip: float = 0.2,
        epochs: int = 4,
    ) -> None:
        if not (math.isfinite(clip) and clip > 0):
            raise ConfigError(f"clip must be above 0, got {clip!r}")
        if epochs < 1:
            raise ConfigError(f"epochs must be at least 1, got {epochs!r}")
        self._controller = Controller(space, objectives, seed, settings)
        self.space = space
        self.objectives = self._controller.objectives
        self.seed = seed
        self.settings = settings
        self.clip = clip
        self.epochs = epochs

    def ask(self, n: int) -> Sequence[Proposal]:
        return self._controller.ask(n)

    def tell(self, trial: Trial) -> None:
        batch = self._controller.tell(trial)
        if batch is None:
            return
        with reproducible(self.seed, 1):
            for _ in range(self.epochs):
                decisions = self._controller.policy.of_many(batch.archs)
                loss = ppo_loss(decisions, batch, self.clip, self.settings.entropy_weight)
                self._controller.descend(loss)

    def state_dict(self) -> dict[str, Any]:
        return self._controller.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._controller.load_state_dict(state)
