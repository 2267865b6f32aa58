"""Q-learning over a space's ordered choices, with a table: MetaQNN, and BlockQNN's variant.

Baker, Gupta, Naik & Raskar, "Designing Neural Network Architectures using Reinforcement Learning"
(MetaQNN), ICLR 2017; Zhong, Yan, Wu, Shao & Liu, "Practical Block-wise Neural Network Architecture
Generation" (BlockQNN), CVPR 2018. The agent makes one choice after the other: with probability ε a
random one, else one of the greatest Q-value; ε falls by a schedule. Every model that comes back is
remembered, and so many that are drawn from memory are gone through again, from the last step to
the first: Q(s, u) += α (r + γ max Q(s', ·) − Q(s, u)). A model is proposed once.

What differs from the papers: any space is searched. A space may say what its states are
(``nas.space.HasState``; MetaQNN's own does, as published), else a state is the choice at hand with
the picks made just before it: the last one, or more. The schedule can be scaled to a search of any
length; it counts proposals, and not models that came back. What failed is not remembered. Where the
agent draws a model that it had before it draws another; MetaQNN's besides remembers it once more
and learns, which at a low ε is most of its time, and on made-up tasks gained nothing. The reward of
several objectives is their weighted product (``nas.objective.scalarize``). For BlockQNN see
``BLOCKQNN`` and ``strategies.q_rewards``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nas.architecture import Architecture, Choice, Scalar
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives, scalarize
from nas.space import HasState, SearchSpace, enumerate_architectures
from nas.strategy import proposal_rng, proposal_seed
from nas.trial import Measured, Proposal, Trial
from strategies.q_rewards import SHAPES, check_density, corrected, density_of, macs_of
from strategies.q_settings import METAQNN, QSettings, epsilon_at


class _Step(NamedTuple):
    """One pick of an episode: the row of Q-values it is in, and where."""

    row: list[float]
    legal: Callable[[list[float]], Sequence[float]]  # the values of the row's legal options
    pick: int
    reward: float


class _Episode(NamedTuple):
    """A model that was measured: its picks as positions of their options, and its steps."""

    picks: tuple[int, ...]
    reward: float
    steps: list[_Step]


class QLearning:
    """Tabular Q-learning with an ε-greedy agent and experience replay.

    Args:
        trials: how many the search has, to which the schedule of ε is scaled; by default the
            schedule is that of the settings: 2,700 models for MetaQNN, 11,392 for BlockQNN.
        settings: ``METAQNN``, ``BLOCKQNN`` or one's own.

    Raises:
        UnsupportedRequest: the reward is corrected by density, and the space has no graphs.
    """

    # So many draws of the agent, and as many random ones, that were all made before mean that few
    # are left: list those then.
    _DRAWS = 200

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        trials: int | None = None,
        settings: QSettings = METAQNN,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if trials is not None and trials < 1:
            raise ConfigError(f"trials must be 1 or more, got {trials}")
        if settings.density_weight:
            check_density(space)
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.trials = trials
        self.settings = settings
        self._number = 0
        self._table: dict[str, list[float]] = {}
        self._proposed: dict[tuple[int, ...], None] = {}  # a set in the order of the proposals
        self._memory: list[_Episode] = []
        self._choices = {choice.label: choice for choice in space.choices}
        self._legal: dict[tuple[str, tuple[Scalar, ...]], tuple[int, ...]] = {}
        self._stated = space if isinstance(space, HasState) else None

    def q_values(self, prefix: Mapping[str, Scalar]) -> dict[Scalar, float]:
        """The Q-value of every option that is legal after a prefix; none where it is complete."""
        step = self.space.legal(prefix)
        if step is None:
            return {}
        row = self._table.get(self._state(step[0], prefix))
        return {
            option: self.settings.initial if row is None else row[position]
            for option, position in zip(step[1], self._positions(*step), strict=True)
        }

    # -------------------------------------------------------------------------- proposing

    def ask(self, n: int) -> Sequence[Proposal]:
        proposals: list[Proposal] = []
        while len(proposals) < n:
            number = self._number
            rng = proposal_rng(self.seed, number)
            epsilon = epsilon_at(self.settings.schedule, number, self.trials)
            drawn = self._draw(epsilon, rng)
            if drawn is None:
                break
            picks, arch = drawn
            self._proposed[picks] = None
            self._number += 1
            notes = {"epsilon": epsilon}
            seed = proposal_seed(self.seed, number)
            proposals.append(Proposal(number, arch, seed=seed, notes=notes))
        return proposals

    def _draw(
        self, epsilon: float, rng: np.random.Generator
    ) -> tuple[tuple[int, ...], Architecture] | None:
        """An architecture not proposed before, and its picks' positions."""
        for chance in [epsilon] * self._DRAWS + [1.0] * self._DRAWS:
            picks, made = self._walk(chance, rng)
            if picks not in self._proposed:
                return picks, Architecture(self.space.name, tuple(made.items()))
        left = []
        for arch in enumerate_architectures(self.space):
            picks = self._picks(arch)
            if picks not in self._proposed:
                left.append((picks, arch))
        return left[int(rng.integers(len(left)))] if left else None

    def _walk(
        self, epsilon: float, rng: np.random.Generator
    ) -> tuple[tuple[int, ...], dict[str, Scalar]]:
        """What the ε-greedy agent picks: positions of options, and the options by label."""
        made: dict[str, Scalar] = {}
        picks: list[int] = []
        while (step := self.space.legal(made)) is not None:
            choice = step[0]
            positions = self._positions(*step)
            row = None
            if rng.random() >= epsilon:
                row = self._table.get(self._state(choice, made))
            if row is not None:
                best = max(row[position] for position in positions)
                positions = tuple(position for position in positions if row[position] == best)
            pick = positions[int(rng.random() * len(positions))]
            made[choice.label] = choice.options[pick]
            picks.append(pick)
        return tuple(picks), made

    # --------------------------------------------------------------------------- learning

    def tell(self, trial: Trial) -> None:
        if not isinstance(trial.outcome, Measured):
            return
        picks = self._picks(trial.arch)
        reward = self._reward(trial.arch, trial.values)
        self._memory.append(self._episode(picks, reward))
        # Neither the proposal's generator nor that of its seed, and of this trial alone.
        self._replay(np.random.default_rng([self.seed, trial.number, 2]))

    def _reward(self, arch: Architecture, values: Mapping[str, float]) -> float:
        reward = scalarize(self.objectives, values)
        mu, rho = self.settings.flops_weight, self.settings.density_weight
        if mu == rho == 0:
            return reward
        flops = macs_of(self.space, arch, values) if mu else 1.0
        density = density_of(self.space, arch) if rho else 1.0
        return corrected(reward, flops, density, mu, rho)

    def _replay(self, rng: np.random.Generator) -> None:
        """Learns from episodes that are drawn from memory."""
        rate, discount = self.settings.learning_rate, self.settings.discount
        for drawn in rng.integers(len(self._memory), size=self.settings.draws).tolist():
            following = 0.0  # after the last step there is nothing
            for row, legal, pick, reward in reversed(self._memory[drawn].steps):
                row[pick] += rate * (reward + discount * following - row[pick])
                following = max(legal(row))

    def _episode(self, picks: tuple[int, ...], reward: float) -> _Episode:
        """The steps to an architecture; rows that are new begin with the initial value."""
        rewards = SHAPES[self.settings.shape](reward, len(picks))
        made: dict[str, Scalar] = {}
        steps: list[_Step] = []
        for pick, part in zip(picks, rewards, strict=True):
            step = self.space.legal(made)
            assert step is not None
            choice = step[0]
            state = self._state(choice, made)
            if state not in self._table:
                self._table[state] = [self.settings.initial] * len(choice.options)
            steps.append(_Step(self._table[state], _take(self._positions(*step)), pick, part))
            made[choice.label] = choice.options[pick]
        return _Episode(picks, reward, steps)

    # ----------------------------------------------------------------------------- states

    def _state(self, choice: Choice, prefix: Mapping[str, Scalar]) -> str:
        """The state of a prefix, by name; ``choice`` is the one that follows it."""
        if self._stated is not None:
            return " ".join(map(str, self._stated.state(prefix)))
        shown = list(prefix.items())
        window = self.settings.window
        if window is not None:
            shown = shown[len(shown) - min(window, len(shown)) :]
        return " ".join([*(f"{label}={pick}" for label, pick in shown), choice.label])

    def _positions(self, choice: Choice, options: tuple[Scalar, ...]) -> tuple[int, ...]:
        """Where the legal options of a choice are among all of them."""
        key = (choice.label, options)
        if key not in self._legal:
            self._legal[key] = tuple(choice.index(option) for option in options)
        return self._legal[key]

    def _picks(self, arch: Architecture) -> tuple[int, ...]:
        return tuple(self._choices[label].index(option) for label, option in arch.picks)

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "table": {state: list(row) for state, row in self._table.items()},
            "proposed": [list(picks) for picks in self._proposed],
            "memory": [[list(episode.picks), episode.reward] for episode in self._memory],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._table = {name: list(row) for name, row in state["table"].items()}
        self._proposed = dict.fromkeys(tuple(picks) for picks in state["proposed"])
        self._memory = [self._episode(tuple(picks), reward) for picks, reward in state["memory"]]


def _take(positions: tuple[int, ...]) -> Callable[[list[float]], Sequence[float]]:
    """What gives the values at these positions of a row."""
    if len(positions) == 1:
        return lambda row: (row[positions[0]],)
    return operator.itemgetter(*positions)
