"""Large-scale evolution: linear models grow by mutation and pass on their weights.

Real, Moore, Selle, Saxena, Suematsu, Tan, Le & Kurakin, "Large-Scale Evolution of Image
Classifiers", ICML 2017: of two members drawn at random the worse is killed, the better is copied
and its copy mutated and trained; it starts from the weights of its parent where their shapes
match (the evaluator's part: ``inherited``). Population 1000, all of them trivial to begin with.

The mutations are the paper's, each as likely: alter the learning rate (by a factor from 1/2 to 2),
identity (trained on, as it is), reset the weights, and what the space names as its edits
(``nas.space.HasEdits``; those of ``grown_chain`` are the paper's eight). On a space without edits
one choice changes, eight times as likely as each of the other three.

An individual's learning rate is no part of its architecture: it is noted with the proposal
(``learning_rate``), along with the mutation and what was mutated (``mutation``, ``of``). The
evaluator trains with the rate noted if it is ``inherited``; others take no notice.
One whose weights are reset has no parent to inherit from.

What differs from the paper: a layer behind one that went in or out keeps its own weights where
the child computes what its parent does, and takes those of the layer that had its place elsewhere
(the paper's keep theirs); a mutation that cannot be applied is not drawn; edits are those of
the space's options. A member dies only while enough others are alive or on their way
(``strategies.tournament``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nas.architecture import Architecture
from nas.draws import Draws
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives
from nas.space import HasEdits, SearchSpace, mutate
from nas.strategy import proposal_draws, proposal_seed
from nas.trial import Measured, Proposal, Trial
from strategies.starting import starting
from strategies.survivors import Survivors

ALTER_LEARNING_RATE, IDENTITY, RESET_WEIGHTS = OF_TRAINING = (
    "alter_learning_rate",
    "identity",
    "reset_weights",
)
CHANGE = "change"
EDITS = 8  # of the paper: what a change of one choice stands for


class LargeScaleEvolution:
    """Pairwise tournaments among networks that grow from trivial ones and inherit weights.

    Args:
        population_size: how many live.
        learning_rate: of the first ones.
        initial: texts of the architectures (``nas.space.parse``) that the population starts
            from, in turn; by default the first option of every choice.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        population_size: int = 1000,
        learning_rate: float = 0.1,
        initial: Sequence[str] = (),
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if not learning_rate > 0 or not math.isfinite(learning_rate):
            raise ConfigError(f"learning_rate must be above 0, got {learning_rate}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.population_size = population_size
        self.learning_rate = learning_rate
        self.initial = tuple(initial)
        self._starts = starting(space, initial)
        self._number = 0
        self._survivors = Survivors(self.objectives, population_size, entrants=2, dies="loser")
        self._rates: dict[int, float] = {}  # of those alive

    def ask(self, n: int) -> Sequence[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        number, self._number = self._number, self._number + 1
        seed = proposal_seed(self.seed, number)
        complete = self._survivors.complete
        if complete:
            draws = proposal_draws(self.seed, number)
            of, arch = self._survivors.tournament(draws)
            rate = self._rates[of]
            self._rates = {one: self._rates[one] for one in self._survivors.numbers()}
        self._survivors.expect()
        if not complete:
            arch = self._starts[number % len(self._starts)]
            return Proposal(number, arch, seed, notes={"learning_rate": self.learning_rate})
        mutation, arch = self._mutated(arch, draws)
        if mutation == ALTER_LEARNING_RATE:
            rate *= 2.0 ** (2.0 * draws.random() - 1.0)
        return Proposal(
            number,
            arch,
            seed,
            parent=None if mutation == RESET_WEIGHTS else of,
            notes={"learning_rate": rate, "mutation": mutation, "of": of},
        )

    def _mutated(self, arch: Architecture, draws: Draws) -> tuple[str, Architecture]:
        """The name of a mutation, each as likely, and the architecture that it makes."""
        edits = self.space.edits(arch) if isinstance(self.space, HasEdits) else {}
        names = [*OF_TRAINING, *(edits or [CHANGE] * EDITS)]
        name = names[draws.integers(len(names))]
        if name == CHANGE:
            return name, mutate(self.space, arch, draws)
        if name in edits:
            return name, edits[name][draws.integers(len(edits[name]))]
        return name, arch

    def tell(self, trial: Trial) -> None:
        self._survivors.tell(trial)
        if isinstance(trial.outcome, Measured):
            self._rates[trial.number] = float(trial.proposal.notes["learning_rate"])

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "rates": [[number, rate] for number, rate in sorted(self._rates.items())],
            **self._survivors.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._rates = dict(state["rates"])
        self._survivors.load_state_dict(state)
