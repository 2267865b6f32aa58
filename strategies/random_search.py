"""Random search without repeats: the baseline every other strategy has to beat.

Li & Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.errors import ConfigError
from nas.objective import Objective, check_objectives
from nas.space import SearchSpace, enumerate_architectures, sample
from nas.strategy import proposal_draws, proposal_seed
from nas.trial import Proposal, Trial


class RandomSearch:
    """Random architectures, none proposed twice; done when the space is exhausted.

    Two architectures of one canonical form are the same network and count as a repeat.
    """

    # So many draws in a row that were all seen before mean that few are left: list those then.
    _DRAWS = 200

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective], seed: int = 0) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self._number = 0
        self._seen: set[str] = set()

    def ask(self, n: int) -> Sequence[Proposal]:
        proposals: list[Proposal] = []
        while len(proposals) < n:
            draws = proposal_draws(self.seed, self._number)
            for _ in range(self._DRAWS):
                arch = sample(self.space, draws)
                digest = self.space.canonical(arch).digest()
                if digest not in self._seen:
                    break
            else:
                left: dict[str, Any] = {}
                for candidate in enumerate_architectures(self.space):
                    digest = self.space.canonical(candidate).digest()
                    if digest not in self._seen:
                        left.setdefault(digest, candidate)
                if not left:
                    break
                digest = list(left)[draws.integers(len(left))]
                arch = left[digest]
            self._seen.add(digest)
            proposals.append(
                Proposal(self._number, arch, seed=proposal_seed(self.seed, self._number))
            )
            self._number += 1
        return proposals

    def tell(self, trial: Trial) -> None:
        """Random search learns nothing."""

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number, "seen": sorted(self._seen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._seen = set(state["seen"])
