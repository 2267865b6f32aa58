"""Hill climbing: a mutation of the best so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.architecture import Architecture
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives, scalarize
from nas.space import SearchSpace, mutate, sample
from nas.strategy import proposal_rng, proposal_seed
from nas.trial import Measured, Proposal, Trial


class HillClimbing:
    """Mutates the best architecture so far; begins with random ones.

    Args:
        warmup: how many random architectures come first.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        warmup: int = 4,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if warmup < 1:
            raise ConfigError(f"warmup must be at least 1, got {warmup}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.warmup = warmup
        self._number = 0
        self._best: tuple[int, Architecture, float] | None = None

    def ask(self, n: int) -> Sequence[Proposal]:
        proposals = []
        for number in range(self._number, self._number + n):
            rng, seed = proposal_rng(self.seed, number), proposal_seed(self.seed, number)
            if number < self.warmup or self._best is None:
                proposals.append(Proposal(number, sample(self.space, rng), seed=seed))
            else:
                parent, arch, _ = self._best
                child = mutate(self.space, arch, rng)
                proposals.append(Proposal(number, child, seed=seed, parent=parent))
        self._number += n
        return proposals

    def tell(self, trial: Trial) -> None:
        if not isinstance(trial.outcome, Measured):
            return
        score = scalarize(self.objectives, trial.values)
        if self._best is None or score > self._best[2]:
            self._best = (trial.number, trial.arch, score)

    def state_dict(self) -> dict[str, Any]:
        best = None
        if self._best is not None:
            number, arch, score = self._best
            best = [number, arch.to_json(), score]
        return {"number": self._number, "best": best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._best = None
        if state["best"] is not None:
            number, text, score = state["best"]
            self._best = (number, Architecture.from_json(text), score)
