"""EAS: a controller that learns which layers of a network to widen and where to add more.

Cai, Chen, Zhang, Yu & Wang, "Efficient Architecture Search by Network Transformation", AAAI 2018.
Every architecture is made from the same start by four steps in which the wider actor decides for
each layer whether it takes its next width, and five in which the deeper actor inserts a layer
(``strategies.eas_policy``); it is trained from its parent's weights (the evaluator's part:
``inherited``, 20 epochs in the paper). Ten of them are a batch for REINFORCE, their rewards
tan(accuracy · π/2) above a moving average; after 300 the best becomes the next start.

What differs from the paper: what can be grown is the space's morphisms (``nas.morphism``) of the
kinds ``wider`` and ``deeper``; a space that has none at the start is refused. The start is
trained first, as trial 0, where the paper is given trained networks of a human's making; where
that fails it is proposed again, and where it breaks a limit a random one takes its place. Workers
never wait for a batch: what comes back late was drawn under older weights and is learnt from as
it is. Failed and infeasible trials are in no batch. The new start is not trained longer first.
With several objectives the reward is that of their weighted product.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch

from nas.architecture import Architecture
from nas.draws import Draws
from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.objective import Objective, check_objectives, scalarize
from nas.space import SearchSpace, sample
from nas.strategy import proposal_draws, proposal_seed
from nas.training import reproducible
from nas.trial import Infeasible, Measured, Proposal, Trial
from strategies.eas_policy import EasPolicy, EasSettings, Episode
from strategies.policy import load_moments, moments
from strategies.starting import starting

Rewards = Literal["tan", "quantiles"]

PUBLISHED = EasSettings()

_ALMOST_ONE = 0.999  # a fraction of 1 has no finite tangent


class Eas:
    """Network transformation by a wider and a deeper actor (EAS).

    Args:
        rewards: ``"tan"`` is the paper's, for an objective from 0 to 1; ``"quantiles"`` the share
            of all values so far that lie below (equal ones count half), whatever their unit.
        initial: the text of the architecture to start from (``nas.space.parse``), at most one; by
            default the first option of every choice.
        settings: of the network and its training.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        rewards: Rewards = "tan",
        initial: Sequence[str] = (),
        settings: EasSettings = PUBLISHED,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if rewards not in get_args(Rewards):
            raise ConfigError(f"no rewards {rewards!r}: {nearest(rewards, get_args(Rewards))}")
        if len(initial) > 1:
            raise ConfigError(f"initial: it starts from one architecture, got {len(initial)}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.rewards = rewards
        self.initial = tuple(initial)
        self.settings = settings
        (self._first,) = starting(space, initial)
        with reproducible(seed, 1):
            self._policy = EasPolicy(space, settings)
        growths = self._policy.growths(self._first)
        if not growths.wider and not growths.deeper:
            raise UnsupportedRequest(
                f"eas: {space.name!r} has nothing to widen or deepen in {self._first}: start "
                "elsewhere (initial), or take 'reinforce', which needs no morphisms"
            )
        self._optimiser = torch.optim.Adam(self._policy.parameters(), lr=settings.lr)
        self._number = 0
        self._start: tuple[int, Architecture] | None = None  # where episodes start
        self._starts_flying = 0
        self._first_is_legal = True
        self._best: tuple[float, int, Architecture] | None = None
        self._measured = 0  # in this stage
        self._baseline: float | None = None
        self._flying: dict[int, tuple[Architecture, list[int]]] = {}
        self._waiting: list[tuple[Architecture, list[int], float]] = []
        self._values: list[float] = []  # ascending

    # ----------------------------------------------------------------------------- asking

    def ask(self, n: int) -> Sequence[Proposal]:
        if self._start is None:
            return [self._propose_first()] if n and not self._starts_flying else []
        return [self._propose(*self._start) for _ in range(n)]

    def _propose_first(self) -> Proposal:
        number, self._number = self._number, self._number + 1
        self._starts_flying += 1
        draws = proposal_draws(self.seed, number)
        arch = self._first if self._first_is_legal else sample(self.space, draws)
        return Proposal(number, arch, proposal_seed(self.seed, number))

    def _propose(self, parent: int, start: Architecture) -> Proposal:
        number, self._number = self._number, self._number + 1
        draws = proposal_draws(self.seed, number)
        with reproducible(self.seed, 1), torch.no_grad():
            episode = self._policy.episode(start, lambda shares: _drawn(shares, draws))
        self._flying[number] = start, list(episode.decisions)
        seed = proposal_seed(self.seed, number)
        return Proposal(number, episode.arch, seed, parent=parent)

    # ---------------------------------------------------------------------------- telling

    def tell(self, trial: Trial) -> None:
        flown = self._flying.pop(trial.number, None)
        if flown is None:
            self._starts_flying -= 1
        if not isinstance(trial.outcome, Measured):
            if flown is None and isinstance(trial.outcome, Infeasible):
                self._first_is_legal = False
            return
        value = scalarize(self.objectives, trial.values)
        if self.rewards == "tan" and not 0 <= value <= 1:
            raise ConfigError(
                f"eas: the reward 'tan' is for objectives from 0 to 1, but trial {trial.number} "
                f"has {value:g}: set rewards to 'quantiles'"
            )
        bisect.insort(self._values, value)
        if self._best is None or value > self._best[0]:
            self._best = value, trial.number, trial.arch
        if flown is None:
            self._start = trial.number, trial.arch
            return
        self._waiting.append((*flown, value))
        if len(self._waiting) == self.settings.batch:
            self._learn()
        self._measured += 1
        if self._measured == self.settings.stage:
            self._measured = 0
            self._start = self._best[1:]

    def _learn(self) -> None:
        starts, decisions, values = zip(*self._waiting, strict=True)
        self._waiting = []
        rewards = [self._reward(value) for value in values]
        if self._baseline is None:
            self._baseline = sum(rewards) / len(rewards)
        advantages = torch.tensor([reward - self._baseline for reward in rewards])
        for reward in rewards:
            self._baseline += (1 - self.settings.baseline_decay) * (reward - self._baseline)
        with reproducible(self.seed, 1):
            episodes = [
                again(self._policy, start, made)
                for start, made in zip(starts, decisions, strict=True)
            ]
            self._optimiser.zero_grad()
            eas_loss(episodes, advantages, self.settings.entropy_weight).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._optimiser.step()

    def _reward(self, value: float) -> float:
        if self.rewards == "tan":
            return math.tan(min(value, _ALMOST_ONE) * math.pi / 2)
        below = bisect.bisect_left(self._values, value)
        return (below + bisect.bisect_right(self._values, value)) / (2 * len(self._values))

    # ------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "start": None if self._start is None else [self._start[0], self._start[1].to_json()],
            "starts_flying": self._starts_flying,
            "first_is_legal": self._first_is_legal,
            "best": None if self._best is None else [*self._best[:2], self._best[2].to_json()],
            "measured": self._measured,
            "baseline": self._baseline,
            "flying": [
                [number, arch.to_json(), list(made)]
                for number, (arch, made) in sorted(self._flying.items())
            ],
            "waiting": [[arch.to_json(), list(made), v] for arch, made, v in self._waiting],
            "values": list(self._values),
            "policy": {k: v.detach().clone() for k, v in self._policy.state_dict().items()},
            "moments": moments(self._policy, self._optimiser),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        read = Architecture.from_json
        start, best = state["start"], state["best"]
        self._number = state["number"]
        self._start = None if start is None else (start[0], read(start[1]))
        self._starts_flying = state["starts_flying"]
        self._first_is_legal = state["first_is_legal"]
        self._best = None if best is None else (best[0], best[1], read(best[2]))
        self._measured = state["measured"]
        self._baseline = state["baseline"]
        self._flying = {n: (read(text), list(made)) for n, text, made in state["flying"]}
        self._waiting = [(read(text), list(made), v) for text, made, v in state["waiting"]]
        self._values = list(state["values"])
        self._policy.load_state_dict(state["policy"])
        load_moments(self._policy, self._optimiser, state["moments"])


def again(policy: EasPolicy, start: Architecture, decisions: Sequence[int]) -> Episode:
    """The episode of these decisions, as the policy thinks of it now."""
    left = iter(decisions)
    return policy.episode(start, lambda shares: next(left))


def eas_loss(
    episodes: Sequence[Episode], advantages: torch.Tensor, entropy_weight: float
) -> torch.Tensor:
    """Its gradient is REINFORCE's estimate, downwards, with the entropy bonus."""
    gain = (torch.stack([episode.log_prob for episode in episodes]) * advantages).mean()
    return -gain - entropy_weight * torch.stack([e.entropy for e in episodes]).mean()


def _drawn(shares: Sequence[float], draws: Draws) -> int:
    """An index, by its share."""
    left = draws.random()
    likely = [index for index, share in enumerate(shares) if share > 0]
    for index in likely:
        left -= shares[index]
        if left < 0:
            return index
    return likely[-1]
