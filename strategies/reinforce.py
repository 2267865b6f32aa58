"""REINFORCE: an LSTM controller that is rewarded for what the architectures it draws are worth.

Zoph & Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017 (NAS-RL): the
gradient of the expected reward is estimated as the mean of ∇ log π(a) · (R(a) − b) over a batch,
where the baseline b is a moving average of rewards. An entropy bonus, which others added later,
keeps the policy from settling early.

What differs from the paper: there is one controller, not a hundred replicas behind a parameter
server; as there, what comes back late was drawn under older weights and is learnt from as it is
(``strategies.ppo`` takes account of that). Choices are made by ``strategies.policy``.
``PUBLISHED`` has the paper's settings. They are meant for some ten thousand trials and in some
hundred hardly move the policy, so the defaults differ (chosen on made-up tables of additive and
pairwise effects): a learning rate of 0.01 and an entropy bonus of 0.03 to balance it; rewards
are quantiles among all values so far, where the paper cubes accuracies, and so need no unit;
and a proposal that was made before is drawn again up to 20 times, since
training it again costs a trial and tells little. What is then followed is the gradient of the
part of the expected reward that architectures not proposed yet make, up to its scale, as long as
the draws find such a one; known architectures are no longer pushed either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nas.objective import Objective
from nas.space import SearchSpace
from nas.training import reproducible
from nas.trial import Proposal, Trial
from strategies.controller import Controller, ControllerSettings
from strategies.policy import Decisions, PolicySettings

PUBLISHED = ControllerSettings(
    policy=PolicySettings(hidden=35, layers=2, tanh_constant=None, scale=0.08),
    lr=6e-4,
    batch=8,
    baseline_decay=0.95,
    entropy_weight=0.0,
    rewards="values",
    redraws=0,
)
"""The paper's, for CIFAR-10; a batch is a replica's 8 children. Decay: see ``ppo.PUBLISHED``."""

SETTINGS = ControllerSettings(
    policy=PUBLISHED.policy,
    lr=0.01,
    batch=10,
    baseline_decay=0.9,
    entropy_weight=0.03,
    rewards="quantiles",
    redraws=20,
)
"""For searches of some hundred trials."""


def reinforce_loss(
    decisions: Decisions, advantages: torch.Tensor, entropy_weight: float
) -> torch.Tensor:
    """Its gradient is REINFORCE's estimate, downwards, with the entropy bonus."""
    gain = (decisions.log_probs * advantages).mean()
    return -gain - entropy_weight * decisions.entropies.mean()


class Reinforce:
    """An LSTM controller trained by REINFORCE (NAS-RL).

    Args:
        settings: of network and training.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        settings: ControllerSettings = SETTINGS,
    ) -> None:
        self._controller = Controller(space, objectives, seed, settings)
        self.space = space
        self.objectives = self._controller.objectives
        self.seed = seed
        self.settings = settings

    def ask(self, n: int) -> Sequence[Proposal]:
        return self._controller.ask(n)

    def tell(self, trial: Trial) -> None:
        batch = self._controller.tell(trial)
        if batch is None:
            return
        with reproducible(self.seed, 1):
            decisions = self._controller.policy.of_many(batch.archs)
            loss = reinforce_loss(decisions, batch.advantages, self.settings.entropy_weight)
            self._controller.descend(loss)

    def state_dict(self) -> dict[str, Any]:
        return self._controller.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._controller.load_state_dict(state)
